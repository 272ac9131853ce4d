"""Wrong wirings are found out: the checks of ``truth.py`` can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ngc.ir.slots import Slots
from ngc.passes.wire import Wiring
from tests.passes.wire.truth import assert_true, wired
from tests.small_programs import CNN, TOKENS


def network() -> Wiring:
    return wired(CNN, exact=False)


def block(w: Wiring, name: str, kind: str) -> int:
    number = [op.out.name for op in w.program.ops].index(name)
    return next(k for k, b in enumerate(w.wires) if b.op == number and b.kind == kind)


def swap_flatten_order(w: Wiring) -> None:
    """Channels first where the network has channels last."""
    k = block(w, "z", "linear_positions")
    first = w.wires[k].slots.numpy().min()
    w.wires[k] = replace(w.wires[k], slots=Slots.contiguous((1, 3, 2, 4), int(first)))


def transpose_weights(w: Wiring) -> None:
    k = block(w, "d", "convolution")
    w.wires[k] = replace(w.wires[k], slots=w.wires[k].slots.transpose((0, 2, 1, 3)))


def swap_sources(w: Wiring) -> None:
    k = block(w, "d", "convolution")
    w.wires[k] = replace(w.wires[k], src=w.wires[k].src[:, ::-1])


def turn_kernels(w: Wiring) -> None:
    k = block(w, "c", "convolution")
    w.wires[k] = replace(w.wires[k], slots=w.wires[k].slots.along(3, np.arange(9)[::-1]))


def drop_residual(w: Wiring) -> None:
    del w.wires[block(w, "u", "identity")]


def drop_edges(w: Wiring) -> None:
    del w.wires[block(w, "d", "convolution")]


def swap_biases(w: Wiring) -> None:
    k = next(k for k, s in enumerate(w.scalars) if s.role == "mean")
    w.scalars[k] = replace(w.scalars[k], slots=w.scalars[k].slots[::-1])


CORRUPTIONS = (
    swap_flatten_order, transpose_weights, swap_sources, turn_kernels, drop_residual, drop_edges,
    swap_biases,
)  # fmt: skip


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda f: f.__name__)
def test_a_corrupted_wiring_is_not_true(corrupt: Callable[[Wiring], None]) -> None:
    w = network()
    corrupt(w)
    with pytest.raises(AssertionError):
        assert_true(w, exact=False)


def test_positions_out_of_order_are_not_true() -> None:
    w = wired(TOKENS)
    k = block(w, "h", "position_bias")
    w.wires[k] = replace(w.wires[k], slots=w.wires[k].slots.along(2, np.arange(4)[::-1]))
    with pytest.raises(AssertionError):
        assert_true(w)
