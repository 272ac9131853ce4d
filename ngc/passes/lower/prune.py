"""The last step of lowering: only what reaches an output, with slots numbered anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ngc.ir import program as ir
from ngc.ir.program import Param, Program
from ngc.ir.slots import FIRST_SLOT, Slots


def prune(program: Program) -> Program:
    """Drop operations that reach no output (inputs stay) and parameters that no operation reads;
    number the slots of the others anew, in order of first use."""
    needed = {ref for _, ref in program.outputs}
    kept: list[ir.Op] = []
    for op in reversed(program.ops):
        if op.out.name in needed or isinstance(op, ir.Input):
            kept.append(op)
            needed.update(op.inputs)
    kept.reverse()
    starts = np.array([p.offset for p in program.params], dtype=np.int64)
    order: dict[int, None] = {}
    for op in kept:
        for slots in op.operands.values():
            order.update(dict.fromkeys(_params_of(slots, starts)))
    offsets: dict[int, int] = {}
    params: list[Param] = []
    next_slot = FIRST_SLOT
    for k in order:
        params.append(replace(program.params[k], offset=next_slot))
        offsets[k] = next_slot
        next_slot += params[-1].size
    table = np.full(len(starts), -1, dtype=np.int64)
    for k, offset in offsets.items():
        table[k] = offset - starts[k]

    def renumbered(op: ir.Op) -> ir.Op:
        moved: dict[str, Any] = {k: _moved(s, starts, table) for k, s in op.operands.items()}
        return replace(op, **moved) if moved else op

    return Program(program.name, tuple(params), tuple(map(renumbered, kept)), program.outputs)


def _params_of(slots: Slots, starts: np.ndarray) -> list[int]:
    """Positions of the parameters an array of slots speaks of, in order of appearance."""
    if slots.size == 0:
        return []
    owner = _owner(slots, starts)
    if owner is not None:
        return [owner] if owner >= 0 else []
    entries = slots.numpy().reshape(-1)
    found = np.searchsorted(starts, entries[entries >= FIRST_SLOT], side="right") - 1
    return list(dict.fromkeys(found.tolist()))


def _owner(slots: Slots, starts: np.ndarray) -> int | None:
    """Position of the one parameter a strided array lies in, -1 for constants; None where it is not
    strided, or runs from one parameter into its neighbour (a concatenation of the two)."""
    if slots.entries is not None:
        return None
    reach = [step * (size - 1) for size, step in zip(slots.shape, slots.strides)]
    low = slots.offset + sum(min(r, 0) for r in reach)
    high = slots.offset + sum(max(r, 0) for r in reach)
    first, last = np.searchsorted(starts, (low, high), side="right") - 1
    return int(first) if first == last and (first >= 0 or low == high) else None


def _moved(slots: Slots, starts: np.ndarray, shift: np.ndarray) -> Slots:
    if slots.size == 0:
        return slots
    owner = _owner(slots, starts)
    if owner is not None:
        return slots if owner < 0 else replace(slots, offset=slots.offset + int(shift[owner]))
    entries = slots.numpy()
    where = np.searchsorted(starts, entries, side="right") - 1
    if where.max() >= 0:
        entries = np.where(where >= 0, entries + shift[where.clip(0)], entries)
    alike = where.min() == where.max() and (where.min() >= 0 or entries.min() == entries.max())
    return Slots.of(entries) if alike else Slots.listed(entries)
