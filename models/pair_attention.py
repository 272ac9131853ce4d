"""Attention over all pairs, with its derivative written out.

q_ij = q_i + Q e_ij, k_ij = k_j + K e_ij, v_ij = (S e_ij) * v_j (paper, Eq. 5). The shift of the
values, H e_ij, is left to the caller: sum_j a_ij H e_ij = H sum_j a_ij e_ij is a linear map for
each node and head instead of each pair.

In the first layer most pairs have no edge, and with that one and the same feature. Maps of it are
done once (``Distinct``).

A chunk of pairs at a time, so that its temporaries, four tensors [pairs, attention], stay in the
cache. What goes in and the softmax are kept, the rest recomputed in the backward pass. Products are
taken in the precision of autocast; scores, softmax and sums never are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ngc.models.pair_chunks import Chunk, graph_of, pair_chunks
from ngc.models.products import Products
from ngc.models.sharing import added, shared_out


@dataclass(frozen=True, eq=False)
class Distinct:
    """``places`` [k] of pairs in the order (i, j), ascending: each has a feature of its own, all
    others that of the pair at ``other``."""

    places: Tensor
    other: int

    def within(self, rows: slice, nodes: int) -> tuple[Tensor, Tensor]:
        """Of the pairs in some rows: the places of distinct ones, ``other`` last; and which of
        these each pair is like."""
        first, last = rows.start * nodes, rows.stop * nodes
        own = self.places[(self.places >= first) & (self.places < last)]
        index = own.new_full((last - first,), len(own))
        index[own - first] = torch.arange(len(own), device=own.device)
        return torch.cat([own, own.new_tensor([self.other])]), index

    def gradients(self, rows: Tensor, chosen: Tensor, first: int) -> Tensor:
        """From those of all pairs of a chunk that starts at ``first``, [graphs, pairs, d]."""
        own = rows[:, chosen[:-1] - first]
        other = rows.sum(1, keepdim=True) - own.sum(1, keepdim=True)
        return torch.cat([own, other], dim=1)


class PairAttention(torch.autograd.Function):
    """``apply(heads, distinct, e, q, k, v, Q, K, S)`` -> sum_j a_ij v_ij [graphs, targets,
    attention] and sum_j a_ij e_ij [graphs, targets, heads, width]; a_ij is the softmax over j of
    q_ij k_ij in each head.

    e [graphs, targets, n, width]; q [graphs, targets, attention]; k, v [graphs, n, attention]; the
    maps [attention, width].
    """

    @staticmethod
    def forward(
        ctx: Any, heads: int, distinct: Distinct | None, pairs: Tensor, query: Tensor, key: Tensor,
        value: Tensor, *maps: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        ctx.heads, ctx.distinct, ctx.products = heads, distinct, Products.now(pairs)
        attended = torch.empty_like(query)
        weights = pairs.new_empty(*query.shape[:2], heads, pairs.shape[2])
        features = pairs.new_empty(*query.shape[:2], heads, pairs.shape[-1])

        def attend(chunks: list[Chunk]) -> None:
            linear = _Maps(ctx.products, maps, distinct)
            for graphs, rows in chunks:
                q, k, scale = linear.forward(pairs, graphs, rows)
                q, k = q.add_(query[graphs, rows, None]), k.add_(key[graphs, None])
                a = weights[graphs, rows] = _by_head(q.mul_(k), heads).softmax(-1)
                attended[graphs, rows] = _scaled(scale, a, heads).mul_(value[graphs, None]).sum(2)
                features[graphs, rows] = a @ pairs[graphs, rows]

        shared_out(attend, _chunks(pairs, query), pairs.device)
        ctx.save_for_backward(weights, pairs, query, key, value, *maps)
        return attended, features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor, outer_features: Tensor) -> tuple[Tensor | None, ...]:
        heads = ctx.heads
        weights, pairs, query, key, value, *maps = ctx.saved_tensors
        g_pairs, g_query = torch.zeros_like(pairs), torch.empty_like(query)
        g_key, g_value = torch.zeros_like(key), torch.zeros_like(value)

        def derive(chunks: list[Chunk]) -> list[Tensor]:
            linear = _Maps(ctx.products, maps, ctx.distinct)
            for graphs, rows in chunks:
                a, e, v = weights[graphs, rows], pairs[graphs, rows], value[graphs, None]
                g, g_features = outer[graphs, rows, None], outer_features[graphs, rows]
                q, k, scale = linear.forward(pairs, graphs, rows)
                q, k = q.add_(query[graphs, rows, None]), k.add_(key[graphs, None])
                # of a_ij v_j, then of a_ij, v_j and the scale; what is in the cache is written over
                g_weighted = scale.mul_(g)
                products = g_weighted * v
                g_a = _by_head(products, heads) + g_features @ e.transpose(2, 3)
                g_value[graphs] += _scaled(g_weighted, a, heads).sum(1)
                g_scale = _scaled(v, a, heads, out=products).mul_(g)
                g_scores = (g_a - (a * g_a).sum(-1, keepdim=True)).mul_(a)
                g_q, g_k = _scaled(k, g_scores, heads), _scaled(q, g_scores, heads)
                g_query[graphs, rows] = g_q.sum(2)
                g_key[graphs] += g_k.sum(1)
                g_pairs[graphs, rows] += a.transpose(2, 3) @ g_features
                linear.backward([g_q, g_k, g_scale], g_pairs, graphs)
            return linear.gradients

        chunks = _chunks(pairs, query)
        g_maps = added(shared_out(derive, chunks, pairs.device, together=graph_of))
        return (None, None, g_pairs, g_query, g_key, g_value, *g_maps)


def _chunks(pairs: Tensor, query: Tensor) -> Iterator[Chunk]:
    entries = pairs.shape[2] * query.shape[-1]
    return pair_chunks(pairs.shape[0], pairs.shape[1], entries, pairs.device)


class _Maps:
    """Linear maps of the pairs, a chunk after another; ``gradients`` adds up those of the maps."""

    def __init__(
        self, products: Products, maps: Sequence[Tensor], distinct: Distinct | None
    ) -> None:
        self.products, self.distinct = products, distinct
        self.low = [m.to(products.low) for m in maps]
        self.gradients = [torch.zeros_like(m) for m in maps]

    def forward(self, pairs: Tensor, graphs: slice, rows: slice) -> list[Tensor]:
        """[graphs, rows, n, attention] each."""
        nodes = pairs.shape[2]
        self.first = rows.start * nodes
        self.chosen: slice | Tensor = slice(self.first, rows.stop * nodes)
        if self.distinct is not None:
            self.chosen, index = self.distinct.within(rows, nodes)
        features = pairs[graphs].flatten(1, 2)[:, self.chosen]
        self.matrix = self.products.matrix(features)
        grid = features.shape[:2]
        mapped = [self.products(self.matrix, m.T).unflatten(0, grid) for m in self.low]
        if self.distinct is not None:
            mapped = [m.index_select(1, index) for m in mapped]
        return [m.unflatten(1, (-1, nodes)) for m in mapped]

    def backward(self, outer: list[Tensor], g_pairs: Tensor, graphs: slice) -> None:
        """From gradients of the maps of the chunk done last, add to those of the pairs."""
        total = g_pairs[graphs].flatten(1, 2)
        turned = self.matrix.T.contiguous()  # once, where each product would do so
        for gradient, weight, g_map in zip(outer, self.low, self.gradients):
            rows = gradient.flatten(1, 2)
            if self.distinct is not None:
                assert isinstance(self.chosen, Tensor)
                rows = self.distinct.gradients(rows, self.chosen, self.first)
            change = self.products.matrix(rows)
            total[:, self.chosen] += self.products(change, weight).unflatten(0, rows.shape[:2])
            g_map += self.products(turned, change).T


def _by_head(products: Tensor, heads: int) -> Tensor:
    """Sums within each head: [graphs, rows, n, attention] -> [graphs, rows, heads, n]."""
    width = products.shape[-1] // heads
    ones = torch.eye(heads, dtype=products.dtype, device=products.device)
    # A product with ones is the quickest sum over few neighbours, and puts n last.
    return ones.repeat_interleave(width, dim=1) @ products.transpose(2, 3)


def _scaled(values: Tensor, by: Tensor, heads: int, out: Tensor | None = None) -> Tensor:
    """values [graphs, rows, n, attention] times a number for each head, in place or in ``out``."""
    out = values if out is None else out
    factor = by.transpose(2, 3).contiguous().unsqueeze(-1)
    torch.mul(values.unflatten(-1, (heads, -1)), factor, out=out.unflatten(-1, (heads, -1)))
    return out
