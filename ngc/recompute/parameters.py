"""Parameters that an operation applies entry by entry, as the graph has them: on nodes (bias, mean,
variance, slope), on the edges from position nodes, or on diagonal edges (scales)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ngc.ir import program as ir
from ngc.ir.graph import NO_SCALAR, SCALARS, EdgeBlock
from ngc.ir.index import IndexArray
from ngc.ir.slots import ONE, ZERO, Slots
from ngc.recompute.chains import Chains, Mismatch

ON_EDGES = ("scale", "divide", "reciprocal", "norm")


def applied(op: ir.Op) -> Iterator[tuple[str, str, Slots]]:
    """(role, column of the node scalars or "" where edges carry it, slots) of each parameter."""
    match op:
        case ir.Scale():
            yield "scale", "", op.factor
        case ir.Shift(fn="sub"):
            yield "sub_bias", "mean", op.term
        case ir.Shift():
            yield "bias", "bias", op.term
        case ir.PRelu():
            yield "slope", "slope", op.slope
        case ir.Parameter():
            yield "bias", "bias", op.data
        case ir.BatchNorm():
            rest = (1,) * (len(op.out.shape) - 2)
            yield "scale", "", op.scale.reshape((*op.scale.shape, *rest))
            for role in ("bias", "mean", "var"):
                slots = op.operands[role]
                yield role, role, slots.reshape((*slots.shape, *rest))


def by_neuron(index: IndexArray, slots: Slots) -> tuple[np.ndarray, np.ndarray]:
    """(neurons [n], slots [n, k] that their elements meet at the k positions they vary by)."""
    rank = len(index.shape)
    array = slots.numpy()
    array = array.reshape((1,) * (rank - array.ndim) + array.shape)
    entries, ids = IndexArray.of(array, index.shape).ids, index.ids
    places = [a for a in range(rank) if ids.shape[a] == 1 and entries.shape[a] > 1]
    order = [a for a in range(rank) if a not in places] + places
    sizes = [max(n, m) for n, m in zip(ids.shape, entries.shape)]
    wide = np.broadcast_to(entries, sizes).transpose(order)
    taps = math.prod(sizes[a] for a in places)
    return ids.reshape(-1), wide.reshape(ids.size, taps)


class Parameters:
    """Compares the parameters of operations with those of the graph, slot by slot."""

    def __init__(self, chains: Chains, norms: Sequence[EdgeBlock]) -> None:
        """``norms``: the edges of normalisations."""
        self.chains, self.norms = chains, norms
        self.scalars = chains.graph.nodes.scalars
        self.seen = np.zeros(self.scalars.shape, dtype=bool)
        self.scaled = np.zeros(len(self.scalars), dtype=bool)
        births = chains.wiring.births
        self.starts = np.array([birth.start for birth in births])
        self.is_position = np.array([birth.role == "position" for birth in births])

    def check(self, number: int, op: ir.Op, blocks: Sequence[EdgeBlock]) -> None:
        """``blocks`` are those of the operation."""
        for role, column, slots in applied(op):
            if slots.size == 0:
                continue
            neurons, expected = by_neuron(self.chains.wiring.index[op.out.name], slots)
            rows, nodes = self.chains.nodes_of(neurons)
            taps = expected.shape[1]
            if not column:
                own = [b for b in blocks if b.kind in ON_EDGES]
                if not own:
                    self.scaled[nodes] = True
                found = self.on_edges(nodes, taps, own or self.norms)
            elif taps == 1:
                found = self.scalars[nodes, SCALARS.index(column)][:, None]
                if isinstance(op, ir.Shift):
                    # A term of zero adds nothing: another operation's may be there.
                    found = np.where(expected[rows] == ZERO, ZERO, found)
                self.seen[nodes[found[:, 0] != ZERO], SCALARS.index(column)] = True
            else:
                own = [b for b in blocks if b.kind == f"position_{role}"]
                found = self.by_position(nodes, taps, own)
            wrong = (found != expected[rows]).any(axis=1)
            if wrong.any():
                node = int(nodes[wrong][0])
                raise Mismatch(f"the {role} of node {node} is not the one that is applied to it")

    def on_edges(self, nodes: np.ndarray, taps: int, blocks: Sequence[EdgeBlock]) -> np.ndarray:
        place = self.places(nodes)
        found = np.full((len(nodes), taps), -1)
        for block in blocks:
            kept = place[block.dst[:, 0]] >= 0
            if kept.any() and block.taps == taps:
                rows = place[block.dst[kept, 0]]
                found[rows] = block.slots.numpy().reshape(-1, taps)[kept]
        return found[place[nodes]]

    def by_position(self, nodes: np.ndarray, taps: int, blocks: Sequence[EdgeBlock]) -> np.ndarray:
        place = self.places(nodes)
        found = np.full((len(nodes), taps), -1)
        for block in blocks:
            neuron = self.chains.held_by(block.src)  # [g, i]
            births = np.searchsorted(self.starts, neuron, "right") - 1
            if not self.is_position[births].all():
                raise Mismatch(
                    f"node {int(block.src[~self.is_position[births]][0])} is no position"
                )
            tap = neuron - self.starts[births]
            slots = block.slots.numpy()[..., 0]  # [g, o, i]
            rows = place[block.dst][:, :, None]
            kept = np.broadcast_to((rows >= 0) & (tap[:, None, :] < taps), slots.shape)
            found[
                np.broadcast_to(rows, slots.shape)[kept],
                np.broadcast_to(tap[:, None, :], slots.shape)[kept],
            ] = slots[kept]
        return found[place[nodes]]

    def places(self, nodes: np.ndarray) -> np.ndarray:
        """[nodes of the graph]: place of each among ``nodes`` (of several, the last), else -1."""
        place = np.full(self.chains.graph.num_nodes, -1)
        place[nodes] = np.arange(len(nodes))
        return place

    def check_rest(self) -> None:
        """No node has a parameter that no operation applies."""
        stray = ((self.scalars != np.array(NO_SCALAR)) & ~self.seen).any(axis=1)
        for block in self.norms:
            weighted = (block.slots.numpy() != ONE).reshape(block.num_edges, -1).any(axis=1)
            target = block.edge_index()[1]
            stray[target[weighted & ~self.scaled[target]]] = True
        if stray.any():
            node = int(np.flatnonzero(stray)[0])
            raise Mismatch(f"node {node} has a parameter that is not applied to it")
