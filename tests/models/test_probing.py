"""Probing: what networks answer at learned inputs, and nothing of how."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ngc.backends.blocks import bind_blocks
from ngc.errors import OptionError
from ngc.models import answers, build
from ngc.symmetry import apply, symmetries
from tests.models.classifiers import classifier_weights, company, families
from tests.models.networks import batch_of, facts_of
from tests.models.properties import check_batch_mates, check_gradients

SMALL: dict[str, Any] = {"points": 5, "width": 16}
NETWORKS = families()


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def probing(**settings: object) -> torch.nn.Module:
    return build("probing", facts_of(*NETWORKS.values()), outputs=3, **(SMALL | settings)).eval()


def test_every_parameter_learns() -> None:
    check_gradients(probing(), NETWORKS["plain"])
    check_gradients(probing(softmax=True), NETWORKS["plain"])


def test_batch_mates_do_not_matter() -> None:
    check_batch_mates(probing(), NETWORKS["skips"])


@torch.no_grad()
def test_mixed_architectures_are_answered_in_their_order() -> None:
    model = probing()
    batch, names = company(NETWORKS)
    found = model(batch)
    for number, (name, network) in enumerate(NETWORKS.items()):
        places = [k for k, other in enumerate(names) if other == name]
        alone = model(batch_of(network, classifier_weights(network, 2, seed=number)))
        torch.testing.assert_close(found[places], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_the_order_of_neurons_does_not_matter(name: str) -> None:
    model, network = probing(), NETWORKS[name]
    weights = classifier_weights(network, 3)
    before = model(batch_of(network, weights))
    assert before.std(0).max() > 1e-3, "networks are not told apart"
    moved = apply(network.wiring, weights, symmetries(network.wiring).random_element(1))
    after = model(batch_of(network, moved))
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


def gradients(model: torch.nn.Module, weights: Tensor) -> list[Tensor]:
    weights = weights.clone().requires_grad_()
    model.zero_grad()
    model(batch_of(NETWORKS["skips"], weights)).square().sum().backward()
    return [weights.grad, *(p.grad for p in model.parameters())]  # type: ignore[list-item]


def test_points_are_taken_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, weights = probing(), classifier_weights(NETWORKS["skips"], 2)
    together = gradients(model, weights)
    monkeypatch.setitem(answers.CHUNK_VALUES, "cpu", 1)
    for one, other in zip(together, gradients(model, weights)):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert together[0].abs().max() > 0, "weights get a gradient as well"


@torch.no_grad()
def test_softmax_reads_probabilities() -> None:
    model = probing(softmax=True)
    read: list[Tensor] = []
    model.mlp.register_forward_hook(lambda module, given, result: read.append(given[0]))
    model(company(NETWORKS)[0])
    torch.testing.assert_close(read[0].unflatten(1, (4, 5)).sum(1), torch.ones(12, 5))


def test_points_begin_at_given_inputs() -> None:
    model = probing()
    images = torch.rand(5, 1, 3, 6, 6)
    model.begin_at(images)
    assert torch.equal(model.points[0], images)
    with pytest.raises(OptionError, match=r"the points are \[5, 1, 3, 6, 6\]"):
        model.begin_at(images[:2])


def test_networks_that_it_cannot_ask_are_refused() -> None:
    network = NETWORKS["plain"]
    with pytest.raises(OptionError, match="built without a way to run them"):
        probing()(bind_blocks(network.plan, classifier_weights(network, 1)))
