"""Standardised kernels and biases."""

from __future__ import annotations

import pytest
import torch

from ngc.compiler import compile
from ngc.errors import OptionError
from ngc.models.normalise import Normalise
from tests.models.networks import batch_of, noisy, random_weights, sine
from tests.models.test_ng_gnn import cnn


def fitted(mode: str, *batches: object) -> Normalise:
    normalise = Normalise(mode, num_layers=9)
    normalise.fit(batches)  # type: ignore[arg-type]
    return normalise


def test_each_layer_is_standardised() -> None:
    network = sine(2, 8, 8, 1)
    weights = random_weights(network, 50)
    weights[:, 2:] = weights[:, 2:] * 3 + 1
    batch = batch_of(network, weights)
    part = fitted("layer", batch)(batch).parts[0]
    for block in part.structure.blocks:
        values = part.values(block)
        assert values.mean().abs() < 1e-5
        assert (values.std() - 1).abs() < 1e-2
    hidden = part.x[:, 2:10, 0]
    assert hidden.mean().abs() < 1e-5
    assert (hidden.std() - 1).abs() < 1e-2


def test_statistics_of_several_batches_are_those_of_all() -> None:
    network = sine(2, 8, 8, 1)
    weights = random_weights(network, 10)
    whole = fitted("layer", batch_of(network, weights))
    parts = fitted("layer", batch_of(network, weights[:3]), batch_of(network, weights[3:]))
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value)


def test_dataset_mode_has_one_mean_for_all_kernels() -> None:
    network = sine(2, 8, 8, 1)
    batch = batch_of(network, random_weights(network, 50) * 2)
    part = fitted("dataset", batch)(batch).parts[0]
    assert part.edges.mean().abs() < 1e-5
    assert (part.edges.std() - 1).abs() < 1e-2


def test_padding_and_constant_edges_stay() -> None:
    compiled = cnn()
    batch = batch_of(compiled, noisy(compiled, 4))
    before = batch.parts[0]
    after = fitted("layer", batch)(batch).parts[0]
    mask = before.structure.weight_mask
    assert not mask.all()
    assert torch.equal(after.edges[:, ~mask], before.edges[:, ~mask])
    assert not torch.equal(after.edges[:, mask], before.edges[:, mask])
    assert torch.equal(
        after.x[:, ~before.structure.scalar_mask], before.x[:, ~before.structure.scalar_mask]
    )


def test_layers_whose_numbers_are_all_alike_give_finite_ones() -> None:
    network = sine(2, 8, 8, 1)
    weights = torch.full((3, network.program.num_slots), 0.25)
    batch = batch_of(network, weights)
    part = fitted("layer", batch)(batch).parts[0]
    assert part.edges.isfinite().all()
    assert part.edges.abs().max() < 1e-6


def test_off_changes_nothing() -> None:
    network = sine(2, 8, 8, 1)
    batch = batch_of(network, random_weights(network, 2))
    assert fitted("off", batch)(batch) is batch


def test_deeper_networks_are_refused() -> None:
    network = sine(2, 8, 8, 1)
    batch = batch_of(network, random_weights(network, 2))
    normalise = Normalise("layer", num_layers=3)
    with pytest.raises(OptionError, match=r"3 layers of weights \(normalise: layer knows 2\)"):
        normalise.fit([batch])


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(OptionError, match="off, dataset, layer"):
        Normalise("neuron", 2)


def test_weights_behind_a_reversed_graph_are_counted_once() -> None:
    network = sine(2, 8, 8, 1)
    assert network.source.proto is not None
    reversed_ = compile(network.source.proto, reverse="features")
    weights = random_weights(network, 5)
    one = fitted("layer", batch_of(network, weights)).state_dict()
    other = fitted("layer", batch_of(reversed_, weights)).state_dict()
    for name in one:
        torch.testing.assert_close(one[name], other[name])
