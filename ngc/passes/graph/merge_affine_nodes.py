"""Plain numbers are not on the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ngc.ir import program as ir
from ngc.ir.graph import Graph
from ngc.ir.program import Program
from ngc.passes.graph.base import GraphPass
from ngc.passes.graph.merger import Merger, merge_unary


@dataclass(frozen=True)
class MergeAffineNodes(GraphPass):
    """neuron -> its multiple by a plain number, plus a plain number: one neuron."""

    name: ClassVar[str] = "merge-affine-nodes"
    program: Program

    def __call__(self, graph: Graph) -> Graph:
        return merge_unary(graph, self.program, _applies, _accepts)


def _applies(op: ir.Op) -> bool:
    return isinstance(op, ir.Cast) or (isinstance(op, ir.Activation) and op.fn == "affine")


def _accepts(m: Merger, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    return np.ones(len(src), dtype=bool)
