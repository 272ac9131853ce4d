"""Derived symmetry groups: what they say, and that their elements leave the function alone."""

from __future__ import annotations

from math import factorial, log10

import numpy as np
import pytest
import torch

from ngc.backends.torch_exec import run
from ngc.ir.program import Program
from ngc.passes.wire import wire
from ngc.symmetry import apply, describe, symmetries
from tests.symmetry import networks
from tests.symmetry.networks import EXPECTED

NETWORKS = {name: build for name, (build, _) in EXPECTED.items()} | {
    "rnn": networks.rnn,
    "shuffle": networks.shuffle_net,
    "rotary_grouped": lambda: networks.attention(4, 2, 4, rotary=True),
    "scaled_grouped": lambda: networks.attention(4, 2, shared_scale=True),
}


def random_weights(program: Program) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    weights = torch.randn(program.num_slots, dtype=torch.float64, generator=rng)
    weights[0], weights[1] = 0, 1
    return weights


def outputs(program: Program, weights: torch.Tensor) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    inputs = {
        op.out.name: torch.randn(op.out.shape, dtype=torch.float64, generator=rng)
        for op in program.inputs
    }
    (result,) = run(program, weights, inputs).values()
    return result


@pytest.mark.parametrize("name", EXPECTED)
def test_families(name: str) -> None:
    build, expected = EXPECTED[name]
    rows = describe(symmetries(wire(build())))
    found = [(row.depth, row.size, row.copies, row.name) for row in rows]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_elements_leave_the_function_alone(name: str) -> None:
    program = NETWORKS[name]()
    wiring = wire(program)
    group = symmetries(wiring)
    weights = random_weights(program)
    before = outputs(program, weights)
    for seed in range(3):
        element = group.random_element(seed)
        assert group.contains(element)
        after = outputs(program, apply(wiring, weights, element))
        torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)


def test_heads_move_as_blocks() -> None:
    group = symmetries(wire(networks.attention(6, 6)))
    element = group.random_element(0)
    ids = group.wiring.index["q"].ids.reshape(-1)
    heads = (element[ids].reshape(6, 3) - ids.min()) // 3
    assert (heads == heads[:, :1]).all()
    assert (heads[:, 0] != np.arange(6)).any()


@pytest.mark.parametrize("name", ["mlp", "attention", "channel_shift", "bias_by_position"])
def test_wrong_permutation_is_no_member_and_changes_the_output(name: str) -> None:
    """Two neurons of one operation swapped that the group keeps apart, or without what is tied."""
    program = NETWORKS[name]()
    wiring = wire(program)
    group = symmetries(wiring)
    value = {"mlp": "first", "attention": "q"}.get(name, "conv")
    a, b = wiring.index[value].ids.reshape(-1)[[0, -1]]
    wrong = np.arange(wiring.num_neurons)
    wrong[[a, b]] = b, a
    assert not group.contains(wrong)
    weights = random_weights(program)
    after = outputs(program, apply(wiring, weights, wrong))
    assert (after - outputs(program, weights)).abs().max() > 1e-3


def test_contains_refuses_what_is_no_permutation() -> None:
    group = symmetries(wire(networks.mlp()))
    identity = np.arange(group.structure.num_neurons)
    assert group.contains(identity)
    assert not group.contains(identity[:-1])
    assert not group.contains(np.zeros_like(identity))


def test_fixed_neurons_stay() -> None:
    wiring = wire(networks.residual_mlp())
    element = symmetries(wiring).random_element(3)
    for ref in ("x", wiring.program.outputs[0][1]):
        ids = wiring.index[ref].ids
        assert (element[ids] == ids).all()


def test_order_counts_blocks_and_their_insides() -> None:
    found = symmetries(wire(networks.attention(6, 2))).log10_order
    # Two groups, in each three heads, and three dimensions of keys and of values.
    expected = factorial(8) * 2 * factorial(3) ** (2 * 3)
    assert found == pytest.approx(log10(expected))


def test_grid_of_a_channel_shuffle() -> None:
    found = symmetries(wire(networks.shuffle_net())).log10_order
    # Rows and columns of the grid, three channels in each cell, six before and after each group.
    expected = 2 * 2 * factorial(3) ** 4 * factorial(6) ** 4
    assert found == pytest.approx(log10(expected))


def test_same_seed_same_element() -> None:
    group = symmetries(wire(networks.conv_net()))
    assert (group.random_element(1) == group.random_element(1)).all()
    assert (group.random_element(1) != group.random_element(2)).any()


def test_a_layer_without_neurons_has_no_symmetries() -> None:
    net = networks.Net()
    empty = net.act(net.linear(net.input(2, 3), 0))
    assert symmetries(wire(net.done(net.linear(empty, 1)))).log10_order == 0
