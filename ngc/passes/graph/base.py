"""Graph passes: Graph -> Graph, and the one tool they share, merging nodes into one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from ngc.ir.graph import NODE_KINDS, NODE_ROLES, Graph, Nodes, category
from ngc.ir.slots import ONE


@dataclass(frozen=True)
class GraphPass(ABC):
    """One job on the graph; the docstring says before -> after."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, graph: Graph) -> Graph: ...


def uses(graph: Graph) -> np.ndarray:
    """[nodes]: how many operations read each node, being an output of the network among them."""
    counts = np.zeros(graph.num_nodes, dtype=np.int64)
    for block in graph.blocks:
        np.add.at(counts, block.src.reshape(-1), 1)
    counts[graph.nodes.role == NODE_ROLES.index("output")] += 1
    return counts


@dataclass
class Merger:
    """Merges nodes of a graph along unary edges, in program order.

    Passes call ``into(src, dst)`` for pairs they accept after ``rep`` has been applied, change
    ``nodes`` rows of the source, and drop the edge that joined them; ``result`` renumbers.
    """

    graph: Graph
    rep: np.ndarray = field(init=False)
    uses: np.ndarray = field(init=False)
    nodes: Nodes = field(init=False)
    merged: bool = False

    def __post_init__(self) -> None:
        self.rep = np.arange(self.graph.num_nodes)
        self.uses = uses(self.graph)
        table = self.graph.nodes
        self.nodes = table.take(np.arange(len(table)))  # a copy to write in

    def kind_is(self, nodes: np.ndarray, *kinds: str) -> np.ndarray:
        wanted = [category(NODE_KINDS, kind) for kind in kinds]
        return np.isin(self.nodes.kind[nodes], wanted)

    def plain(self, nodes: np.ndarray) -> np.ndarray:
        """Nodes without activation and pooling: more can still be added to their sum."""
        return (self.nodes.activation[nodes] == 0) & (self.nodes.pool[nodes] == 0)

    def into(self, src: np.ndarray, dst: np.ndarray) -> None:
        """Nodes dst become one with nodes src."""
        if len(src) == 0:
            return
        self.merged = True
        self.rep[dst] = src
        self.uses[src] = self.uses[dst]
        table = self.nodes
        table.role[src] = np.maximum(table.role[src], table.role[dst])
        table.neuron[src] = table.neuron[dst]
        table.activation[src] = np.maximum(table.activation[src], table.activation[dst])
        table.pool[src] = np.maximum(table.pool[src], table.pool[dst])
        own, new = table.scalars[src], table.scalars[dst]
        table.scalars[src] = np.where(self.unset(new), own, new)

    @staticmethod
    def unset(scalars: np.ndarray) -> np.ndarray:
        from ngc.ir.graph import NO_SCALAR

        return scalars == np.array(NO_SCALAR)

    def disjoint(self, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        """Pairs of nodes that do not both have the same scalar."""
        both = ~self.unset(self.nodes.scalars[src]) & ~self.unset(self.nodes.scalars[dst])
        return ~both.any(axis=1)

    def result(self, blocks: list) -> Graph:
        """The graph of the remaining blocks, with merged nodes renumbered."""
        if not self.merged:
            return self.graph
        rep = self.rep
        while (rep != rep[rep]).any():
            rep = rep[rep]
        kept = np.flatnonzero(rep == np.arange(len(rep)))
        number = np.full(len(rep), -1)
        number[kept] = np.arange(len(kept))
        number = number[rep]
        moved = tuple(
            replace(block, src=number[block.src], dst=number[block.dst])
            for block in blocks
            if block.num_edges
        )
        node_of = self.graph.node_of
        node_of = np.where(node_of >= 0, number[node_of], -1)
        return replace(self.graph, nodes=self.nodes.take(kept), blocks=moved, node_of=node_of)


def is_unary(block) -> bool:  # noqa: ANN001
    """One edge of weight one into each target."""
    return (
        block.src.shape[1] == block.dst.shape[1] == 1
        and block.taps == 1
        and block.slots.entries is None
        and block.slots.offset == ONE
        and not any(block.slots.strides)
    )
