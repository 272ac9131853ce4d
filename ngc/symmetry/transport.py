"""Weights carried along by a permutation of neurons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch

from ngc.ir.slots import FIRST_SLOT, Slots
from ngc.passes.wire import Wires, Wiring

CHUNK = 1 << 22  # entries at a time

Weights = TypeVar("Weights", np.ndarray, torch.Tensor)


def apply(wiring: Wiring, weights: Weights, permutation: np.ndarray) -> Weights:
    """Weights [..., num_slots] with every scalar where its neurons have gone."""
    slots = slot_permutation(wiring, permutation)
    source = np.empty_like(slots)
    source[slots] = np.arange(len(slots), dtype=slots.dtype)
    if isinstance(weights, torch.Tensor):
        return weights[..., torch.from_numpy(source).to(weights.device, torch.int64)]
    return weights[..., source]


def slot_permutation(wiring: Wiring, permutation: np.ndarray) -> np.ndarray:
    """Where every slot goes when neuron n goes to permutation[n]: an int array [num_slots].

    AssertionError where that contradicts itself: the permutation is then no symmetry.
    """
    num_slots = wiring.program.num_slots
    dtype = np.int32 if num_slots < 2**31 else np.int64
    target: np.ndarray = np.full(num_slots, -1, dtype=dtype)
    target[:FIRST_SLOT] = np.arange(FIRST_SLOT)
    for wires in wiring.wires:
        slots = wires.slots
        if slots.entries is None and not any(slots.strides) and slots.offset < FIRST_SLOT:
            continue
        once = slots.entries is None and all(t for t, n in zip(slots.strides, slots.shape) if n > 1)
        for here, there in _moved_slots(wires, permutation):
            _write(target, here, there, f"{wires.kind} of {_name(wiring, wires.op)}", once)
    place = np.full(wiring.num_neurons, -1, dtype=np.int64)
    for scalars in wiring.scalars:
        place[scalars.neurons] = np.arange(len(scalars.neurons))
        image = place[permutation[scalars.neurons]]
        name = f"{scalars.role} of {_name(wiring, scalars.op)}"
        assert (image >= 0).all(), f"{name}: a neuron goes outside"
        _write(target, scalars.slots, scalars.slots[image], name)
        place[scalars.neurons] = -1
    target = np.where(target < 0, np.arange(num_slots, dtype=dtype), target)
    reached = np.zeros(num_slots, dtype=bool)
    reached[target] = True
    assert reached.all(), "two slots go to one"
    return target


def _name(wiring: Wiring, number: int) -> str:
    return wiring.program.ops[number].out.name


def _write(
    target: np.ndarray, here: np.ndarray, there: np.ndarray, name: str, once: bool = False
) -> None:
    """``once``: no slot stands twice in ``here``."""
    known = target[here]
    assert ((known < 0) | (known == there)).all(), f"{name}: a slot goes to two places"
    target[here] = there
    assert once or (target[here] == there).all(), f"{name}: a slot goes to two places"


def _moved_slots(wires: Wires, permutation: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Slots of the edges, and of the edges that they become, a chunk at a time."""
    (g, i), o, k = wires.src.shape, wires.dst.shape[1], wires.slots.shape[3]
    flat = wires.dst.reshape(-1)
    order = np.argsort(flat, kind="stable")
    wanted = permutation[flat]
    found = order[np.searchsorted(flat[order], wanted).clip(max=len(flat) - 1)]
    assert (flat[found] == wanted).all(), f"{wires.kind}: a target goes outside"
    group, new_o = (part.reshape(g, o) for part in np.divmod(found, o))
    assert (group == group[:, :1]).all(), f"{wires.kind}: a group falls apart"
    new_g = group[:, 0]
    moved, present = permutation[wires.src], wires.src[new_g]
    by_moved, by_present = np.argsort(moved, axis=1), np.argsort(present, axis=1)
    same = np.take_along_axis(moved, by_moved, 1) == np.take_along_axis(present, by_present, 1)
    assert same.all(), f"{wires.kind}: a source goes outside"
    new_i = np.empty((g, i), dtype=np.int64)
    np.put_along_axis(new_i, by_moved, by_present, axis=1)

    address = _Address(wires.slots)
    rows = np.arange(g)
    if i * o * k <= CHUNK:
        step = max(1, CHUNK // (i * o * k))
        for start in range(0, g, step):
            part = slice(start, start + step)
            yield (
                address(rows[part], np.arange(o)[None], np.arange(i)[None]),
                address(new_g[part], new_o[part], new_i[part]),
            )
        return
    step = max(1, CHUNK // (i * k))
    for row in rows:
        for start in range(0, o, step):
            targets = np.arange(start, min(start + step, o))[None]
            yield (
                address(rows[row : row + 1], targets, np.arange(i)[None]),
                address(
                    new_g[row : row + 1],
                    new_o[row : row + 1, start : start + step],
                    new_i[row : row + 1],
                ),
            )


class _Address:
    """Slots at places g [n], o [n, o], i [n, i] of an array: [n, o, i, k]."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.entries = slots.numpy() if slots.entries is not None else None

    def __call__(self, g: np.ndarray, o: np.ndarray, i: np.ndarray) -> np.ndarray:
        g, o, i = g[:, None, None], o[:, :, None], i[:, None, :]
        if self.entries is not None:
            return self.entries[g, o, i]
        sg, so, si, sk = self.slots.strides
        taps = np.arange(self.slots.shape[3]) * sk
        return (self.slots.offset + g * sg + o * so + i * si)[..., None] + taps
