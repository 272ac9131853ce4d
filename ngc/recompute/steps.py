"""Loops whose steps share neurons: the steps do the same, and edges lead to the right one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from ngc.ir import program as ir
from ngc.ir.graph import EdgeBlock
from ngc.recompute.chains import Chains, Mismatch


def check_same(op: ir.Op, first: ir.Op) -> None:
    """An operation does what that of the first step does; at another place, if it looks at a value
    that all steps read from."""
    own, other = (one.reading(("",) * len(one.inputs)) for one in (op, first))
    differ = any(
        f.name not in ("out", "origin") and getattr(own, f.name) != getattr(other, f.name, None)
        for f in fields(own)
    )
    moved = isinstance(op, ir.Slice | ir.Take | ir.Select) and op.inputs == first.inputs
    if type(op) is not type(first) or (differ and not moved):
        raise Mismatch("it does something else in another step of its loop")
    if (op.out.shape, op.out.dtype) != (first.out.shape, first.out.dtype):
        raise Mismatch("its result is another in another step of its loop")


def check_steps(chains: Chains, blocks: Sequence[EdgeBlock]) -> None:
    """Recurrent edges are those from what is computed later, or just there; each initial value has
    an edge to its state, but for zeros, and nothing else has one."""
    wiring, computed = chains.wiring, chains.computed_by()
    found = [np.zeros((2, 0), dtype=np.int64)]
    for block in blocks:
        ends = block.edge_index()
        if block.kind == "initial":
            found.append(chains.held_by(ends))
            continue
        late = computed[chains.held_by(ends[0])] >= block.op
        if (late != block.recurrent).any() and block.kind != "flatten":
            node = int(ends[0][late != block.recurrent][0])
            raise Mismatch(f"a {block.kind} edge of node {node} leads to the wrong step")
    zeros = {op.out.name for op in wiring.program if isinstance(op, ir.Constant) and op.is_zero}
    wanted = [np.zeros((2, 0), dtype=np.int64)]
    for initial, state in wiring.initial_values():
        if initial not in zeros:
            ids = (chains.end[wiring.index[ref].ids] for ref in (initial, state))
            wanted.append(np.stack([array.reshape(-1) for array in np.broadcast_arrays(*ids)]))
    one, two = (np.unique(np.concatenate(pairs, axis=1), axis=1) for pairs in (wanted, found))
    if not np.array_equal(one, two):
        raise Mismatch("a state does not start from its initial value")
