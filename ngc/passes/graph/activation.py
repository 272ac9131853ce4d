"""Activations become a category of the neuron (paper, Sec. 2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ngc.ir import program as ir
from ngc.ir.graph import ACTIVATIONS, POOLS, Graph
from ngc.ir.program import Program
from ngc.passes.graph.base import GraphPass
from ngc.passes.graph.merger import SOURCES, Merger, merge_unary

# Increasing functions: the largest value stays the largest.
INCREASING = ("relu", "tanh", "sigmoid", "elu", "selu", "celu", "softplus", "softsign")


@dataclass(frozen=True)
class MergeActivation(GraphPass):
    """neuron -> activation of it: one neuron with the activation as its category.

    A node is read as its sum, then its activation, then its pooling. An activation after the
    pooling keeps a neuron of its own, unless both orders are the same function: the largest of
    increasing values.
    """

    name: ClassVar[str] = "activation"
    program: Program

    def __call__(self, graph: Graph) -> Graph:
        return merge_unary(graph, self.program, _applies, _accepts)


def _applies(op: ir.Op) -> bool:
    return isinstance(op, (ir.Activation, ir.Softmax, ir.PRelu))


def _accepts(m: Merger, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    nodes = m.nodes
    increasing = np.isin(nodes.activation[dst], [ACTIVATIONS.index(fn) for fn in INCREASING])
    largest = (nodes.pool[src] == POOLS.index("max")) & (nodes.pool[dst] == 0)
    in_order = (nodes.pool[src] == 0) | (largest & increasing)
    return in_order & (nodes.activation[src] == 0) & ~m.kind_is(src, *SOURCES)
