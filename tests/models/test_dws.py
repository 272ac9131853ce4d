"""DWSNet on compiled networks; its layers are tested in test_equivariant.py."""

from __future__ import annotations

import pytest
import torch

from ngc.compiler import compile
from ngc.models import build
from tests.models.networks import batch_of, conv_model, facts_of, random_weights, sine
from tests.models.properties import (
    changes,
    check_batch_mates,
    check_edits_equivariant,
    check_gradients,
    check_graphs_invariant,
    unscaled,
)

NETWORK = sine(2, 5, 4, 3)
SMALL = {"width": 6, "layers": 3, "head": 8}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("pool", ["max", "mean", "sum"])
def test_the_order_of_hidden_neurons_does_not_matter(pool: str) -> None:
    check_graphs_invariant(build("dws_net", facts_of(NETWORK), pool=pool, **SMALL), NETWORK)


@pytest.mark.parametrize("pool", ["max", "mean", "sum"])
def test_changes_follow_the_order_of_hidden_neurons(pool: str) -> None:
    model = build("dws_net", facts_of(NETWORK), predicts="edits", pool=pool, **SMALL)
    check_edits_equivariant(model, NETWORK)


@pytest.mark.parametrize("predicts", ["graph", "edits"])
def test_every_parameter_learns(predicts: str) -> None:
    check_gradients(build("dws_net", facts_of(NETWORK), predicts=predicts, **SMALL), NETWORK)


def test_batch_mates_do_not_matter() -> None:
    check_batch_mates(build("dws_net", facts_of(NETWORK), **SMALL), NETWORK)


def test_inputs_and_outputs_are_told_apart() -> None:
    model = build("dws_net", facts_of(NETWORK), **SMALL).eval()
    weights = random_weights(NETWORK, 2)
    for name in ("w0", "w2"):
        swapped = weights.clone()
        param = next(p for p in NETWORK.program.params if p.name == name)
        view = swapped[:, param.offset : param.offset + param.size].unflatten(1, param.shape)
        view.copy_(view.flip(2 if name == "w0" else 1))
        difference = model(batch_of(NETWORK, swapped)) - model(batch_of(NETWORK, weights))
        assert difference.abs().max() > 1e-3, name


def test_convolutions_are_read_with_their_kernels() -> None:
    network = compile(conv_model((1, 3, 2), (3, 3)))
    model = build("dws_net", facts_of(network), predicts="edits", **SMALL)
    check_gradients(model, network)
    found = changes(unscaled(model), network, random_weights(network, 3))
    assert found[:, 2:].std(0).min() > 1e-3


def test_a_single_layer_is_read() -> None:
    network = sine(3, 2)
    model = build("dws_net", facts_of(network), **SMALL).train()
    assert model(batch_of(network, random_weights(network, 1))).shape == (1, 10)


def test_the_size_on_inrs_is_as_published() -> None:
    """The width was chosen for about 550,000 parameters, as DWSNets were compared with."""
    model = build("dws_net", facts_of(sine(2, 32, 32, 1)))
    assert sum(p.numel() for p in model.parameters()) == 556_290
