"""Query: what a network answers, and nothing of how."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ngc.backends.blocks import bind_blocks
from ngc.errors import OptionError
from ngc.models import build
from ngc.models.query import fixed_points
from tests.models.networks import (
    batch_of,
    facts_of,
    mixed_batch,
    parameters,
    random_weights,
    sine,
)
from tests.models.properties import check_batch_mates, check_gradients, check_graphs_invariant

NETWORK = sine(2, 5, 4, 1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_every_parameter_learns() -> None:
    check_gradients(build("query", facts_of(NETWORK), outputs=3), NETWORK)


def test_the_order_of_neurons_and_batch_mates_do_not_matter() -> None:
    model = build("query", facts_of(NETWORK), outputs=3)
    check_graphs_invariant(model, NETWORK)
    check_batch_mates(model, NETWORK)


def test_points_are_the_middles_of_a_grid() -> None:
    (points,) = fixed_points(4, ((1, 2),))
    assert points.tolist() == [[[-0.5, -0.5]], [[-0.5, 0.5]], [[0.5, -0.5]], [[0.5, 0.5]]]
    (points,) = fixed_points(64, ((2,),))
    assert points.shape == (64, 2)
    assert len({tuple(point) for point in points.tolist()}) == 64


@pytest.mark.parametrize(
    ("count", "shapes"), [(5, ((2,),)), (4, ((1, 3, 8, 8),)), (4, ((1,), (1,)))]
)
def test_other_points_are_random_and_always_the_same(
    count: int, shapes: tuple[tuple[int, ...], ...]
) -> None:
    points = fixed_points(count, shapes)
    assert [p.shape for p in points] == [(count, *shape) for shape in shapes]
    assert all(-1 <= p.min() < 0 < p.max() <= 1 for p in points)
    torch.manual_seed(5)
    assert all(torch.equal(a, b) for a, b in zip(points, fixed_points(count, shapes)))


def test_the_perceptron_reads_the_answers() -> None:
    model = build("query", facts_of(NETWORK), points=9)
    read: list[torch.Tensor] = []
    model.mlp.register_forward_hook(lambda module, given, result: read.append(given[0]))
    weights = random_weights(NETWORK, 3)
    model(batch_of(NETWORK, weights))
    named = parameters(NETWORK, weights)
    x = model.points_0[:, 0].expand(3, 9, 2)
    for k in range(3):
        x = x @ named[f"w{k}"].transpose(1, 2) + named[f"b{k}"][:, None]
        x = x.sin() if k < 2 else x
    torch.testing.assert_close(read[0], x[..., 0])


def test_points_are_stored_with_the_model() -> None:
    model = build("query", facts_of(NETWORK))
    assert "points_0" in model.state_dict()


def test_mixed_architectures_are_answered_in_their_order() -> None:
    deep, shallow = NETWORK, sine(2, 3, 1)
    model = build("query", facts_of(deep, shallow), outputs=3).eval()
    weights = random_weights(deep, 2), random_weights(shallow, 2)
    mixed = model(mixed_batch((deep, weights[0], [0, 3]), (shallow, weights[1], [2, 1])))
    torch.testing.assert_close(mixed[[0, 3]], model(batch_of(deep, weights[0])))
    torch.testing.assert_close(mixed[[2, 1]], model(batch_of(shallow, weights[1])))


def test_networks_with_other_outputs_are_refused() -> None:
    other = sine(2, 3, 2)
    model = build("query", facts_of(NETWORK))
    with pytest.raises(OptionError, match=r"2 outputs \(it reads 1\)"):
        model(batch_of(other, random_weights(other, 1)))


def test_graphs_without_their_networks_are_refused() -> None:
    with pytest.raises(OptionError, match="inputs of one shape"):
        build("query", replace(facts_of(NETWORK), input_shapes=()))
    model = build("query", facts_of(NETWORK))
    with pytest.raises(OptionError, match="built without a way to run them"):
        model(bind_blocks(NETWORK.plan, random_weights(NETWORK, 1)))
