"""Fused attention, held against the explicit graph of the same wiring.

The explicit graph is held against the program; here each node, edge and parameter of the fused one
must be one of it, and each of it must be on the fused one, or lie between the queries and keys of a
head and its results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from ngc.ir.graph import NO_SCALAR, NODE_KINDS, SCALARS, TRIPLE, EdgeBlock, Graph, category
from ngc.ir.slots import ONE, ZERO
from ngc.passes.wire import Wiring
from ngc.passes.wire.base import Wires
from ngc.recompute.chains import Mismatch

KEPT = ("role", "activation", "pool", "op")


def check_reversed(graph: Graph) -> None:
    """Reversed blocks are the blocks themselves."""
    back = [b for b in graph.blocks if b.reverse]
    there = [b for b in graph.blocks if not b.reverse]
    if not back:
        return
    same = len(back) == len(there) and all(
        np.array_equal(a.src, b.src) and np.array_equal(a.dst, b.dst) and a.slots == b.slots
        for a, b in zip(there, back)
    )
    if not same:
        raise Mismatch("the reversed edges are not the edges reversed")


def check_fused(wiring: Wiring, explicit: Graph, fused: Graph) -> None:
    """Raise Mismatch where they differ in more than that heads are fused."""
    _Check(wiring, explicit, fused).run()


class _Check:
    """Nodes are numbered as in the explicit graph."""

    def __init__(self, wiring: Wiring, explicit: Graph, fused: Graph) -> None:
        self.wiring, self.explicit, self.fused = wiring, explicit, fused
        self.count = explicit.num_nodes
        place = {key: node for node, key in enumerate(_keys(explicit))}
        try:
            self.number = np.array([place[key] for key in _keys(fused)], dtype=np.int64)
        except KeyError:
            raise Mismatch("a node stands for no node of the explicit graph") from None
        self.present = np.zeros(self.count, dtype=bool)
        self.present[self.number] = True
        if self.present.sum() != len(self.number):
            raise Mismatch("two nodes stand for the same")
        of_neuron = np.full(wiring.num_neurons, -1)
        flat = explicit.nodes.kind == category(NODE_KINDS, "flatten")
        of_neuron[explicit.nodes.neuron[~flat]] = np.flatnonzero(~flat)
        self.head = np.full(self.count, -1)  # of nodes between scores and results
        self.operand = {name: np.full(self.count, -1) for name in TRIPLE}  # of each result
        self.result = np.zeros(self.count, dtype=bool)
        self.result_head = np.full(self.count, -1)
        heads = 0
        for one in fused.fused:
            result = of_neuron[one.result]
            self.result[result] = True
            self.result_head[result] = heads + np.arange(len(result))[:, None]
            heads += len(result)
            for name in TRIPLE:
                self.operand[name][result] = of_neuron[getattr(one, name)]
        self.is_operand = np.zeros(self.count, dtype=bool)
        for operand in self.operand.values():
            self.is_operand[operand[self.result]] = True

    def run(self) -> None:
        self.pairs()
        self.between()
        self.operands()
        self.nodes()
        self.triples()
        self.other_edges()

    def pairs(self) -> None:
        """Queries and keys of one node meet in the product of the scores; with one inner dimension
        they do so by being of one head."""
        several = [one for one in self.fused.fused if one.query.shape[1] > 1]
        if not several:
            return
        products: dict[int, list[Wires]] = {}
        for wires in self.wiring.wires:
            if wires.kind == "product":
                products.setdefault(wires.op, []).append(wires)
        known = set()
        for both in products.values():
            if len(both) == 2 and both[0].src.shape == both[1].src.shape:
                a, b = (wires.src.reshape(-1).tolist() for wires in both)
                known |= {*zip(a, b), *zip(b, a)}
        for one in several:
            met = zip(one.query.reshape(-1).tolist(), one.key.reshape(-1).tolist())
            if not known.issuperset(met):
                raise Mismatch("a node has a query and a key that do not meet")

    def between(self) -> None:
        """Find the nodes that are gone with each head, from its results back."""
        gone = ~self.present & ~self.is_operand
        ahead = self.result_head.copy()
        grown = True
        edges = [b for b in self.explicit.blocks if not b.reverse and gone[b.src].any()]
        while grown:
            grown = False
            for block in edges:
                source, target = block.edge_index()
                kept = gone[source]
                source, target = source[kept], target[kept]
                if (ahead[target] < 0).any() and self.present[target[ahead[target] < 0]].any():
                    raise Mismatch("something reads the scores of a head that is fused")
                known = ahead[target] >= 0
                source, target = source[known], target[known]
                if (ahead[source] != ahead[target]).any():
                    grown |= bool((ahead[source] < 0).any())
                    ahead[source] = ahead[target]
                    if (ahead[source] != ahead[target]).any():
                        raise Mismatch("a node that is gone belongs to several heads")
        if (ahead[gone] < 0).any():
            raise Mismatch("a node that is gone belongs to no head")
        self.head[gone] = ahead[gone]

    def operands(self) -> None:
        """Each head reads the queries, keys and values that are stated."""
        read, valued = set(), set()
        for block in self.explicit.blocks:
            if block.reverse or block.kind != "product":
                continue
            source, target = block.edge_index()
            own = self.is_operand[source] & (self.head[target] >= 0)
            read |= set(zip(source[own].tolist(), self.head[target[own]].tolist()))
            own = self.result[target] & (self.head[source] < 0)
            valued |= set(zip(source[own].tolist(), target[own].tolist()))
        results = np.flatnonzero(self.result)
        heads = self.result_head[results].tolist()
        for name in ("query", "key"):
            if not read.issuperset(zip(self.operand[name][results].tolist(), heads)):
                raise Mismatch(f"a head reads another {name}")
        if valued != set(zip(self.operand["value"][results].tolist(), results.tolist())):
            raise Mismatch("a result reads another value")

    def nodes(self) -> None:
        """Nodes that are left are what they were; results have the biases of their operands."""
        before, now = self.explicit.nodes, self.fused.nodes
        for column in KEPT:
            if (getattr(now, column) != getattr(before, column)[self.number]).any():
                raise Mismatch(f"a node has another {column}")
        result = self.result[self.number]
        if (now.kind[~result] != before.kind[self.number[~result]]).any():
            raise Mismatch("a node has another kind")
        if (now.kind[result] != category(NODE_KINDS, "attention")).any():
            raise Mismatch("a head is no attention")
        if (before.scalars[self.number[result]] != np.array(NO_SCALAR)).any():
            raise Mismatch("a result has a parameter of its own")
        expected = before.scalars[self.number]
        for name, column in TRIPLE.items():
            operand = self.operand[name][self.number[result]]
            bias = np.where(self.present[operand], NO_SCALAR[0], before.scalars[operand, 0])
            expected[result, SCALARS.index(column)] = bias
        if (now.scalars != expected).any():
            raise Mismatch("a node has another bias")

    def triples(self) -> None:
        """(W_Q, W_K, W_V) of each edge are the weights into its query, key and value."""
        gone = self.is_operand & ~self.present
        wanted = [np.zeros((2, 0), dtype=np.int64)]
        for block in self.explicit.blocks:
            if not block.reverse and gone[block.dst].any():
                if block.taps != 1:
                    raise Mismatch("a query, key or value is more than a linear map")
                rows = _rows(block, self.count)
                wanted.append(rows[:, gone[rows[0] % self.count]])
        found, ones = [np.zeros((2, 0), dtype=np.int64)], []
        ends: dict[str, list[np.ndarray]] = {name: [] for name in TRIPLE}
        for block in self.forward():
            if block.kind != "attention":
                continue
            source, target = block.edge_index()
            slots = block.slots.numpy().reshape(-1, len(TRIPLE))
            if not self.result[target].all():
                raise Mismatch("a triple of weights ends in no head")
            if (slots == ZERO).all(axis=1).any():
                raise Mismatch("an edge has neither query, key nor value")
            for channel, name in enumerate(TRIPLE):
                used = slots[:, channel] != ZERO
                operand = self.operand[name][target[used]]
                kept, rows = self.present[operand], slots[used, channel]
                if (operand[kept] != source[used][kept]).any() or (rows[kept] != ONE).any():
                    raise Mismatch(f"a {name} that has a neuron comes from elsewhere")
                ones += [(name, r) for r in target[used][kept].tolist()]
                ends[name].append(source[used] * self.count + target[used])
                key = source[used] * self.count + operand
                found.append(np.stack([key, rows])[:, ~kept])
        for pairs in ends.values():
            if pairs and len(np.unique(np.concatenate(pairs))) < sum(map(len, pairs)):
                raise Mismatch("a weight is on several edges between the same nodes")
        one, two = (np.unique(np.concatenate(rows, axis=1), axis=1) for rows in (wanted, found))
        if not np.array_equal(one, two):
            raise Mismatch("the weights of a head are not those of its queries, keys and values")
        expected = sorted(
            (name, int(r))
            for name in TRIPLE
            for r in np.flatnonzero(self.result)
            if self.present[self.operand[name][r]]
        )
        if sorted(ones) != expected:
            raise Mismatch("a node does not read its query, key or value once")

    def other_edges(self) -> None:
        """All other edges are those of the explicit graph; what acted on the scores of a head acts
        on its nodes."""
        wanted: dict[tuple[int, int], list[np.ndarray]] = {}
        found: dict[tuple[int, int], list[np.ndarray]] = {}
        on_scores: Counter[tuple[str | int, ...]] = Counter()
        on_results: Counter[tuple[str | int, ...]] = Counter()
        members = [np.flatnonzero(self.result_head == h) for h in range(self.head.max() + 1)]
        for block in self.explicit.blocks:
            if block.reverse:
                continue
            untouched = self.present[block.dst].all() and not (self.head[block.src] >= 0).any()
            if untouched and not self.result[block.dst].any():
                wanted.setdefault((block.op, block.category), []).append(_digest(block))
                continue
            if (self.head[block.dst] >= 0).any():
                source, target = block.edge_index()
                acts = self.present[source] & ~self.is_operand[source] & (self.head[target] >= 0)
                rows = _kernels(block)[acts].tolist()
                ends = zip(source[acts].tolist(), self.head[target[acts]].tolist(), rows)
                for s, h, row in ends:
                    on_scores.update((block.kind, s, r, *row) for r in members[h].tolist())
            left = self.present[block.dst] & ~self.result[block.dst]
            if left.any():
                wanted.setdefault((block.op, block.category), []).append(_digest(block, left))
        for block in self.forward():
            if block.kind == "attention":
                continue
            if self.result[block.dst].any():
                source, target = block.edge_index()
                rows = _kernels(block).tolist()
                ends = zip(source.tolist(), target.tolist(), rows)
                on_results.update((block.kind, s, r, *row) for s, r, row in ends)
                continue
            found.setdefault((block.op, block.category), []).append(_digest(block))
        if on_scores != on_results:
            raise Mismatch("what acts on the scores of a head does not act on its nodes")
        if wanted.keys() != found.keys():
            raise Mismatch("an operation has no edges, or others")
        for key, rows in wanted.items():
            one, two = (np.sort(np.concatenate(r)) for r in (rows, found[key]))
            if not np.array_equal(one, two):
                raise Mismatch(f"edges of {self.wiring.program.ops[key[0]].out.name} differ")

    def forward(self) -> Iterator[EdgeBlock]:
        for block in self.fused.blocks:
            if not block.reverse:
                yield block.renumbered(self.number)


def _keys(graph: Graph) -> list[tuple[int, ...]]:
    """What a node stands for: a neuron, at a place or at all."""
    nodes = graph.nodes
    flat = nodes.kind == category(NODE_KINDS, "flatten")
    return list(zip(nodes.neuron.tolist(), *nodes.place.T.tolist(), flat.tolist()))


def _rows(block: EdgeBlock, count: int) -> np.ndarray:
    """[2, edges]: both ends of each edge as one number, and its slot."""
    source, target = block.edge_index()
    return np.stack([source * count + target, block.slots.numpy().reshape(-1)])


def _kernels(block: EdgeBlock) -> np.ndarray:
    """[edges, k]: the slots of each edge."""
    return block.slots.numpy().reshape(block.num_edges, block.taps)


def _digest(block: EdgeBlock, kept: np.ndarray | None = None) -> np.ndarray:
    """One number for each edge: of its ends and its kernel. ``kept`` [g, o]: only of some."""
    source, target = block.edge_index()
    slots = _kernels(block).astype(np.uint64)
    prime = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        value = source.astype(np.uint64) * prime + target.astype(np.uint64)
        for column in slots.T:
            value = (value ^ column) * prime
            value ^= value >> np.uint64(29)
    if kept is None:
        return value
    chosen = np.repeat(kept.reshape(-1), block.src.shape[1])
    return value[chosen]
