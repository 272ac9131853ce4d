"""Edges as dense blocks: messages, reductions, updates broadcast over [graphs, g, out, in, d].

What a layer computes is also bounded by what is read later: where only output neurons are read,
blocks that cannot reach them in the remaining layers are left out (``live_blocks``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ngc.backends.graphs import Block, Ends, GraphBatch, Part, Structure
from ngc.models.chunks import over_graphs
from ngc.models.topology import EPSILON, EdgeMlp, Reduced, Topology, fourier


@dataclass(frozen=True)
class Flow:
    """A block in one direction: messages from ``source`` to ``target``, reduced over ``axis`` of
    [graphs, g, out, in, d]."""

    number: int
    block: Block
    reverse: bool

    @property
    def target(self) -> Ends:
        return self.block.src if self.reverse else self.block.dst

    @property
    def source(self) -> Ends:
        return self.block.dst if self.reverse else self.block.src

    @property
    def axis(self) -> int:
        return 2 if self.reverse else 3

    @property
    def num_edges(self) -> int:
        return self.block.stop - self.block.start

    def at_target(self, rows: Tensor) -> Tensor:
        """rows [graphs, n, d] at the target nodes, to broadcast over the edges."""
        return self.target.read(rows).unsqueeze(self.axis)

    def at_source(self, rows: Tensor) -> Tensor:
        """rows [graphs, n, d] at the source nodes, to broadcast over the edges."""
        return self.source.read(rows).unsqueeze(3 if self.reverse else 2)


Features = list[list[Tensor | None]]  # for each part, for each flow; None where nothing reads it


class BlockEdges(Topology):
    """The blocks of a batch. ``layers`` and ``outputs_only`` say which of them are ever read."""

    def __init__(self, batch: GraphBatch, layers: int, outputs_only: bool) -> None:
        self.batch = batch
        self.flows = [flows_of(part.structure) for part in batch.parts]
        self.live = [live_flows(part.structure, layers, outputs_only) for part in batch.parts]

    def encode(self, frequencies: Tensor | None, weight: Tensor, bias: Tensor) -> Features:
        return [
            self._encoded(part, flows, live[0], frequencies, weight, bias)
            for part, flows, live in zip(self.batch.parts, self.flows, self.live)
        ]

    def reduce(
        self,
        layer: int,
        edges: Features,
        target: Tensor,
        source: Tensor,
        film: tuple[Tensor, Tensor],
    ) -> Reduced:
        found: list[tuple[Tensor, ...]] = []
        nodes = zip(self.batch.split(target), self.batch.split(source))
        for k, (part, rows) in enumerate(zip(self.batch.parts, nodes)):
            flows = [self.flows[k][n] for n in self.live[k][layer]]
            features = [edges[k][flow.number] for flow in flows]
            reducer = _Reducer(part.structure, flows)
            largest = max((flow.num_edges for flow in flows), default=0) * 2 * target.shape[-1]
            found.append(over_graphs(reducer, [*rows, *features], film, largest))  # type: ignore[list-item]
        return Reduced(*(torch.cat([r.flatten(0, 1) for r in rows]) for rows in zip(*found)))

    def update(
        self, layer: int, edges: Features, source: Tensor, target: Tensor, mlp: EdgeMlp
    ) -> Features:
        shared = (mlp.weight, mlp.weight_out, mlp.bias_out)
        result: Features = []
        nodes = zip(self.batch.split(source), self.batch.split(target))
        for k, rows in enumerate(nodes):
            updated: list[Tensor | None] = [None] * len(self.flows[k])
            for number in self.live[k][layer + 1]:
                flow, feature = self.flows[k][number], edges[k][number]
                assert feature is not None
                entries = flow.num_edges * len(mlp.weight)
                (updated[number],) = over_graphs(_Updater(flow), [*rows, feature], shared, entries)
            result.append(updated)
        return result

    def read_edges(self, edges: Features) -> list[Tensor]:
        result = []
        for flows, features in zip(self.flows, edges):
            pieces = [f.flatten(1, 3) for flow, f in zip(flows, features)
                      if f is not None and not flow.reverse]  # fmt: skip
            result.append(torch.cat(pieces, dim=1))
        return result

    def _encoded(
        self,
        part: Part,
        flows: list[Flow],
        live: list[int],
        frequencies: Tensor | None,
        weight: Tensor,
        bias: Tensor,
    ) -> list[Tensor | None]:
        width = part.structure.width
        encoded: list[Tensor | None] = [None] * len(flows)
        for number in live:
            flow = flows[number]
            matrix = _for_direction(frequencies, flow, part.structure.reverse, width)
            linear = weight
            if matrix is None:  # the encoder itself reads the directions
                linear = _for_direction(weight.T, flow, part.structure.reverse, width).T  # type: ignore[union-attr]
            shared = [linear, bias] if matrix is None else [linear, bias, matrix]
            entries = flow.num_edges * (len(bias) if matrix is None else weight.shape[1])
            (encoded[number],) = over_graphs(_encode, [part.values(flow.block)], shared, entries)
        return encoded


def _encode(batched: list[Tensor], shared: list[Tensor]) -> tuple[Tensor, ...]:
    (values,), (weight, bias, *matrix) = batched, shared
    features = fourier(values, matrix[0]) if matrix else values
    return (F.linear(features, weight, bias),)


def _for_direction(rows: Tensor | None, flow: Flow, reverse: str, width: int) -> Tensor | None:
    """What multiplies a kernel, of rows [directions * width, f] that multiply what an edge carries:
    (own kernel, that of the opposite edge, their sum)."""
    if rows is None or reverse != "features":
        return rows
    own, opposite, both = rows.split(width)
    return (opposite if flow.reverse else own) + both


class _Reducer:
    """All messages into the nodes of some graphs, reduced."""

    def __init__(self, structure: Structure, flows: list[Flow]) -> None:
        self.structure, self.flows = structure, flows
        numbers = tuple(flow.number for flow in flows)
        self.join = structure.keep(("join", numbers), lambda: _Join.of(structure, flows))

    def __call__(self, batched: list[Tensor], shared: list[Tensor]) -> tuple[Tensor, ...]:
        target, source, *features = batched
        weight, bias = shared
        if not self.flows:
            return (torch.zeros_like(target),) * 4
        messages = []
        for flow, feature in zip(self.flows, features):
            scale, shift = F.linear(feature, weight, bias).chunk(2, dim=-1)
            messages.append(scale * (flow.at_target(target) + flow.at_source(source)) + shift)
        rows = list(zip(self.flows, messages))
        mean = self.join.sum([m.sum(f.axis) for f, m in rows]) * self.join.share
        low = self.join.least([m.amin(f.axis) for f, m in rows])
        high = -self.join.least([-m.amax(f.axis) for f, m in rows])
        squares = [(m - f.at_target(mean)).square().sum(f.axis) for f, m in rows]
        variance = self.join.sum(squares) * self.join.share
        return mean, low, high, (variance + EPSILON).sqrt()


@dataclass(frozen=True, eq=False)
class _Join:
    """Reductions of several flows [graphs, g, k, d] joined node by node.

    ``index`` [n, most]: the rows, of all flows one after another, that belong to each node; the row
    after the last one is neutral. ``share`` [n, 1]: one over the degree.
    """

    index: Tensor
    share: Tensor

    @classmethod
    def of(cls, structure: Structure, flows: list[Flow]) -> _Join:
        device = structure.rank.device
        ends = torch.cat([torch.zeros(0, dtype=torch.int64, device=device),
                          *(flow.target.nodes.reshape(-1) for flow in flows)])  # fmt: skip
        order = torch.argsort(ends, stable=True)
        counts = torch.bincount(ends, minlength=structure.num_nodes)
        place = torch.arange(len(ends), device=device) - (counts.cumsum(0) - counts)[ends[order]]
        most = max(int(counts.max()), 1) if len(counts) else 1
        index = torch.full((structure.num_nodes, most), len(ends), device=device)
        index[ends[order], place] = order
        degree = torch.zeros(structure.num_nodes, device=device)
        for flow in flows:
            edges = flow.block.grid[2 if not flow.reverse else 1]
            ones = torch.full((flow.target.nodes.numel(),), float(edges), device=device)
            degree.index_add_(0, flow.target.nodes.reshape(-1), ones)
        return cls(index, (1 / degree.clamp(min=1))[:, None])

    def sum(self, rows: list[Tensor]) -> Tensor:
        return self._picked(rows, 0.0).sum(2)

    def least(self, rows: list[Tensor]) -> Tensor:
        found = self._picked(rows, torch.inf).amin(2)
        return found.masked_fill(found == torch.inf, 0.0)  # nodes without an incoming edge

    def _picked(self, rows: list[Tensor], neutral: float) -> Tensor:
        flat = torch.cat([row.flatten(1, 2) for row in rows], dim=1)
        flat = F.pad(flat, (0, 0, 0, 1), value=neutral)
        return flat.index_select(1, self.index.reshape(-1)).unflatten(1, tuple(self.index.shape))


class _Updater:
    """The edge update of one flow."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def __call__(self, batched: list[Tensor], shared: list[Tensor]) -> tuple[Tensor, ...]:
        source, target, feature = batched
        weight, weight_out, bias_out = shared
        inner = F.linear(feature, weight)
        inner = inner + self.flow.at_source(source) + self.flow.at_target(target)
        return (F.linear(F.silu(inner), weight_out, bias_out),)


def flows_of(structure: Structure) -> list[Flow]:
    """Every block forwards; then, where the graphs have reversed edges, every block backwards."""
    directions = (False,) if structure.reverse == "none" else (False, True)
    pairs = [(block, back) for back in directions for block in structure.blocks]
    return [Flow(number, *pair) for number, pair in enumerate(pairs)]


def live_flows(structure: Structure, layers: int, outputs_only: bool) -> list[list[int]]:
    """For each layer the flows whose messages it computes: all of them, or those that reach an
    output neuron by the last layer. An entry more for what is read after the last layer."""
    key = ("live", layers, outputs_only)
    return structure.keep(key, lambda: _live_flows(structure, layers, outputs_only))  # type: ignore[no-any-return]


def _live_flows(structure: Structure, layers: int, outputs_only: bool) -> list[list[int]]:
    flows = flows_of(structure)
    everything = [flow.number for flow in flows]
    if not outputs_only:
        return [everything] * (layers + 1)
    needed = torch.zeros(structure.num_nodes, dtype=torch.bool)
    needed[structure.outputs.cpu()] = True
    live: list[list[int]] = [[]]
    for _ in range(layers):
        chosen = [flow for flow in flows if needed[flow.target.nodes.cpu()].any()]
        for flow in chosen:
            needed[flow.source.nodes.cpu().reshape(-1)] = True
        live.append([flow.number for flow in chosen])
    return live[::-1]
