"""Edges as dense blocks: messages, reductions, updates broadcast over [graphs, g, out, in, d].

What a layer computes is also bounded by what is read later: where only output neurons are read,
blocks that cannot reach them in the remaining layers are left out (``live_flows``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ngc.backends.graphs import Block, Ends, GraphBatch, Part, Structure
from ngc.models.block_kernels import FilmReduce, UpdateEdges
from ngc.models.chunks import over_graphs
from ngc.models.products import single
from ngc.models.topology import EdgeMlp, Encoding, Reduced, Topology, fourier


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

    def encode(self, kernel: Encoding, linear: Encoding | None) -> Features:
        result: Features = []
        for part, flows, live in zip(self.batch.parts, self.flows, self.live):
            encoded: list[Tensor | None] = [None] * len(flows)
            for number in live[0]:
                separate = linear is not None and flows[number].block.separate
                encoding = linear if separate else kernel
                encoded[number] = _encoded(part, flows[number], encoding)  # type: ignore[arg-type]
            result.append(encoded)
        return result

    def reduce(
        self,
        layer: int,
        edges: Features,
        target: Tensor,
        source: Tensor,
        film: tuple[Tensor, Tensor],
    ) -> Reduced:
        found: list[tuple[Tensor, ...]] = []
        nodes = zip(self.batch.split(single(target)), self.batch.split(single(source)))
        for k, (part, rows) in enumerate(zip(self.batch.parts, nodes)):
            flows = [self.flows[k][n] for n in self.live[k][layer]]
            if not flows:
                found.append((torch.zeros_like(rows[0]),) * 4)
                continue
            features = [edges[k][flow.number] for flow in flows]
            join = Join.kept(part.structure, flows)
            found.append(FilmReduce.apply(join, flows, *rows, *film, *features))  # type: ignore[arg-type]
        return Reduced(*(torch.cat([r.flatten(0, 1) for r in rows]) for rows in zip(*found)))

    def update(
        self, layer: int, edges: Features, source: Tensor, target: Tensor, mlp: EdgeMlp
    ) -> Features:
        shared = (mlp.weight, mlp.weight_out, mlp.bias_out)
        result: Features = []
        nodes = zip(self.batch.split(single(source)), self.batch.split(single(target)))
        for k, (part, rows) in enumerate(zip(self.batch.parts, nodes)):
            updated: list[Tensor | None] = [None] * len(self.flows[k])
            for number in self.live[k][layer + 1]:
                flow, feature = self.flows[k][number], edges[k][number]
                join = Join.kept(part.structure, [flow])
                updated[number] = UpdateEdges.apply(join, flow, *rows, *shared, feature)  # type: ignore[arg-type]
            result.append(updated)
        return result

    def read_edges(self, edges: Features) -> list[Tensor]:
        result = []
        for flows, features in zip(self.flows, edges):
            pieces = [f.flatten(1, 3) for flow, f in zip(flows, features)
                      if f is not None and not flow.reverse]  # fmt: skip
            result.append(torch.cat(pieces, dim=1))
        return result


def _encoded(part: Part, flow: Flow, encoding: Encoding) -> Tensor:
    """Features of the edges of a flow, [graphs, g, out, in, d]."""
    values = part.values(flow.block)[..., encoding.start : encoding.stop]
    reverse, columns = part.structure.reverse, encoding.stop - encoding.start
    shared, largest = [encoding.weight, encoding.bias], len(encoding.bias)
    if encoding.frequencies is None:  # the linear map itself reads the directions
        shared[0] = _for_direction(encoding.weight.T, flow, reverse, columns).T
    else:
        shared.append(_for_direction(encoding.frequencies, flow, reverse, columns))
        largest = encoding.weight.shape[1]
    return over_graphs(_encode, [values], shared, flow.num_edges * largest)[0]


def _encode(batched: list[Tensor], shared: list[Tensor]) -> tuple[Tensor, ...]:
    (values,), (weight, bias, *matrix) = batched, shared
    features = fourier(values, matrix[0]) if matrix else values
    return (F.linear(features, weight, bias),)


def _for_direction(rows: Tensor, flow: Flow, reverse: str, columns: int) -> Tensor:
    """What multiplies a kernel, of rows [directions * columns, f] that multiply what an edge
    carries: (own kernel, that of the opposite edge, their sum)."""
    if reverse != "features":
        return rows
    own, opposite, both = rows.split(columns)
    return (opposite if flow.reverse else own) + both


@dataclass(frozen=True, eq=False)
class Join:
    """Reductions of several flows, each [graphs, g, k, d], joined node by node.

    ``targets``, ``sources`` [n, most]: the rows, of all flows one after another, that belong to
    each node as a target or a source; the row after the last one is neutral. ``degree`` [n, 1]:
    number of incoming edges, at least 1.
    """

    targets: Tensor
    sources: Tensor
    degree: Tensor

    @classmethod
    def kept(cls, structure: Structure, flows: list[Flow]) -> Join:
        numbers = tuple(flow.number for flow in flows)
        return structure.keep(("join", numbers), lambda: cls.of(structure, flows))  # type: ignore[no-any-return]

    @classmethod
    def of(cls, structure: Structure, flows: list[Flow]) -> Join:
        many = structure.num_nodes
        targets = torch.cat([flow.target.nodes.reshape(-1) for flow in flows])
        sources = torch.cat([flow.source.nodes.reshape(-1) for flow in flows])
        incoming = [flow.num_edges // flow.target.nodes.numel() for flow in flows]
        sizes = torch.cat(
            [targets.new_full((flow.target.nodes.numel(),), n) for flow, n in zip(flows, incoming)]
        )
        degree = torch.zeros(many, device=targets.device).index_add_(0, targets, sizes.float())
        return cls(_rows_of(targets, many), _rows_of(sources, many), degree.clamp(min=1)[:, None])

    def sum(self, rows: list[Tensor]) -> Tensor:
        """Sums at the targets [graphs, n, d]."""
        return _picked(rows, self.targets, 0.0).sum(2)

    def sum_sources(self, rows: list[Tensor]) -> Tensor:
        """Sums at the sources."""
        return _picked(rows, self.sources, 0.0).sum(2)

    def least(self, rows: list[Tensor]) -> Tensor:
        """Minima at the targets; zero at nodes without an incoming edge."""
        found = _picked(rows, self.targets, torch.inf).amin(2)
        return found.masked_fill_(found == torch.inf, 0.0)


def _rows_of(ends: Tensor, many: int) -> Tensor:
    """[many, most]: the places in ``ends`` that hold each node, filled up with len(ends)."""
    order = torch.argsort(ends, stable=True)
    counts = torch.bincount(ends, minlength=many)
    place = torch.arange(len(ends), device=ends.device) - (counts.cumsum(0) - counts)[ends[order]]
    index = ends.new_full((many, max(int(counts.max()), 1)), len(ends))
    index[ends[order], place] = order
    return index


def _picked(rows: list[Tensor], index: Tensor, neutral: float) -> Tensor:
    """Rows [graphs, g, k, d] of all flows at index [n, most], [graphs, n, most, d]."""
    flat = torch.cat([row.flatten(1, 2) for row in rows], dim=1)
    flat = F.pad(flat, (0, 0, 0, 1), value=neutral)
    return flat.index_select(1, index.reshape(-1)).unflatten(1, tuple(index.shape))


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
