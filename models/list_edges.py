"""Edges as lists: gather, scatter. The plain form of PyTorch Geometric, and the reference for the
block form; it takes any batch of graphs, compiled by one plan or by many."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.utils import scatter

from ngc.backends.graphs import GraphBatch, Structure
from ngc.models.topology import EPSILON, EdgeMlp, Encoding, Reduced, Topology, fourier


@dataclass(frozen=True)
class ListEdges(Topology):
    """``index`` [2, edges]: source and target rows; ``values`` [edges, directions * width]: kernels
    as ``edge_attr`` has them; ``separate`` [edges]: those of linear layers with a column of their
    own; ``forward``: for each part of the batch the places [graphs, e] of its edges without their
    reversed twins."""

    index: Tensor
    values: Tensor
    width: int
    separate: Tensor
    num_nodes: int
    forward: tuple[Tensor, ...]

    @classmethod
    def of_batch(cls, batch: GraphBatch) -> ListEdges:
        """Of a batch of parts, in the same order of nodes."""
        ends, values, separate, forward = [], [], [], []
        node = edge = 0
        for part in batch.parts:
            structure, many = part.structure, len(part)
            starts = node + torch.arange(many, device=batch.device) * structure.num_nodes
            index = with_reversed(structure)
            ends.append((index[:, None] + starts[:, None]).flatten(1))
            values.append(kernels_with_reversed(structure, part.edges).flatten(0, 1))
            separate.append(separate_edges(structure).repeat(many))
            places = torch.arange(many * index.shape[1], device=batch.device).unflatten(
                0, (many, -1)
            )
            forward.append(edge + places[:, : structure.num_edges])
            node += many * structure.num_nodes
            edge += many * index.shape[1]
        width = batch.parts[0].structure.width
        joined = (torch.cat(ends, dim=1), torch.cat(values), width, torch.cat(separate))
        return cls(*joined, node, tuple(forward))

    def encode(self, kernel: Encoding, linear: Encoding | None) -> Tensor:
        features = self._encoded(kernel)
        if linear is None:
            return features
        return torch.where(self.separate[:, None], self._encoded(linear), features)

    def _encoded(self, encoding: Encoding) -> Tensor:
        values = self.values.unflatten(1, (-1, self.width))  # [edges, directions, width]
        values = values[..., encoding.start : encoding.stop].flatten(1)
        if encoding.frequencies is not None:
            values = fourier(values, encoding.frequencies)
        return F.linear(values, encoding.weight, encoding.bias)

    def reduce(
        self,
        layer: int,
        edges: Tensor,
        target: Tensor,
        source: Tensor,
        film: tuple[Tensor, Tensor],
    ) -> Reduced:
        sources, targets = self.index
        scale, shift = F.linear(edges, *film).chunk(2, dim=-1)
        messages = scale * (target[targets] + source[sources]) + shift
        mean, low, high = (
            scatter(messages, targets, dim_size=self.num_nodes, reduce=how)
            for how in ("mean", "min", "max")
        )
        squares = (messages - mean[targets]).square()
        variance = scatter(squares, targets, dim_size=self.num_nodes, reduce="mean")
        return Reduced(mean, low, high, (variance + EPSILON).sqrt())

    def update(
        self, layer: int, edges: Tensor, source: Tensor, target: Tensor, mlp: EdgeMlp
    ) -> Tensor:
        sources, targets = self.index
        inner = F.linear(edges, mlp.weight) + source[sources] + target[targets]
        return F.linear(F.silu(inner), mlp.weight_out, mlp.bias_out)

    def read_edges(self, edges: Tensor) -> list[Tensor]:
        return [edges[places] for places in self.forward]


def with_reversed(structure: Structure) -> Tensor:
    """[2, edges]: source and target of all edges, then of their reversed twins."""
    index = structure.features["edge_index"]
    return index if structure.reverse == "none" else torch.cat([index, index.flip(0)], dim=1)


def separate_edges(structure: Structure) -> Tensor:
    """[edges]: whether the weight of an edge is in the column of linear layers."""
    mask = torch.zeros(structure.num_edges, dtype=torch.bool, device=structure.rank.device)
    for block in structure.blocks:
        mask[block.start : block.stop] = block.separate
    return mask if structure.reverse == "none" else mask.repeat(2)


def kernels_with_reversed(structure: Structure, values: Tensor) -> Tensor:
    """Kernels [graphs, e, width] -> what all edges carry, [graphs, edges, directions * width]."""
    if structure.reverse == "none":
        return values
    if structure.reverse == "append":
        return torch.cat([values, values], dim=1)
    nothing = torch.zeros_like(values)
    own = torch.cat([values, nothing, values], dim=-1)
    return torch.cat([own, torch.cat([nothing, values, values], dim=-1)], dim=1)
