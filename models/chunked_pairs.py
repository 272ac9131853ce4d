"""All pairs, a chunk at a time and only those that are read later (``pair_attention.py``,
``pair_update.py``)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ngc.backends.graphs import Part
from ngc.models.chunks import over_graphs
from ngc.models.pair_attention import Distinct, PairAttention
from ngc.models.pair_update import AllPairs, Dropout, Layout, PairUpdate, SomePairs
from ngc.models.pairs import AttentionMaps, EdgePairs, Kernels, Pairs, UpdateMaps
from ngc.models.products import single
from ngc.models.topology import fourier


class ChunkedPairs(Pairs):
    """``layers`` and ``outputs_only`` say which pairs are read. Where only output neurons are, the
    last layer attends from these alone and the edge update before it is that of their pairs;
    the update after the last layer is that of pairs with an edge."""

    def __init__(self, part: Part, layers: int, outputs_only: bool) -> None:
        self.part, self.layers = part, layers
        self.nodes = part.structure.num_nodes
        self.edges = EdgePairs.of(part.structure)
        self.outputs = part.structure.outputs if outputs_only else None

    def encode(self, kernels: Kernels) -> Tensor:
        values, shared = self.edges.kernels(self.part), [kernels.weight, kernels.bias]
        if kernels.frequencies is not None:
            shared.append(kernels.frequencies)
        (encoded,) = over_graphs(
            _encode, [values], shared, values.shape[1] * kernels.weight.shape[1]
        )
        encoded = single(encoded)  # what is kept of the pairs, whatever autocast made of it
        empty = kernels.of_zero().to(encoded.dtype)
        dense = empty.expand(len(values), self.nodes**2, -1).index_copy(
            1, self.edges.place, encoded
        )
        pairs = dense.unflatten(1, (self.nodes, self.nodes))
        return pairs if self.targets(0) is None else pairs[:, self.targets(0)]

    def targets(self, layer: int) -> Tensor | None:
        return self.outputs if layer == self.layers - 1 else None

    def attend(
        self,
        layer: int,
        pairs: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        maps: AttentionMaps,
    ) -> Tensor:
        factor = maps.temperature
        query, key, value = (t.to(pairs.dtype) for t in (query * factor, key, value))
        attended, features = PairAttention.apply(
            maps.heads,
            self._distinct(layer),
            pairs,
            query,
            key,
            value,
            maps.query * factor,
            maps.key,
            maps.scale,
        )
        shift = maps.shift.unflatten(0, (maps.heads, -1))
        return attended + torch.einsum("gihe,hce->gihc", features, shift).flatten(2)  # type: ignore[no-any-return]

    def update(
        self, layer: int, pairs: Tensor, source: Tensor, target: Tensor, maps: UpdateMaps
    ) -> Tensor:
        source, target = source.to(pairs.dtype), target.to(pairs.dtype)
        result = PairUpdate.apply(
            self._layout(layer), Dropout.now(maps.rate), pairs, source, target, *maps.tensors
        )
        if self.targets(layer + 1) is not None:
            return result.unflatten(1, (-1, self.nodes))  # type: ignore[no-any-return]
        return result  # type: ignore[no-any-return]

    def read_edges(self, pairs: Tensor) -> Tensor:
        return pairs[:, self.edges.of_edge]

    def _distinct(self, layer: int) -> Distinct | None:
        """Before the first update all pairs without an edge are alike."""
        other = self.edges.other
        if layer or other is None or self.targets(layer) is not None:
            return None
        return Distinct(self.edges.place, other)

    def _layout(self, layer: int) -> Layout:
        """The pairs that are read after the update that follows a layer."""
        if layer == self.layers - 1:
            return SomePairs(self.edges.target, self.edges.source, self.nodes)
        targets = self.targets(layer + 1)
        if targets is None:
            return AllPairs()
        sources = torch.arange(self.nodes, device=targets.device)
        return SomePairs(
            targets.repeat_interleave(self.nodes), sources.repeat(len(targets)), self.nodes
        )


def _encode(batched: list[Tensor], shared: list[Tensor]) -> tuple[Tensor, ...]:
    (values,), (weight, bias, *frequencies) = batched, shared
    features = fourier(values, frequencies[0]) if frequencies else values
    return (F.linear(features, weight, bias),)
