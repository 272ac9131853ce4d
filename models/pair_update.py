"""The edge update of NG-T on all pairs or some, with its derivative written out.

A chunk of pairs at a time; what goes in is kept, the rest recomputed in the backward pass.
Products are taken in the precision of autocast, norms and sums never are. Dropout draws the bits
of a chunk from a generator of its own, so that the backward pass finds the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ngc.models.pair_chunks import Chunk, graph_of, pair_chunks
from ngc.models.products import Products
from ngc.models.sharing import added, shared_out

_EPSILON = 1e-5  # LayerNorm's default
_norm = torch.ops.aten.native_layer_norm
_norm_backward = torch.ops.aten.native_layer_norm_backward
_gelu_backward = torch.ops.aten.gelu_backward


class Layout(ABC):
    """Which pairs (i, j) are updated. Features of all pairs are ``pairs`` [graphs, n, n, width];
    chunks are read and written as rows."""

    @abstractmethod
    def shape(self, pairs: Tensor) -> tuple[int, ...]:
        """Of the result."""

    @abstractmethod
    def chunks(self, pairs: Tensor, width: int) -> Iterator[Chunk]:
        """Graphs and rows of the result."""

    @abstractmethod
    def read(self, pairs: Tensor, chunk: Chunk) -> Tensor:
        """[e_ij, e_ji] of a chunk."""

    @abstractmethod
    def add_nodes(self, rows: Tensor, source: Tensor, target: Tensor, chunk: Chunk) -> None:
        """Add s_j + t_i to rows of a chunk."""

    @abstractmethod
    def write(
        self, g_pairs: Tensor, g_source: Tensor, g_target: Tensor, chunk: Chunk,
        edges: Tensor, nodes: Tensor,
    ) -> None:  # fmt: skip
        """Add gradients of [e_ij, e_ji] and s_j + t_i where they belong."""


class AllPairs(Layout):
    def shape(self, pairs: Tensor) -> tuple[int, ...]:
        return tuple(pairs.shape)

    def chunks(self, pairs: Tensor, width: int) -> Iterator[Chunk]:
        graphs, nodes = pairs.shape[:2]
        return pair_chunks(graphs, nodes, nodes * width, pairs.device)

    def read(self, pairs: Tensor, chunk: Chunk) -> Tensor:
        graphs, rows = chunk
        both = [pairs[graphs, rows], pairs[graphs, :, rows].transpose(1, 2)]
        return torch.cat(both, dim=-1).flatten(0, -2)

    def add_nodes(self, rows: Tensor, source: Tensor, target: Tensor, chunk: Chunk) -> None:
        graphs, targets = chunk
        grid = rows.view(_count(graphs), _count(targets), -1, rows.shape[-1])
        grid += source[graphs, None]
        grid += target[graphs, targets, None]

    def write(
        self, g_pairs: Tensor, g_source: Tensor, g_target: Tensor, chunk: Chunk,
        edges: Tensor, nodes: Tensor,
    ) -> None:  # fmt: skip
        graphs, rows = chunk
        grid = (_count(graphs), _count(rows), -1)
        own, back = edges.view(*grid, edges.shape[-1]).chunk(2, dim=-1)
        g_pairs[graphs, rows] += own
        g_pairs[graphs, :, rows] += back.transpose(1, 2)
        nodes = nodes.view(*grid, nodes.shape[-1])
        g_source[graphs] += nodes.sum(1)
        g_target[graphs, rows] += nodes.sum(2)


@dataclass(frozen=True, eq=False)
class SomePairs(Layout):
    """``target`` i and ``source`` j [pairs], each pair once."""

    target: Tensor
    source: Tensor
    num_nodes: int

    def shape(self, pairs: Tensor) -> tuple[int, ...]:
        return (len(pairs), len(self.target), pairs.shape[-1])

    def chunks(self, pairs: Tensor, width: int) -> Iterator[Chunk]:
        return pair_chunks(len(pairs), len(self.target), width, pairs.device)

    def read(self, pairs: Tensor, chunk: Chunk) -> Tensor:
        graphs, rows = chunk
        flat = pairs[graphs].flatten(1, 2)
        both = [flat[:, places] for places in self._places(rows)]
        return torch.cat(both, dim=-1).flatten(0, -2)

    def add_nodes(self, rows: Tensor, source: Tensor, target: Tensor, chunk: Chunk) -> None:
        graphs, some = chunk
        rows += source[graphs][:, self.source[some]].flatten(0, 1)
        rows += target[graphs][:, self.target[some]].flatten(0, 1)

    def write(
        self, g_pairs: Tensor, g_source: Tensor, g_target: Tensor, chunk: Chunk,
        edges: Tensor, nodes: Tensor,
    ) -> None:  # fmt: skip
        graphs, some = chunk
        many = _count(graphs)
        flat = g_pairs[graphs].flatten(1, 2)
        for places, gradient in zip(self._places(some), edges.chunk(2, dim=-1)):
            flat.index_add_(1, places, gradient.unflatten(0, (many, -1)))
        g_source[graphs].index_add_(1, self.source[some], nodes.unflatten(0, (many, -1)))
        g_target[graphs].index_add_(1, self.target[some], nodes.unflatten(0, (many, -1)))

    def _places(self, some: slice) -> tuple[Tensor, Tensor]:
        target, source = self.target[some], self.source[some]
        return target * self.num_nodes + source, source * self.num_nodes + target


@dataclass(frozen=True)
class Dropout:
    """Leaves each number out with chance ``rate``, in steps of 1/256, and scales the others.

    Number ``k`` of the masks of a ``seed`` is always the same. Bits come 64 at a time: drawn one
    by one, as torch does on a processor, they cost more than the products.
    """

    rate: float
    seed: int

    @classmethod
    def now(cls, rate: float) -> Dropout:
        """Seeded from torch's generator."""
        return cls(rate, int(torch.randint(2**62, ())) if rate else 0)

    def mask(self, rows: Tensor, number: int) -> Tensor | None:
        """What rows [pairs, width] are multiplied by; None for nothing."""
        kept = max(1, round(256 * (1 - self.rate)))
        if kept == 256:
            return None
        generator = torch.Generator(rows.device).manual_seed(self.seed + number)
        words = torch.empty(-(-rows.numel() // 8), dtype=torch.int64, device=rows.device)
        drawn = words.random_(-(2**63), None, generator=generator).view(torch.uint8)
        chosen = drawn[: rows.numel()].view(rows.shape) < kept
        return chosen.to(rows.dtype).mul_(256 / kept)


def _count(some: slice) -> int:
    return int(some.stop - some.start)


class PairUpdate(torch.autograd.Function):
    """``apply(layout, dropout, e, s, t, *UpdateMaps.tensors)`` -> features of the pairs of the
    layout after the update.

    e [graphs, n, n, width]; s, t [graphs, n, h]: the parts of source and target in the inner layer.
    """

    @staticmethod
    def forward(
        ctx: Any, layout: Layout, dropout: Dropout, pairs: Tensor, source: Tensor, target: Tensor,
        *maps: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.step = partial(_Update, layout, dropout, Products.now(pairs))
        ctx.layout = layout
        ctx.save_for_backward(pairs, source, target, *maps)
        result = pairs.new_empty(layout.shape(pairs))

        def update(chunks: list[tuple[int, Chunk]]) -> None:
            step = ctx.step(maps)
            for number, chunk in chunks:
                rows = step.forward(number, chunk, pairs, source, target)
                result[chunk] = rows.view(result[chunk].shape)

        shared_out(update, enumerate(layout.chunks(pairs, source.shape[-1])), pairs.device)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        layout = ctx.layout
        pairs, source, target, *maps = ctx.saved_tensors
        totals = [torch.zeros_like(t) for t in (pairs, source, target)]

        def derive(chunks: list[tuple[int, Chunk]]) -> list[Tensor]:
            step = ctx.step(maps)
            for number, chunk in chunks:
                step.forward(number, chunk, pairs, source, target)
                layout.write(*totals, chunk, *step.backward(outer[chunk].flatten(0, -2)))
            return step.gradients  # type: ignore[no-any-return]

        chunks = enumerate(layout.chunks(pairs, source.shape[-1]))
        found = shared_out(derive, chunks, pairs.device, together=lambda one: graph_of(one[1]))
        return (None, None, *totals, *added(found))


class _Update:
    """The update of one chunk of pairs after another; ``gradients`` adds up those of the maps."""

    def __init__(
        self, layout: Layout, dropout: Dropout, products: Products, maps: Sequence[Tensor]
    ) -> None:
        edges, *outer, first, second, bias, scale, shift = maps
        self.layout, self.dropout, self.products = layout, dropout, products
        self.edges, self.first = _Linear(products, edges), _Linear(products, first)
        self.outer = _Residual(products, *outer)
        self.second = _Residual(products, second, bias, scale, shift)

    def forward(
        self, number: int, chunk: Chunk, pairs: Tensor, source: Tensor, target: Tensor
    ) -> Tensor:
        both = self.layout.read(pairs, chunk)
        own, inner = both[:, : pairs.shape[-1]], self.edges.forward(both)
        self.layout.add_nodes(inner, source, target, chunk)
        middle = self.outer.forward(own, inner, self.dropout.mask(own, 2 * number))
        mask = self.dropout.mask(own, 2 * number + 1)
        return self.second.forward(middle, self.first.forward(middle), mask)

    def backward(self, outer: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of [e_ij, e_ji] and s_j + t_i in the chunk that was computed last."""
        g_middle, g_inner = self.second.backward(outer)
        g_own, g_inner = self.outer.backward(g_middle.add_(self.first.backward(g_inner)))
        g_both = self.edges.backward(g_inner)
        g_both[:, : g_own.shape[-1]] += g_own
        return g_both, g_inner

    @property
    def gradients(self) -> list[Tensor]:
        """In the order of ``UpdateMaps.tensors``."""
        first = self.first.gradient
        return [self.edges.gradient, *self.outer.gradients, first, *self.second.gradients]


class _Linear:
    """x -> W x."""

    def __init__(self, products: Products, weight: Tensor) -> None:
        self.products, self.weight = products, weight.to(products.low)
        self.gradient = torch.zeros_like(weight)

    def forward(self, rows: Tensor) -> Tensor:
        self.matrix = self.products.matrix(rows)
        return self.products(self.matrix, self.weight.T)

    def backward(self, outer: Tensor) -> Tensor:
        matrix = self.products.matrix(outer)
        self.gradient += self.products(matrix.T, self.matrix)
        return self.products(matrix, self.weight)


class _Residual:
    """x, inner -> N(x + dropout(W g(inner) + b)); g = GELU, N a LayerNorm."""

    def __init__(
        self, products: Products, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor
    ) -> None:
        self.linear = _Linear(products, weight)
        self.bias, self.norm = bias, (scale, shift)
        self.sums = [torch.zeros_like(t) for t in (bias, scale, shift)]

    def forward(self, rows: Tensor, inner: Tensor, mask: Tensor | None) -> Tensor:
        self.inner, self.mask = inner, mask
        change = self.linear.forward(F.gelu(inner)).add_(self.bias)
        self.total = (change if mask is None else change.mul_(mask)).add_(rows)
        result, *self.moments = _norm(self.total, [rows.shape[-1]], *self.norm, _EPSILON)
        return result

    def backward(self, outer: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of x and inner."""
        g_rows, g_scale, g_shift = _norm_backward(
            outer, self.total, [outer.shape[-1]], *self.moments, *self.norm, [True, True, True]
        )
        g = g_rows if self.mask is None else g_rows * self.mask
        for total, found in zip(self.sums, (g.sum(0), g_scale, g_shift)):
            total += found
        return g_rows, _gelu_backward(self.linear.backward(g), self.inner)

    @property
    def gradients(self) -> list[Tensor]:
        """Of weight, bias, scale and shift."""
        return [self.linear.gradient, *self.sums]
