"""The three ways to flatten a map of positions into a Linear (paper, appendix C.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ngc.errors import BudgetError
from ngc.ir.graph import NO_SCALAR, NODE_KINDS, NODE_ROLES, EdgeBlock, Graph, Nodes
from ngc.ir.slots import ONE, Slots
from ngc.passes.graph.base import GraphPass

FLATTENED = "linear_positions"


@dataclass(frozen=True)
class Flatten(GraphPass):
    """Linear with positions as kernel -> Linear with one weight an edge.

    ``virtual`` puts a neuron for each (channel, position) between, with an edge of weight one;
    ``repeat`` copies the neurons before the Linear once for each position, incoming edges
    included; ``kernel`` leaves the graph as it is.
    """

    name: ClassVar[str] = "flatten"
    strategy: str = "repeat"
    max_taps: int = 2**28

    def __call__(self, graph: Graph) -> Graph:
        if self.strategy == "kernel" or not any(b.kind == FLATTENED for b in graph.blocks):
            return graph
        return _Rewrite(graph, self.strategy, self.max_taps).run()


class _Rewrite:
    def __init__(self, graph: Graph, strategy: str, max_taps: int) -> None:
        self.graph, self.strategy, self.max_taps = graph, strategy, max_taps
        self.nodes = graph.nodes
        self.blocks: list[EdgeBlock] = []  # those done
        self.copies: dict[tuple[int, int], int] = {}  # (node, positions) -> first of its copies
        self.copied: set[int] = set()  # nodes whose incoming edges have been copied

    def run(self) -> Graph:
        # In order: edges into a node are done before it is flattened itself.
        for block in self.graph.in_order():
            self.blocks.append(self.flattened(block) if block.kind == FLATTENED else block)
        graph = replace(self.graph, nodes=self.nodes, blocks=tuple(self.blocks))
        return drop_unread(graph, self.copied)

    def flattened(self, block: EdgeBlock) -> EdgeBlock:
        (g, o), i, taps = block.dst.shape, block.src.shape[1], block.taps
        missing = [n for n in np.unique(block.src).tolist() if (n, taps) not in self.copies]
        nodes = np.array(missing, dtype=np.int64)
        # The inputs of the network stay as many as they are.
        linked = self.nodes.kind[nodes] == NODE_KINDS.index("input")
        if self.strategy == "virtual":
            linked[:] = True
        self.link(nodes[linked], block)
        self.repeat(nodes[~linked], block)
        first = np.array([self.copies[n, taps] for n in block.src.reshape(-1).tolist()])
        src = (first.reshape(g, i, 1) + np.arange(taps)).reshape(g, i * taps)
        slots = block.slots.reshape((g, o, i * taps, 1))
        return replace(block, kind="linear", src=src, slots=slots, kernel=())

    def add(self, rows: Nodes, nodes: np.ndarray, block: EdgeBlock) -> np.ndarray:
        """Put ``taps`` copies of each node into the table; their numbers [nodes, taps]."""
        taps, start = block.taps, len(self.nodes)
        place = np.tile(np.arange(taps), len(nodes))
        width = block.kernel[-1]
        rows.place[:] = np.stack([place // width, place % width], axis=1)
        self.nodes = self.nodes.joined(rows)
        self.copies |= {(n, taps): start + k * taps for k, n in enumerate(nodes.tolist())}
        return start + np.arange(len(rows)).reshape(len(nodes), taps)

    def link(self, nodes: np.ndarray, block: EdgeBlock) -> None:
        """Copies that only pass a value on, with an edge of weight one from their node."""
        if len(nodes) == 0:
            return
        rows = self.nodes.take(np.repeat(nodes, block.taps))
        rows.kind[:] = NODE_KINDS.index("flatten")
        rows.role[:] = NODE_ROLES.index("hidden")
        rows.activation[:], rows.pool[:], rows.scalars[:] = 0, 0, NO_SCALAR
        copies = self.add(rows, nodes, block)
        slots = Slots.constant((*copies.shape, 1, 1), ONE)
        name = f"{block.name}/flatten"
        self.blocks.append(EdgeBlock(name, block.op, "flatten", nodes[:, None], copies, slots, ()))

    def repeat(self, nodes: np.ndarray, block: EdgeBlock) -> None:
        """Copies with the incoming edges of their node."""
        if len(nodes) == 0:
            return
        rows = self.nodes.take(np.repeat(nodes, block.taps))
        rows.role[rows.role == NODE_ROLES.index("output")] = NODE_ROLES.index("hidden")
        copies = self.add(rows, nodes, block)
        self.copied.update(nodes.tolist())
        place = np.full(len(self.nodes), -1)
        place[nodes] = np.arange(len(nodes))
        added: list[EdgeBlock] = []
        total = sum(b.num_edges * b.taps for b in self.blocks)
        for old in self.blocks:
            found = place[old.dst]  # [g, o]
            total += int((found >= 0).sum()) * block.taps * old.src.shape[1] * old.taps
            if total > self.max_taps:
                raise BudgetError(
                    f"flatten=repeat copies edges to {total:,} weights (limit {self.max_taps:,})",
                    where=block.name,
                    hint="--flatten kernel (no new neurons) or a larger --max-elements",
                )
            for target in _columns(found >= 0):
                added.append(_repeated(old, found[:, target], target, copies))
        self.blocks += added


def _columns(wanted: np.ndarray) -> list[np.ndarray]:
    """Columns of a block to treat together: all where all rows agree, else one by one."""
    if (wanted == wanted[:, :1]).all():
        return [np.arange(wanted.shape[1])] if wanted.any() else []
    return [np.array([o]) for o in np.flatnonzero(wanted.any(axis=0))]


def _repeated(
    block: EdgeBlock, found: np.ndarray, target: np.ndarray, copies: np.ndarray
) -> EdgeBlock:
    """The block into copies of its targets: group g for position p is group g * taps + p."""
    groups = np.flatnonzero((found >= 0).all(axis=1))
    taps = copies.shape[1]
    dst = copies[found[groups]]  # [g, o, taps]
    dst = dst.transpose(0, 2, 1).reshape(len(groups) * taps, len(target))
    slots = block.slots.along(0, groups).along(1, target)
    g, o, i, k = slots.shape
    slots = slots.reshape((g, 1, o, i, k)).expand((g, taps, o, i, k)).reshape((g * taps, o, i, k))
    return replace(block, src=np.repeat(block.src[groups], taps, axis=0), dst=dst, slots=slots)


def drop_unread(graph: Graph, candidates: set[int]) -> Graph:
    """Without those of the candidate nodes that nothing reads, and their incoming edges."""
    unread = np.zeros(graph.num_nodes, dtype=bool)
    unread[list(candidates)] = True
    unread[graph.nodes.role == NODE_ROLES.index("output")] = False
    for block in graph.blocks:
        unread[block.src.reshape(-1)] = False
    if not unread.any():
        return graph
    number = np.cumsum(~unread) - 1
    blocks: list[EdgeBlock] = []
    for block in graph.blocks:
        kept = ~unread[block.dst]
        for target in _columns(kept):
            picked = block.pick(np.flatnonzero(kept[:, target].all(axis=1)))
            picked = replace(picked, dst=picked.dst[:, target], slots=picked.slots.along(1, target))
            blocks.append(picked.renumbered(number))
    nodes = graph.nodes.take(np.flatnonzero(~unread))
    return replace(graph, nodes=nodes, blocks=tuple(blocks))
