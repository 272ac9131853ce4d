"""Attention over all pairs, with its derivative written out.

q_ij = q_i + Q e_ij, k_ij = k_j + K e_ij, v_ij = (S e_ij) * v_j (paper, Eq. 5). The shift of the
values, H e_ij, is left to the caller: sum_j a_ij H e_ij = H sum_j a_ij e_ij is a linear map for
each node and head instead of each pair.

A chunk of pairs at a time, so that its temporaries, four tensors [pairs, attention], stay in the
cache. What goes in is kept, the rest recomputed in the backward pass. Products are taken in the
precision of autocast; scores, softmax and sums never are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ngc.models.block_kernels import Products
from ngc.models.pair_chunks import pair_chunks


class PairAttention(torch.autograd.Function):
    """``apply(heads, e, q, k, v, Q, K, S)`` -> sum_j a_ij v_ij [graphs, targets, attention] and
    sum_j a_ij e_ij [graphs, targets, heads, width]; a_ij is the softmax over j of q_ij k_ij in each
    head.

    e [graphs, targets, n, width]; q [graphs, targets, attention]; k, v [graphs, n, attention]; the
    maps [attention, width].
    """

    @staticmethod
    def forward(
        ctx: Any, heads: int, pairs: Tensor, query: Tensor, key: Tensor, value: Tensor,
        *maps: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        ctx.heads, ctx.products = heads, Products.now(pairs)
        ctx.save_for_backward(pairs, query, key, value, *maps)
        attended = torch.empty_like(query)
        features = pairs.new_empty(*query.shape[:2], heads, pairs.shape[-1])
        low = [m.to(ctx.products.low) for m in maps]
        for graphs, rows in _chunks(pairs, query):
            e, v = pairs[graphs, rows], value[graphs, None]
            q, k, scale = _maps(ctx.products, e, low)
            a = _scores(q, k, query[graphs, rows, None], key[graphs, None], heads).softmax(-1)
            attended[graphs, rows] = _weighted(a, v, heads).mul_(scale).sum(2)
            features[graphs, rows] = a @ e
        return attended, features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor, outer_features: Tensor) -> tuple[Tensor | None, ...]:
        heads, products = ctx.heads, ctx.products
        pairs, query, key, value, *maps = ctx.saved_tensors
        low = [m.to(products.low) for m in maps]
        g_pairs, g_query = torch.empty_like(pairs), torch.empty_like(query)
        g_key, g_value = torch.zeros_like(key), torch.zeros_like(value)
        g_maps = [torch.zeros_like(m) for m in maps]
        for graphs, rows in _chunks(pairs, query):
            e, v = pairs[graphs, rows], value[graphs, None]
            g, g_features = outer[graphs, rows, None], outer_features[graphs, rows]
            q, k, scale = _maps(products, e, low)
            a = _scores(q, k, query[graphs, rows, None], key[graphs, None], heads).softmax(-1)
            # of a_ij v_j, then of a_ij, v_j and the scale
            g_weighted = scale.mul_(g)
            g_a = _by_head(g_weighted * v, heads) + g_features @ e.transpose(2, 3)
            g_value[graphs] += _scaled(g_weighted, a, heads).sum(1)
            g_scale = _weighted(a, v, heads).mul_(g)
            g_scores = (g_a - (a * g_a).sum(-1, keepdim=True)).mul_(a)
            g_q, g_k = _scaled(k, g_scores, heads), _scaled(q, g_scores, heads)
            g_query[graphs, rows] = g_q.sum(2)
            g_key[graphs] += g_k.sum(1)
            # of the pairs, through the three maps and the sum of features
            matrix, total = products.matrix(e), g_pairs[graphs, rows]
            torch.matmul(a.transpose(2, 3), g_features, out=total)
            for gradient, weight, g_map in zip((g_q, g_k, g_scale), low, g_maps):
                change = products.matrix(gradient)
                total += products(change, weight).view(total.shape)
                g_map += products(change.T, matrix)
        return (None, g_pairs, g_query, g_key, g_value, *g_maps)


def _chunks(pairs: Tensor, query: Tensor) -> Iterator[tuple[slice, slice]]:
    entries = pairs.shape[2] * query.shape[-1]
    return pair_chunks(pairs.shape[0], pairs.shape[1], entries, pairs.device)


def _maps(products: Products, pairs: Tensor, maps: list[Tensor]) -> list[Tensor]:
    """Linear maps of pairs [graphs, rows, n, width], [graphs, rows, n, attention] each."""
    matrix = products.matrix(pairs)
    return [products(matrix, m.T).view(*pairs.shape[:3], -1) for m in maps]


def _scores(q: Tensor, k: Tensor, query: Tensor, key: Tensor, heads: int) -> Tensor:
    """Scores [graphs, rows, heads, n]; adds the parts of the nodes to q and k."""
    return _by_head(q.add_(query) * k.add_(key), heads)


def _by_head(products: Tensor, heads: int) -> Tensor:
    """Sums within each head: [graphs, rows, n, attention] -> [graphs, rows, heads, n]."""
    width = products.shape[-1] // heads
    ones = torch.eye(heads, dtype=products.dtype, device=products.device)
    # A product with ones is the quickest sum over few neighbours, and puts n last.
    return ones.repeat_interleave(width, dim=1) @ products.transpose(2, 3)


def _weighted(a: Tensor, values: Tensor, heads: int) -> Tensor:
    """a_ij v_j [graphs, rows, n, attention]; values [graphs, 1, n, attention]."""
    weights = a.transpose(2, 3).contiguous().unsqueeze(-1)
    return (weights * values.unflatten(-1, (heads, -1))).flatten(-2)


def _scaled(values: Tensor, by: Tensor, heads: int) -> Tensor:
    """values [graphs, rows, n, attention] times a number for each head, in place."""
    values.unflatten(-1, (heads, -1)).mul_(by.transpose(2, 3).contiguous().unsqueeze(-1))
    return values
