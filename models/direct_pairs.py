"""All pairs by the formulas: q_ij, k_ij and v_ij of every pair in full, by autograd. The reference
for the chunked form."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ngc.backends.graphs import Part
from ngc.models.pairs import AttentionMaps, EdgePairs, Kernels, Pairs, UpdateMaps
from ngc.models.topology import fourier


class DirectPairs(Pairs):
    def __init__(self, part: Part) -> None:
        self.part = part
        self.edges = EdgePairs.of(part.structure)

    def encode(self, kernels: Kernels) -> Tensor:
        nodes = self.part.structure.num_nodes
        values = self.edges.kernels(self.part)
        dense = values.new_zeros(len(values), nodes * nodes, values.shape[2])
        dense = dense.index_copy(1, self.edges.place, values).unflatten(1, (nodes, nodes))
        features = dense if kernels.frequencies is None else fourier(dense, kernels.frequencies)
        return F.linear(features, kernels.weight, kernels.bias)

    def targets(self, layer: int) -> None:
        return None

    def attend(
        self,
        layer: int,
        pairs: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        maps: AttentionMaps,
    ) -> Tensor:
        weight = torch.cat([maps.query, maps.key, maps.shift, maps.scale])
        to_query, to_key, shift, scale = F.linear(pairs, weight).chunk(4, dim=-1)
        queries = (query[:, :, None] + to_query).unflatten(-1, (maps.heads, -1))
        keys = (key[:, None] + to_key).unflatten(-1, (maps.heads, -1))
        values = (scale * value[:, None] + shift).unflatten(-1, (maps.heads, -1))
        scores = torch.einsum("gijhc,gijhc->gijh", queries, keys) * maps.temperature
        weights = scores.softmax(dim=2, dtype=torch.promote_types(scores.dtype, torch.float32))
        return torch.einsum("gijh,gijhc->gihc", weights.to(values.dtype), values).flatten(2)

    def update(
        self, layer: int, pairs: Tensor, source: Tensor, target: Tensor, maps: UpdateMaps
    ) -> Tensor:
        both = torch.cat([pairs, pairs.transpose(1, 2)], dim=-1)
        inner = F.linear(both, maps.edges)
        inner = inner + source[:, None] + target[:, :, None]
        change = F.linear(F.gelu(inner), maps.out, maps.out_bias)
        pairs = _norm(pairs + F.dropout(change, maps.rate, maps.rate > 0), maps.norm)
        change = F.linear(F.gelu(F.linear(pairs, maps.first)), maps.second, maps.second_bias)
        return _norm(pairs + F.dropout(change, maps.rate, maps.rate > 0), maps.second_norm)

    def read_edges(self, pairs: Tensor) -> Tensor:
        return pairs.flatten(1, 2)[:, self.edges.place[self.edges.of_edge]]


def _norm(values: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
    return F.layer_norm(values, values.shape[-1:], *norm)
