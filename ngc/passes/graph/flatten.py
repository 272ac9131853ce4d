"""The three ways to flatten a map of positions into a Linear (paper, appendix C.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ngc.errors import BudgetError
from ngc.ir.graph import NO_SCALAR, NODE_KINDS, EdgeBlock, Graph, Nodes, category
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
        self.copies: dict[tuple[int, int], int] = {}  # (node, positions) -> first of its copies
        self.new_blocks: list[EdgeBlock] = []
        self.copied: set[int] = set()

    def run(self) -> Graph:
        blocks = [self.flattened(b) if b.kind == FLATTENED else b for b in self.graph.blocks]
        graph = replace(self.graph, nodes=self.nodes, blocks=(*blocks, *self.new_blocks))
        return drop_unread(graph, self.copied)

    def flattened(self, block: EdgeBlock) -> EdgeBlock:
        taps = block.taps
        g, o, i = block.dst.shape[0], block.dst.shape[1], block.src.shape[1]
        wanted = np.unique(block.src)
        missing = np.array([n for n in wanted.tolist() if (n, taps) not in self.copies], dtype=int)
        if len(missing):
            inputs = self.graph.nodes.kind[missing] == category(NODE_KINDS, "input")
            # The inputs of the network stay as many as they are.
            virtual = np.ones_like(inputs) if self.strategy == "virtual" else inputs
            self.add(missing[virtual], block, self.link)
            self.add(missing[~virtual], block, self.copy_edges)
        first = np.vectorize(lambda n: self.copies[n, taps], otypes=[np.int64])(block.src)
        src = (first[:, :, None] + np.arange(taps)).reshape(g, i * taps)
        slots = block.slots.reshape((g, o, i * taps, 1))
        return replace(block, kind="linear", src=src, slots=slots, kernel=())

    def add(
        self, nodes: np.ndarray, block: EdgeBlock, connect: Callable[[np.ndarray, np.ndarray], None]
    ) -> None:
        """Copies of nodes, ``taps`` of each, and their incoming edges."""
        if len(nodes) == 0:
            return
        taps, start = block.taps, len(self.nodes)
        rows = self.nodes.take(np.repeat(nodes, taps))
        width = block.kernel[-1] if block.kernel else 1
        place = np.tile(np.arange(taps), len(nodes))
        rows.place[:] = np.stack([place // width, place % width], axis=1)
        if connect == self.link:
            rows = _bare(rows)
        self.nodes = self.nodes.joined(rows)
        for k, node in enumerate(nodes.tolist()):
            self.copies[node, taps] = start + k * taps
        connect(nodes, start + np.arange(len(nodes) * taps).reshape(len(nodes), taps))

    def link(self, nodes: np.ndarray, copies: np.ndarray) -> None:
        from ngc.ir.slots import ONE, Slots

        slots = Slots.constant((len(nodes), copies.shape[1], 1, 1), ONE)
        op = int(self.nodes.op[nodes].max())
        self.new_blocks.append(
            EdgeBlock("flatten", op, "flatten", nodes[:, None], copies, slots, ())
        )

    def copy_edges(self, nodes: np.ndarray, copies: np.ndarray) -> None:
        self.copied.update(nodes.tolist())
        place = np.full(self.graph.num_nodes, -1)
        place[nodes] = np.arange(len(nodes))
        total = self.graph.num_taps
        for block in self.graph.blocks:
            found = place[block.dst]  # [g, o]
            if (found < 0).all() or block.kind == FLATTENED:
                continue
            total += int((found >= 0).sum()) * copies.shape[1] * block.src.shape[1] * block.taps
            if total > self.max_taps:
                raise BudgetError(
                    f"flatten=repeat copies edges to {total:,} weights (limit {self.max_taps:,})",
                    where=block.name,
                    hint="--flatten kernel (no new neurons) or a larger --max-elements",
                )
            for target in ([np.arange(found.shape[1])] if (found >= 0).all() else
                           [np.array([o]) for o in range(found.shape[1]) if (found[:, o] >= 0).any()]):
                self.new_blocks.append(_repeated(block, found[:, target], target, copies))


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


def _bare(rows: Nodes) -> Nodes:
    """Rows of neurons that only pass a value on."""
    rows.kind[:] = category(NODE_KINDS, "flatten")
    rows.activation[:] = 0
    rows.pool[:] = 0
    rows.role[:] = 1
    rows.scalars[:] = NO_SCALAR
    return rows


def drop_unread(graph: Graph, candidates: set[int]) -> Graph:
    """Without those of the candidate nodes that nothing reads, and their incoming edges."""
    read = np.zeros(graph.num_nodes, dtype=bool)
    for block in graph.blocks:
        read[block.src.reshape(-1)] = True
    read |= graph.nodes.role == 2
    unread = np.zeros(graph.num_nodes, dtype=bool)
    unread[list(candidates)] = True
    unread &= ~read
    if not unread.any():
        return graph
    blocks: list[EdgeBlock] = []
    for block in graph.blocks:
        gone = unread[block.dst]
        if not gone.any():
            blocks.append(block)
        elif gone.all(axis=1).any() and (gone.all(axis=1) | ~gone.any(axis=1)).all():
            blocks.append(block.pick(np.flatnonzero(~gone.all(axis=1))))
        else:
            for o in range(gone.shape[1]):
                rest = np.flatnonzero(~gone[:, o])
                picked = block.pick(rest)
                blocks.append(
                    replace(picked, dst=picked.dst[:, [o]], slots=picked.slots.along(1, np.array([o])))
                )
    number = np.where(unread, -1, np.cumsum(~unread) - 1)
    moved = tuple(
        replace(b, src=number[b.src], dst=number[b.dst]) for b in blocks if b.num_edges
    )
    node_of = np.where(graph.node_of >= 0, number[graph.node_of], -1)
    return replace(
        graph, nodes=graph.nodes.take(np.flatnonzero(~unread)), blocks=moved, node_of=node_of
    )
