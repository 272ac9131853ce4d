"""Parameters that are added to a neuron become its bias."""

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
class MergeBias(GraphPass):
    """neuron -> neuron plus a parameter: one neuron with a bias. One bias a neuron: a second one
    keeps a neuron of its own."""

    name: ClassVar[str] = "merge-bias"
    program: Program

    def __call__(self, graph: Graph) -> Graph:
        return merge_unary(graph, self.program, _applies, _accepts)


def _applies(op: ir.Op) -> bool:
    return isinstance(op, ir.Shift) and op.fn != "rsub"


def _accepts(m: Merger, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    return m.plain(src) & ~m.kind_is(src, *SOURCES, "parameter", "compare")
