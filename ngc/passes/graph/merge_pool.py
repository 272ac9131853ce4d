"""Pooling becomes part of the neuron that is pooled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ngc.ir import program as ir
from ngc.ir.graph import Graph
from ngc.ir.program import Program
from ngc.passes.graph.base import GraphPass
from ngc.passes.graph.merger import SOURCES, Merger, merge_unary


@dataclass(frozen=True)
class MergePool(GraphPass):
    """neuron -> the same neuron pooled over its positions: one neuron, pooled. A second pooling
    keeps a neuron of its own."""

    name: ClassVar[str] = "merge-pool"
    program: Program

    def __call__(self, graph: Graph) -> Graph:
        return merge_unary(graph, self.program, _applies, _accepts)


def _applies(op: ir.Op) -> bool:
    return isinstance(op, (ir.Pool, ir.Reduce, ir.Resize, ir.Cumulate, ir.TopK))


def _accepts(m: Merger, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    return (m.nodes.pool[src] == 0) & ~m.kind_is(src, *SOURCES)
