"""Residual connections end in the neurons that they are added to (paper, Sec. 2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ngc.ir import program as ir
from ngc.ir.graph import EdgeBlock, Graph
from ngc.ir.program import Program
from ngc.passes.graph.base import GraphPass
from ngc.passes.graph.merger import Merger, is_unary


@dataclass(frozen=True)
class Residual(GraphPass):
    """sum of neurons -> the last computed of them, with identity edges of weight one from the
    others straight into it.

    That operand must be a sum or a norm that nothing else reads; otherwise the sum keeps neurons
    of its own.
    """

    name: ClassVar[str] = "residual"
    program: Program

    def __call__(self, graph: Graph) -> Graph:
        merger = Merger(graph)
        by_op: dict[int, list[EdgeBlock]] = {}
        for block in graph.in_order():
            by_op.setdefault(block.op, []).append(block)
        kept: list[EdgeBlock] = []
        for number, blocks in by_op.items():
            op = self.program.ops[number]
            is_sum = isinstance(op, ir.Combine) and op.fn in ("add", "sub")
            kept += _merge(merger, blocks) if is_sum else blocks
        return merger.result(kept)


def _merge(m: Merger, blocks: list[EdgeBlock]) -> list[EdgeBlock]:
    """Merge each target of one sum with an operand; the edges that are left."""
    ends = [m.ends(block) for block in blocks]
    times = np.bincount(np.concatenate([src for src, _ in ends]), minlength=len(m.rep))
    # Target -> (age, block, group) of the acceptable operand that was computed last.
    best: dict[int, tuple[int, int, int]] = {}
    for k, (block, (src, dst)) in enumerate(zip(blocks, ends)):
        if block.kind != "identity" or not is_unary(block):
            continue
        ok = m.free(src, dst) & (times[src] == 1) & m.plain(src) & m.kind_is(src, "sum", "norm")
        for g in np.flatnonzero(ok).tolist():
            age = int(m.nodes.op[src[g]])
            if int(dst[g]) not in best or best[int(dst[g])][0] < age:
                best[int(dst[g])] = (age, k, g)
    result = []
    for k, (block, (src, dst)) in enumerate(zip(blocks, ends)):
        merged = np.array([g for _, place, g in best.values() if place == k], dtype=np.int64)
        m.merge(src[merged], dst[merged])
        result.append(block.pick(np.setdiff1d(np.arange(len(src)), merged)))
    return result
