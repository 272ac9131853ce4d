"""Edges as dense blocks: messages, reductions, updates broadcast over [many, g, out, in, d].

Blocks of one size are worked on together, whatever graphs they belong to (``block_flows.py``); the
functions of their edges are in ``block_kernels.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ngc.backends.graphs import GraphBatch
from ngc.models.block_flows import Member, Stack, Stacks
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
        return tuple(self._encoded(stack, kernel, linear) for stack in self.stacks.stacks)

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

    def _encoded(self, stack: Stack, kernel: Encoding, linear: Encoding | None) -> Tensor:
        """Features of the edges of a stack, [many, g, out, in, d]."""
        pieces = []
        for columns, separate, members in stack.runs():
            encoding = linear if linear is not None and separate else kernel
            pieces.append(self._of_run(stack, columns, members, encoding))
        if not pieces:
            return kernel.weight.new_zeros(0, *stack.grid, len(kernel.bias))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _of_run(
        self, stack: Stack, columns: tuple[int, ...], members: list[Member], encoding: Encoding
    ) -> Tensor:
        """Of members with these columns. The others of their kernels are zeros, and features of a
        kernel without them, by what belongs to the rest, are the same."""
        parts = self.batch.parts
        values = [parts[m.part].values(m.flow.block)[..., columns_of(columns)] for m in members]
        width, rows = encoding.stop - encoding.start, [c - encoding.start for c in columns]
        reverse = parts[members[0].part].structure.reverse
        shared, largest = [encoding.weight, encoding.bias], len(encoding.bias)
        if encoding.frequencies is None:  # the linear map itself reads the directions
            own = _for_direction(encoding.weight.T, stack, reverse, width)
            shared[0] = own[columns_of(rows)].T
        else:
            own = _for_direction(encoding.frequencies, stack, reverse, width)
            shared.append(own[columns_of(rows)])
            largest = encoding.weight.shape[1]
        joined = values[0] if len(values) == 1 else torch.cat(values)
        return over_graphs(_encode, [joined], shared, stack.num_edges * largest)[0]


def columns_of(columns: tuple[int, ...] | list[int]) -> slice | list[int]:
    """A view where they are a run."""
    first, last = columns[0], columns[-1]
    return slice(first, last + 1) if last - first + 1 == len(columns) else list(columns)


def _encode(batched: list[Tensor], shared: list[Tensor]) -> tuple[Tensor, ...]:
    (values,), (weight, bias, *matrix) = batched, shared
    features = fourier(values, matrix[0]) if matrix else values
    return (F.linear(features, weight, bias),)


def _for_direction(rows: Tensor, stack: Stack, reverse: str, columns: int) -> Tensor:
    """What multiplies a kernel, of rows [directions * columns, f] that multiply what an edge
    carries: (own kernel, that of the opposite edge, their sum)."""
    if reverse != "features":
        return rows
    own, opposite, both = rows.split(columns)
    return (opposite if stack.reverse else own) + both
