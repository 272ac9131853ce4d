"""Weights carried along by a permutation of neurons."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ngc.passes.wire import wire
from ngc.symmetry import apply, slot_permutation, symmetries, transport
from tests.symmetry.build import Net
from tests.symmetry.networks import applied_twice, conv_net, mlp


def swapped(count: int, a: int, b: int) -> np.ndarray:
    result = np.arange(count)
    result[[a, b]] = b, a
    return result


def hidden_swap(net: Net) -> tuple[np.ndarray, np.ndarray]:
    """Slots after the two hidden neurons of x -> h -> tanh -> y are swapped."""
    wiring = wire(net.done(net.ops[-1].out.name))
    hidden = [wiring.index[op.out.name].ids.reshape(-1) for op in net.ops[1:3]]
    permutation = np.arange(wiring.num_neurons)
    for a, b in hidden:
        permutation[[a, b]] = b, a
    return slot_permutation(wiring, permutation), permutation


def test_rows_and_columns_follow_their_neurons() -> None:
    net = Net()
    h = net.act(net.linear(net.input(1, 3), 2, bias=False))
    net.linear(h, 2, bias=False)
    slots, _ = hidden_swap(net)
    # Constants; rows of the first weight [2, 3]; columns of the second [2, 2].
    assert slots.tolist() == [0, 1, 5, 6, 7, 2, 3, 4, 9, 8, 11, 10]


def test_weights_may_be_stacked_in_numpy_or_torch() -> None:
    wiring = wire(mlp())
    element = symmetries(wiring).random_element(0)
    weights = np.random.default_rng(0).normal(size=(2, 3, wiring.program.num_slots))
    moved = apply(wiring, weights, element)
    assert (moved[1, 2] == apply(wiring, weights[1, 2], element)).all()
    assert (apply(wiring, torch.from_numpy(weights), element).numpy() == moved).all()


def test_inverse_brings_the_weights_back() -> None:
    wiring = wire(conv_net())
    element = symmetries(wiring).random_element(0)
    weights = np.arange(wiring.program.num_slots)
    moved = apply(wiring, weights, element)
    assert (moved != weights).any()
    assert (apply(wiring, moved, np.argsort(element)) == weights).all()


def test_small_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    wiring = wire(conv_net())
    element = symmetries(wiring).random_element(0)
    whole = slot_permutation(wiring, element)
    for chunk in (1, 40):
        monkeypatch.setattr(transport, "CHUNK", chunk)
        assert (slot_permutation(wiring, element) == whole).all()


def test_contradiction_on_a_shared_slot_is_found() -> None:
    wiring = wire(applied_twice())
    first, second = wiring.index[wiring.program.ops[-5].out.name].ids.reshape(-1)[:2]
    with pytest.raises(AssertionError, match="two places"):
        slot_permutation(wiring, swapped(wiring.num_neurons, first, second))


def test_neuron_that_leaves_its_operation_is_found() -> None:
    wiring = wire(mlp())
    with pytest.raises(AssertionError, match="goes outside"):
        slot_permutation(wiring, swapped(wiring.num_neurons, 0, wiring.num_neurons - 1))
