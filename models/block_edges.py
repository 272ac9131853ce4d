"""Edges as dense blocks: messages, reductions, updates broadcast over [many, g, out, in, d].

Blocks of one size are worked on together, whatever graphs they belong to (``block_flows.py``); the
functions of their edges are in ``block_kernels.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ngc.backends.graphs import GraphBatch
from ngc.models.block_flows import Member, Stacks
from ngc.models.block_kernels import FilmReduce, UpdateEdges
from ngc.models.chunks import over_graphs
from ngc.models.products import single
from ngc.models.topology import EdgeMlp, Encoding, Reduced, Topology, fourier

Features = tuple[Tensor, ...]  # of each stack, those that the layer reads


class BlockEdges(Topology):
    """The blocks of a batch. ``layers`` and ``outputs_only`` say which of them are ever read."""

    def __init__(self, batch: GraphBatch, layers: int, outputs_only: bool) -> None:
        self.batch = batch
        self.stacks = Stacks.of_batch(batch, layers, outputs_only)

    def encode(self, kernel: Encoding, linear: Encoding | None) -> Features:
        """Edges whose kernels fill the same columns are encoded together."""
        runs = [(n, *run) for n, stack in enumerate(self.stacks.stacks) for run in stack.runs()]
        alike: dict[tuple[tuple[int, ...], bool, bool], list[int]] = {}
        for k, (n, columns, separate, _) in enumerate(runs):
            alike.setdefault((columns, separate, self.stacks.stacks[n].reverse), []).append(k)
        encoded: dict[int, Tensor] = {}
        for (columns, separate, reverse), chosen in alike.items():
            values = [self._values(*runs[k]) for k in chosen]
            encoding = linear if linear is not None and separate else kernel
            joined = self._encoded(torch.cat(values), columns, reverse, encoding)
            encoded |= zip(chosen, joined.split([len(of_run) for of_run in values]))
        features = []
        for n, stack in enumerate(self.stacks.stacks):
            pieces = [encoded[k] for k, run in enumerate(runs) if run[0] == n]
            pieces = pieces or [kernel.weight.new_zeros(0, len(kernel.bias))]
            joined = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
            features.append(joined.unflatten(0, (stack.counts[0], *stack.grid)))
        return tuple(features)

    def reduce(
        self,
        layer: int,
        edges: Features,
        target: Tensor,
        source: Tensor,
        film: tuple[Tensor, Tensor],
    ) -> Reduced:
        nodes = single(target), single(source)
        return Reduced(*FilmReduce.apply(self.stacks, layer, *nodes, *film, *edges))  # type: ignore[arg-type]

    def update(
        self, layer: int, edges: Features, source: Tensor, target: Tensor, mlp: EdgeMlp
    ) -> Features:
        nodes, maps = (single(source), single(target)), (mlp.weight, mlp.weight_out, mlp.bias_out)
        return UpdateEdges.apply(self.stacks, layer, *nodes, *maps, *edges)  # type: ignore[return-value]

    def read_edges(self, edges: Features) -> list[Tensor]:
        found: list[dict[int, Tensor]] = [{} for _ in self.batch.parts]
        for stack, features in zip(self.stacks.stacks, edges):
            if not stack.reverse:
                for member in stack.members:
                    rows = features[member.start : member.stop].flatten(1, 3)
                    found[member.part][member.flow.block.start] = rows
        return [torch.cat([of_part[k] for k in sorted(of_part)], dim=1) for of_part in found]

    def _values(
        self, number: int, columns: tuple[int, ...], separate: bool, members: list[Member]
    ) -> Tensor:
        """The entries that a run of a stack fills, [edges, columns]."""
        parts = self.batch.parts
        values = [parts[m.part].values(m.flow.block)[..., columns_of(columns)] for m in members]
        return torch.cat([of_part.flatten(0, 3) for of_part in values])

    def _encoded(
        self, values: Tensor, columns: tuple[int, ...], back: bool, encoding: Encoding
    ) -> Tensor:
        """Features of edges with kernels [edges, columns], zeros elsewhere: what belongs to the
        other columns does not matter."""
        width, rows = encoding.stop - encoding.start, [c - encoding.start for c in columns]
        reverse = self.batch.parts[0].structure.reverse
        shared, largest = [encoding.weight, encoding.bias], len(encoding.bias)
        if encoding.frequencies is None:  # the linear map itself reads the directions
            own = _for_direction(encoding.weight.T, back, reverse, width)
            shared[0] = own[columns_of(rows)].T
        else:
            own = _for_direction(encoding.frequencies, back, reverse, width)
            shared.append(own[columns_of(rows)])
            largest = encoding.weight.shape[1]
        return over_graphs(_encode, [values], shared, largest)[0]


def columns_of(columns: tuple[int, ...] | list[int]) -> slice | list[int]:
    """A view where they are a run."""
    first, last = columns[0], columns[-1]
    return slice(first, last + 1) if last - first + 1 == len(columns) else list(columns)


def _encode(batched: list[Tensor], shared: list[Tensor]) -> tuple[Tensor, ...]:
    (values,), (weight, bias, *matrix) = batched, shared
    features = fourier(values, matrix[0]) if matrix else values
    return (F.linear(features, weight, bias),)


def _for_direction(rows: Tensor, back: bool, reverse: str, columns: int) -> Tensor:
    """What multiplies a kernel, of rows [directions * columns, f] that multiply what an edge
    carries: (own kernel, that of the opposite edge, their sum)."""
    if reverse != "features":
        return rows
    own, opposite, both = rows.split(columns)
    return (opposite if back else own) + both
