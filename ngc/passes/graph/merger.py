"""Merging nodes: how bias, scale and activation become part of a neuron.

Two nodes become one only where nothing else reads the first: a neuron holds one value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from ngc.ir import program as ir
from ngc.ir.graph import NO_SCALAR, NODE_KINDS, NODE_ROLES, EdgeBlock, Graph
from ngc.ir.program import Program
from ngc.ir.slots import ONE

# Kinds of nodes without incoming edges: they hold what they are given.
SOURCES = ("input", "token", "position", "constant")
OUTPUT = NODE_ROLES.index("output")


class Merger:
    """Merges nodes of a graph, in the order of its program.

    Nodes are numbered as in the graph; ``rep`` is the node that each has become part of, ``uses``
    how many operations read it, being an output of the network among them. ``nodes`` is the node
    table as it becomes. ``result`` renumbers.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.rep = np.arange(graph.num_nodes)
        self.nodes = graph.nodes.take(self.rep)  # a copy to write in
        self.uses = np.zeros(graph.num_nodes, dtype=np.int64)
        for block in graph.blocks:
            np.add.at(self.uses, block.src.reshape(-1), 1)
        self.uses[self.nodes.role == OUTPUT] += 1
        self.merged = False

    def ends(self, block: EdgeBlock) -> tuple[np.ndarray, np.ndarray]:
        """Source and target nodes of a block of diagonal edges, merged ones replaced."""
        return self.rep[block.src[:, 0]], self.rep[block.dst[:, 0]]

    def kind_is(self, nodes: np.ndarray, *kinds: str) -> np.ndarray:
        return np.isin(self.nodes.kind[nodes], [NODE_KINDS.index(kind) for kind in kinds])

    def plain(self, nodes: np.ndarray) -> np.ndarray:
        """Nodes without activation and pooling: more can still be added to their sum."""
        return (self.nodes.activation[nodes] == 0) & (self.nodes.pool[nodes] == 0)

    def free(self, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        """Pairs that can become one: nothing else reads src, and no scalar is on both."""
        both = self._has_scalar(src) & self._has_scalar(dst)
        return (self.uses[src] == 1) & ~both.any(axis=1)

    def _has_scalar(self, nodes: np.ndarray) -> np.ndarray:
        return self.nodes.scalars[nodes] != np.array(NO_SCALAR)

    def merge(self, src: np.ndarray, dst: np.ndarray) -> None:
        """Nodes dst become part of nodes src."""
        if len(src) == 0:
            return
        self.merged = True
        self.rep[dst] = src
        self.uses[src] = self.uses[dst]
        table = self.nodes
        table.neuron[src] = table.neuron[dst]
        table.role[src[table.role[dst] == OUTPUT]] = OUTPUT
        for column in (table.activation, table.pool):  # 0 is none
            column[src] = np.maximum(column[src], column[dst])
        added = self._has_scalar(dst)
        table.scalars[src] = np.where(added, table.scalars[dst], table.scalars[src])

    def result(self, blocks: Iterable[EdgeBlock]) -> Graph:
        """The graph of the blocks that are left; the same object where nothing has merged."""
        if not self.merged:
            return self.graph
        rep = self.rep
        while (rep != rep[rep]).any():
            rep = rep[rep]
        kept = np.flatnonzero(rep == np.arange(len(rep)))
        number = np.empty(len(rep), dtype=np.int64)
        number[kept] = np.arange(len(kept))
        number = number[rep]
        moved = tuple(b.renumbered(number) for b in blocks if b.num_edges)
        return replace(self.graph, nodes=self.nodes.take(kept), blocks=moved)


def is_unary(block: EdgeBlock) -> bool:
    """Whether the block is one edge of weight one into each target."""
    slots = block.slots
    single = block.src.shape[1] == block.dst.shape[1] == block.taps == 1
    one = slots.entries is None and slots.offset == ONE and not any(slots.strides)
    return single and one and not block.recurrent  # what is read a step later is another value


def merge_unary(
    graph: Graph,
    program: Program,
    applies: Callable[[ir.Op], bool],
    accepts: Callable[[Merger, np.ndarray, np.ndarray], np.ndarray],
) -> Graph:
    """Merge the nodes of operations with one operand into the nodes that they read.

    ``applies`` says which operations; ``accepts(merger, src, dst)`` which pairs of nodes.
    """
    merger = Merger(graph)
    kept: list[EdgeBlock] = []
    for block in graph.in_order():
        mergeable = block.kind in ("identity", "pool") and is_unary(block)
        if not (mergeable and applies(program.ops[block.op])):
            kept.append(block)
            continue
        src, dst = merger.ends(block)
        ok = merger.free(src, dst) & accepts(merger, src, dst)
        merger.merge(src[ok], dst[ok])
        kept.append(block.pick(np.flatnonzero(~ok)))
    return merger.result(kept)
