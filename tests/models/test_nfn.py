"""NFN on compiled networks; its layers are tested in test_equivariant.py."""

from __future__ import annotations

import math

import pytest
import torch

from ngc.compiler import compile
from ngc.models import build
from ngc.models.nfn import FourierFeatures, place_bands
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
SMALL = {"width": 6, "layers": 3, "head": 8, "frequencies": 4, "sigma": 0.3}
BOTH = pytest.mark.parametrize("name", ["nfn_np", "nfn_hnp"])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@BOTH
def test_the_order_of_hidden_neurons_does_not_matter(name: str) -> None:
    check_graphs_invariant(build(name, facts_of(NETWORK), **SMALL), NETWORK)


@BOTH
def test_changes_follow_the_order_of_hidden_neurons(name: str) -> None:
    model = build(name, facts_of(NETWORK), predicts="edits", **SMALL)
    check_edits_equivariant(model, NETWORK)


@BOTH
@pytest.mark.parametrize("predicts", ["graph", "edits"])
def test_every_parameter_learns(name: str, predicts: str) -> None:
    check_gradients(build(name, facts_of(NETWORK), predicts=predicts, **SMALL), NETWORK)


@BOTH
def test_batch_mates_do_not_matter(name: str) -> None:
    check_batch_mates(build(name, facts_of(NETWORK), **SMALL), NETWORK)


@pytest.mark.parametrize(
    ("name", "bands", "told"),
    [("nfn_np", {"bands": 0}, False), ("nfn_np", {"bands": 3}, True), ("nfn_hnp", {}, True)],
)
def test_inputs_and_outputs_are_alike_only_without_positions(
    name: str, bands: dict[str, int], told: bool
) -> None:
    model = build(name, facts_of(NETWORK), **SMALL, **bands).eval()
    weights = random_weights(NETWORK, 2)
    swapped = weights.clone()
    for param in NETWORK.program.params:
        view = swapped[:, param.offset : param.offset + param.size].unflatten(1, param.shape)
        axes = {"w0": [2], "w2": [1], "b2": [1]}.get(param.name, [])
        view.copy_(view.flip(axes))
    difference = model(batch_of(NETWORK, swapped)) - model(batch_of(NETWORK, weights))
    assert (difference.abs().max() > 1e-3) == told
    assert told or difference.abs().max() < 1e-5


def test_bands_tell_every_place_apart() -> None:
    for count in (2, 3, 10):
        bands = place_bands(count, 3)
        assert bands.shape == (count, 6)
        distance = torch.cdist(bands, bands) + torch.eye(count)
        assert distance.min() > 0.1
    assert place_bands(1, 2).tolist() == [[0, 0, 1, 1]]


def test_fourier_features_are_sines_and_cosines_of_projections() -> None:
    encoder = FourierFeatures(3, 5, sigma=2.0)
    x = torch.randn(4, 3)
    angles = 2 * math.pi * x @ encoder.frequencies
    torch.testing.assert_close(encoder(x), torch.cat([angles.sin(), angles.cos()], dim=-1))
    assert FourierFeatures(1, 10_000, sigma=2.0).frequencies.std() == pytest.approx(2, rel=0.05)


@BOTH
@pytest.mark.parametrize("frequencies", [0, 4])
def test_convolutions_are_read_with_their_kernels(name: str, frequencies: int) -> None:
    network = compile(conv_model((1, 3, 2), (3, 3)))
    settings = {**SMALL, "frequencies": frequencies}
    model = build(name, facts_of(network), predicts="edits", **settings)
    check_gradients(model, network)
    found = changes(unscaled(model), network, random_weights(network, 3))
    assert found[:, 2:].std(0).min() > 1e-3


@BOTH
def test_frequencies_are_stored_with_the_model(name: str) -> None:
    state = build(name, facts_of(NETWORK), **SMALL).state_dict()
    assert {"functional.weight.frequencies", "functional.bias.frequencies"} <= state.keys()
