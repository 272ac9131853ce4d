"""Attention with one node for each head and inner dimension (paper, App. C.4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ngc.ir.graph import (
    NO_SCALAR,
    NODE_KINDS,
    NODE_ROLES,
    SCALARS,
    TRIPLE,
    EdgeBlock,
    FusedHeads,
    Graph,
)
from ngc.ir.program import Program
from ngc.ir.slots import ONE, ZERO, Slots
from ngc.passes.graph.attention_heads import (
    Attention,
    Finder,
    Heads,
    NotFused,
    heads_of,
)
from ngc.passes.graph.base import GraphPass


@dataclass(frozen=True)
class FuseAttention(GraphPass):
    """queries, keys, values, scores and results -> the results alone, with edges that carry
    (W_Q, W_K, W_V) and biases likewise.

    A query, key or value that is more than a linear map with a bias (rotated, normalised), or that
    something else reads, keeps its neuron, with an edge of (1, 0, 0), (0, 1, 0) or (0, 0, 1). What
    acts on the scores (a mask, relative positions, a sink) acts on all nodes of the head. Functions
    of scores without parameters (a scale, a cap) are not on the graph.
    """

    name: ClassVar[str] = "fuse-attention"
    program: Program
    max_taps: int = 2**28

    def __call__(self, graph: Graph) -> Graph:
        unfused = []
        finder = Finder(self.program)
        for result in finder.contracted_softmaxes():
            if not any(block.op == result for block in graph.blocks):
                continue  # a later step of a loop
            try:
                found = finder.attention_at(result)
                graph = _Fusion(graph, found, heads_of(graph, found), self.max_taps).run()
            except NotFused as reason:
                op = self.program.ops[result]
                unfused.append(f"{op.origin or op.out.name}: {reason}")
        return replace(graph, unfused=tuple(unfused)) if unfused else graph


@dataclass(frozen=True)
class _Source:
    """Where a node's linear map is: column ``column`` of the targets of a block."""

    block: int
    column: int


class _Fusion:
    def __init__(self, graph: Graph, found: Attention, heads: Heads, max_taps: int) -> None:
        self.graph, self.found, self.heads, self.max_taps = graph, found, heads, max_taps
        self.operands = [getattr(heads, name).reshape(-1) for name in TRIPLE]
        self.results = heads.result.reshape(-1)
        own = (found.score, found.result)
        self.rest = [block for block in graph.blocks if block.op not in own]
        self.origin = next(b.name for b in graph.blocks if b.op == found.result)

    def run(self) -> Graph:
        sources = self.linear_sources()
        gone = np.zeros(self.graph.num_nodes, dtype=bool)
        gone[self.heads.between] = True
        gone[list(sources)] = True
        added = [*self.linear_edges(sources), *self.kept_operands(sources), *self.on_scores()]
        blocks = [*(b for block in self.rest for b in _without(block, gone)), *added]
        nodes = self.graph.nodes.take(np.arange(self.graph.num_nodes))
        before = self.graph.nodes
        nodes.kind[self.results] = NODE_KINDS.index("attention")
        for operand, column in zip(self.operands, TRIPLE.values()):
            merged = gone[operand]
            nodes.scalars[self.results[merged], SCALARS.index(column)] = before.scalars[
                operand[merged], 0
            ]
        number = np.cumsum(~gone) - 1
        heads = self.heads
        record = FusedHeads(
            self.found.result,
            before.neuron[heads.query],
            before.neuron[heads.key],
            before.neuron[heads.value],
            before.neuron[heads.result],
        )
        return replace(
            self.graph,
            nodes=nodes.take(np.flatnonzero(~gone)),
            blocks=tuple(block.renumbered(number) for block in blocks),
            fused=(*self.graph.fused, record),
        )

    def linear_sources(self) -> dict[int, _Source]:
        """The operands that are linear maps, with a bias at most, which nothing else reads."""
        table = self.graph.nodes
        nodes = np.unique(np.concatenate(self.operands))
        free = table.kind[nodes] == NODE_KINDS.index("sum")
        free &= (table.activation[nodes] == 0) & (table.pool[nodes] == 0)
        free &= table.role[nodes] == NODE_ROLES.index("hidden")
        free &= (table.scalars[nodes, 1:] == np.array(NO_SCALAR)[1:]).all(axis=1)
        for block in self.rest:
            free &= ~np.isin(nodes, block.src)
        found: dict[int, list[_Source]] = {node: [] for node in nodes[free].tolist()}
        other = set()
        for number, block in enumerate(self.rest):
            dense = block.kind == "linear" and block.taps == 1 and block.dst.shape[0] == 1
            for column, node in enumerate(block.dst.reshape(-1).tolist()):
                if node in found:
                    found[node].append(_Source(number, column))
                    if not dense:
                        other.add(node)
        return {n: each[0] for n, each in found.items() if len(each) == 1 and n not in other}

    def linear_edges(self, sources: dict[int, _Source]) -> Iterator[EdgeBlock]:
        """Dense blocks of the linear maps of queries, keys and values of the same neurons."""
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for k, nodes in enumerate(zip(*(operand.tolist() for operand in self.operands))):
            alike[tuple(sources[n].block if n in sources else -1 for n in nodes)].append(k)
        for blocks, places in alike.items():
            together: dict[bytes, list[int]] = defaultdict(list)
            for channel, number in enumerate(blocks):
                if number >= 0:
                    together[np.sort(self.rest[number].src[0]).tobytes()].append(channel)
            for channels in together.values():
                yield self.one_block(sources, places, {c: blocks[c] for c in channels})

    def one_block(
        self, sources: dict[int, _Source], places: list[int], blocks: dict[int, int]
    ) -> EdgeBlock:
        """Edges into the results at ``places``; ``blocks``: that of each channel."""
        first = np.sort(self.rest[next(iter(blocks.values()))].src[0])
        slots = np.full((1, len(places), len(first), len(TRIPLE)), ZERO)
        for channel, number in blocks.items():
            block = self.rest[number]
            columns = np.array([sources[n].column for n in self.operands[channel][places].tolist()])
            order = np.argsort(block.src[0], kind="stable")
            slots[0, :, :, channel] = block.slots.along(1, columns).numpy()[0, :, order, 0].T
        return self.block(first[None], self.results[places][None], Slots.of(slots))

    def kept_operands(self, sources: dict[int, _Source]) -> Iterator[EdgeBlock]:
        """Edges of weight one from queries, keys or values that keep their neuron."""
        for channel, operand in enumerate(self.operands):
            kept = np.array([node not in sources for node in operand.tolist()])
            if kept.any():
                slots = np.full((int(kept.sum()), 1, 1, len(TRIPLE)), ZERO)
                slots[..., channel] = ONE
                ends = operand[kept][:, None], self.results[kept][:, None]
                yield self.block(*ends, Slots.of(slots))

    def on_scores(self) -> Iterator[EdgeBlock]:
        """What acts on the scores of a head acts on all its nodes."""
        head = np.full(self.graph.num_nodes, -1)
        head[self.heads.between] = self.heads.head
        for block in self.rest:
            if (head[block.dst] < 0).all():
                continue
            source, target = block.edge_index()
            acts = (head[target] >= 0) & (head[source] < 0)
            if not acts.any():
                continue
            if np.isin(source[acts], self.operands).any():
                raise NotFused("a query, key or value acts on its scores")
            dst = self.heads.result[head[target[acts]]]
            if dst.size * block.taps > self.max_taps:
                raise NotFused(f"what is added to its scores makes {dst.size:,} edges")
            slots = block.slots.numpy().reshape(-1, 1, 1, block.taps)[acts]
            slots = np.broadcast_to(slots, (*dst.shape, 1, block.taps))
            ends = {"src": source[acts][:, None], "dst": dst}
            yield replace(block, op=self.found.result, **ends, slots=Slots.of(slots))

    def block(self, src: np.ndarray, dst: np.ndarray, slots: Slots) -> EdgeBlock:
        return EdgeBlock(
            self.origin, self.found.result, "attention", src, dst, slots, (len(TRIPLE),)
        )


def _without(block: EdgeBlock, gone: np.ndarray) -> Sequence[EdgeBlock]:
    """The block without edges of some nodes."""
    if not gone[block.dst].any() and not gone[block.src].any():
        return [block]
    kept = ~gone[block.dst]
    if block.dst.shape[0] == 1:
        columns = np.flatnonzero(kept[0])
        if not len(columns):
            return []
        slots = block.slots.along(1, columns)
        return [replace(block, dst=block.dst[:, columns], slots=slots)]
    groups = np.flatnonzero(kept.all(axis=1))
    assert not kept[~kept.all(axis=1)].any(), block.name
    return [block.pick(groups)] if len(groups) else []
