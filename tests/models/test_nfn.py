"""NFN on compiled networks; its layers are tested in test_equivariant.py."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ngc.compiler import compile
from ngc.errors import OptionError
from ngc.models import build
from ngc.models.nfn import FourierFeatures, place_bands
from ngc.models.weight_space import Features
from ngc.symmetry import apply, symmetries
from tests.models.classifiers import Layer, classifier, classifier_weights
from tests.models.networks import (
    batch_of,
    conv_model,
    facts_of,
    parameters,
    random_weights,
    sine,
)
from tests.models.properties import (
    changes,
    check_batch_mates,
    check_edits_equivariant,
    check_gradients,
    check_graphs_invariant,
    check_mixed_batch,
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


# --- image classifiers of one architecture ---

CHAIN = (Layer(4), Layer(5, 5, "relu"), Layer(3, 1))
RELU = classifier(*CHAIN)
TANH = classifier(*(replace(layer, activation="tanh") for layer in CHAIN))


def of_classifiers(name: str, predicts: str = "graph", **settings: object) -> nn.Module:
    facts = facts_of(RELU, TANH)
    assert facts.chain == ((4, 3), (5, 4), (3, 5), (4, 3))
    assert [len(columns) for columns in facts.chain_columns] == [9, 25, 1, 1]
    return build(name, facts, predicts=predicts, **(SMALL | settings)).eval()


@BOTH
@torch.no_grad()
def test_the_order_of_channels_does_not_matter(name: str) -> None:
    model, weights = of_classifiers(name), classifier_weights(RELU, 4)
    before = model(batch_of(RELU, weights))
    assert before.std(0).min() > 1e-3, "networks are not told apart"
    for seed in range(3):
        element = symmetries(RELU.wiring).random_element(seed)
        after = model(batch_of(RELU, apply(RELU.wiring, weights, element)))
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@BOTH
@torch.no_grad()
def test_changes_follow_the_order_of_channels(name: str) -> None:
    model, weights = unscaled(of_classifiers(name, "edits")), classifier_weights(RELU, 4)
    before = changes(model, RELU, weights)
    assert before[:, 2:].std(0).min() > 1e-4, "networks are not told apart"
    element = symmetries(RELU.wiring).random_element(1)
    moved = apply(RELU.wiring, weights, element)
    assert not torch.equal(moved, weights)
    after = changes(model, RELU, moved)
    torch.testing.assert_close(after, apply(RELU.wiring, before, element), rtol=1e-5, atol=1e-5)


@BOTH
@pytest.mark.parametrize("predicts", ["graph", "edits"])
@pytest.mark.parametrize("frequencies", [0, 4])
def test_every_parameter_learns_from_classifiers(
    name: str, predicts: str, frequencies: int
) -> None:
    check_gradients(of_classifiers(name, predicts, frequencies=frequencies), RELU)


@BOTH
@torch.no_grad()
def test_activation_functions_mix_in_a_batch(name: str) -> None:
    for predicts in ("graph", "edits"):
        model = unscaled(of_classifiers(name, predicts))
        check_mixed_batch(model, RELU, TANH)


@torch.no_grad()
def test_positions_of_a_kernel_are_told_apart_and_padding_is_none() -> None:
    """The first weight space has a channel for each tap, and no more."""
    functional = of_classifiers("nfn_hnp", frequencies=0).functional
    space, entry = functional.space, Features(functional.space.chain.taps, 1)
    # Inputs and outputs of the network are channels as well: 3 inputs, 4 outputs.
    assert [m.channels(entry) for m in space.members[:4]] == [3 * 9, 25, 1, 4]
    weights = classifier_weights(RELU, 1).repeat(2, 1)
    kernel = parameters(RELU, weights)["w1"]
    kernel[1] = kernel[1].flip(-1)
    found = of_classifiers("nfn_hnp")(batch_of(RELU, weights))
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_networks_with_other_kernels_or_skips_are_refused() -> None:
    model = of_classifiers("nfn_hnp")
    for layers, found in (
        ((Layer(4), Layer(5, 3), Layer(3, 1)), "3-4-5-3-4, kernels of 9, 9, 1, 1"),
        ((Layer(4), Layer(5, 5), Layer(3, 1, skip=0)), "no chain of layers"),
        ((Layer(4, norm=True), Layer(5, 5), Layer(3, 1)), "no chain of layers"),
    ):
        other = classifier(*layers)
        with pytest.raises(OptionError, match=f"{found}.*it reads 3-4-5-3-4, kernels of 9, 25, 1"):
            model(batch_of(other, classifier_weights(other, 1)))


@BOTH
def test_frequencies_are_stored_with_the_model(name: str) -> None:
    state = build(name, facts_of(NETWORK), **SMALL).state_dict()
    assert {"functional.weight.frequencies", "functional.bias.frequencies"} <= state.keys()
