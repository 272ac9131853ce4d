"""Which node of a graph holds the value of which granular neuron.

A node is a chain of neurons, each of which is read by the next one only: a sum, its bias, its
activation. It holds the value of the last of them. The chains are found from the wires alone, not
from what the graph passes say they did.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ngc.ir.graph import NODE_KINDS, Graph, category
from ngc.passes.wire import Wiring


class Mismatch(Exception):
    """What the graph says differs from what the program does."""


def ranges(starts: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For rows k of starts[k] to starts[k] + counts[k]: (k of each entry, the entry)."""
    rows = np.repeat(np.arange(len(counts)), counts)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts - starts, counts)


@dataclass(eq=False)
class Chains:
    """``end`` [neurons]: the last neuron of the chain of each, whose value a node holds."""

    wiring: Wiring
    graph: Graph
    end: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        count = self.wiring.num_neurons
        uses, follower = np.zeros(count, dtype=np.int64), np.arange(count)
        for wires in self.wiring.wires:
            np.add.at(uses, wires.src.reshape(-1), 1)
            between_steps = wires.recurrent or wires.kind == "initial"
            if wires.src.shape[1] == wires.dst.shape[1] == 1 and not between_steps:
                follower[wires.src[:, 0]] = wires.dst[:, 0]
        held = np.zeros(count, dtype=bool)
        held[self.graph.nodes.neuron] = True
        end = np.where(held | (uses != 1), np.arange(count), follower)
        while not np.array_equal(end, end[end]):
            end = end[end]
        self.end = end
        # Neurons that only pass the value of another on, for one position, are no copies of it.
        own = self.graph.nodes.kind != category(NODE_KINDS, "flatten")
        nodes = np.flatnonzero(own)
        order = np.argsort(self.graph.nodes.neuron[nodes], kind="stable")
        self._nodes = nodes[order]
        self._held = self.graph.nodes.neuron[self._nodes]
        self._births: dict[int, np.ndarray] = {}
        for birth in self.wiring.births:
            if birth.role == "out":
                neurons = np.arange(birth.start, birth.stop)
                before = self._births.get(birth.op, neurons[:0])
                self._births[birth.op] = np.concatenate([before, neurons])

    def computed_by(self) -> np.ndarray:
        """Number of the operation that computes each neuron; -1 for tokens, positions, padding."""
        found = np.full(self.wiring.num_neurons, -1)
        for op, neurons in self._births.items():
            found[neurons] = op
        return found

    def born(self, op: int) -> np.ndarray:
        """Neurons that hold the result of an operation (none for data movement)."""
        return self._births.get(op, np.zeros(0, dtype=np.int64))

    def held_by(self, nodes: np.ndarray) -> np.ndarray:
        """The neuron whose value each node holds."""
        return self.graph.nodes.neuron[nodes]

    def nodes_of(self, neurons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(place in ``neurons``, node) for every node whose chain a neuron is in."""
        ends = self.end[neurons]
        first = np.searchsorted(self._held, ends, "left")
        last = np.searchsorted(self._held, ends, "right")
        rows, entries = ranges(first, last - first)
        return rows, self._nodes[entries]

    def computed_in(self, op: int, nodes: np.ndarray) -> np.ndarray:
        """The neuron of an operation's result in the chain of each node."""
        born = self.born(op)
        if not len(nodes):
            return nodes
        ends = self.end[born]
        order = np.argsort(ends, kind="stable")
        held = self.graph.nodes.neuron[nodes]
        found = np.searchsorted(ends[order], held).clip(max=max(len(ends) - 1, 0))
        if not len(born) or (ends[order][found] != held).any():
            wrong = ends[order][found] != held if len(born) else np.ones(held.shape, dtype=bool)
            node = int(nodes[wrong][0])
            raise Mismatch(f"an edge ends in node {node}, where this operation is not computed")
        return born[order][found]
