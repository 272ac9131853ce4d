"""The two edge functions of NG-GNN on dense blocks, with derivatives written out.

Both run a chunk of graphs at a time, keep only what goes in, and recompute the rest in the backward
pass (see ``chunks.py``). Written out, the derivative takes about eighteen passes over the edges of
a chunk where automatic differentiation takes forty, so that matrix products are most of the time.

With autocast on, products are taken in its dtype; all else is in the dtype of the node features,
which are in single precision at least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from ngc.models.chunks import chunk_size
from ngc.models.products import Products, product
from ngc.models.topology import EPSILON


class Flow(Protocol):
    """A block in one direction (``block_edges.Flow``)."""

    @property
    def axis(self) -> int: ...
    def at_target(self, rows: Tensor) -> Tensor: ...
    def at_source(self, rows: Tensor) -> Tensor: ...


class Join(Protocol):
    """Reductions [graphs, g, k, d] of several flows joined node by node (``block_edges.Join``)."""

    @property
    def degree(self) -> Tensor: ...
    def sum(self, rows: list[Tensor]) -> Tensor: ...
    def least(self, rows: list[Tensor]) -> Tensor: ...
    def sum_sources(self, rows: list[Tensor]) -> Tensor: ...


def chunks(many: int, size: int) -> Iterator[slice]:
    for start in range(0, many, size):
        yield slice(start, start + size)


class FilmReduce(torch.autograd.Function):
    """Messages m_ij = scale_ij (u_i + w_j) + shift_ij with [scale, shift] = W e_ij + b, reduced
    over j: mean, minimum, maximum and deviation, each [graphs, n, d].

    ``apply(join, flows, u, w, W, b, *features)``; u, w [graphs, n, d]; W [2 d, d]; features of each
    flow [graphs, g, out, in, d].
    """

    @staticmethod
    def forward(
        ctx: Any, join: Join, flows: Sequence[Flow], target: Tensor, source: Tensor,
        weight: Tensor, bias: Tensor, *features: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        ctx.join, ctx.flows, ctx.products = join, flows, Products.now(target)
        ctx.size = chunk_size(target.device, max(f[0].numel() for f in features))
        results = tuple(torch.empty_like(target) for _ in range(4))
        film = _Film(ctx.products, weight, bias)
        for rows in chunks(len(target), ctx.size):
            u, w = target[rows], source[rows]
            pairs = [(flow, film(flow, f[rows], u, w)[0]) for flow, f in zip(flows, features)]
            mean, low, high, deviation = (result[rows] for result in results)
            mean.copy_(join.sum([m.sum(flow.axis) for flow, m in pairs])).div_(join.degree)
            low.copy_(join.least([m.amin(flow.axis) for flow, m in pairs]))
            high.copy_(join.least([m.amax(flow.axis).neg_() for flow, m in pairs])).neg_()
            for flow, m in pairs:
                m.sub_(flow.at_target(mean)).square_()
            deviation.copy_(join.sum([m.sum(flow.axis) for flow, m in pairs]))
            deviation.div_(join.degree).add_(EPSILON).sqrt_()
        ctx.save_for_backward(target, source, weight, bias, *results, *features)
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        join, flows, products = ctx.join, ctx.flows, ctx.products
        target, source, weight, bias, mean, low, high, deviation, *features = ctx.saved_tensors
        film = _Film(products, weight, bias)
        g_target, g_source = torch.empty_like(target), torch.empty_like(source)
        g_features = [torch.empty_like(f) for f in features]
        g_weight, g_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        for rows in chunks(len(target), ctx.size):
            g_mean, g_low, g_high, g_deviation = (g[rows] for g in outer)
            # d deviation / d m = (m - mean) / (degree * deviation)
            slope = g_deviation / (join.degree * deviation[rows])
            level = g_mean / join.degree - mean[rows] * slope
            u, w, least, most = target[rows], source[rows], low[rows], high[rows]
            made = [film(flow, f[rows], u, w) for flow, f in zip(flows, features)]
            lowest = [_equal(m, flow.at_target(least)) for flow, (m, _, _) in zip(flows, made)]
            highest = [_equal(m, flow.at_target(most)) for flow, (m, _, _) in zip(flows, made)]
            # Edges that tie for an extreme share its gradient.
            g_low = g_low / _count(join, flows, lowest)
            g_high = g_high / _count(join, flows, highest)
            to_target, to_source = [], []
            for k, (flow, (m, scale, both)) in enumerate(zip(flows, made)):
                g = torch.addcmul(flow.at_target(level), m, flow.at_target(slope))
                g.addcmul_(lowest[k], flow.at_target(g_low))
                g.addcmul_(highest[k], flow.at_target(g_high))
                g_scale = both.mul_(g)
                scale.mul_(g)
                to_target.append(scale.sum(flow.axis))
                to_source.append(scale.sum(5 - flow.axis))
                gradient = film.backward(features[k][rows], g_scale, g, g_weight, g_bias)
                g_features[k][rows] = gradient.view_as(features[k][rows])
            g_target[rows] = join.sum(to_target)
            g_source[rows] = join.sum_sources(to_source)
        return (None, None, g_target, g_source, g_weight, g_bias, *g_features)


def _equal(a: Tensor, b: Tensor) -> Tensor:
    """1 where they are equal, else 0: as numbers, since truth values are slow to make and read."""
    return torch.eq(a, b, out=torch.empty_like(a))


def _count(join: Join, flows: Sequence[Flow], chosen: list[Tensor]) -> Tensor:
    return join.sum([c.sum(flow.axis) for flow, c in zip(flows, chosen)]).clamp_(min=1)


class _Film:
    """Messages of a flow from the features of its edges."""

    def __init__(self, products: Products, weight: Tensor, bias: Tensor) -> None:
        self.products = products
        # Scale and shift in products of their own: results without gaps are quicker to go over.
        self.weights = [w.to(products.low) for w in weight.chunk(2)]
        self.biases = bias.chunk(2)

    def __call__(
        self, flow: Flow, feature: Tensor, target: Tensor, source: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Messages, their scale, and u_i + w_j, each [graphs, g, out, in, d]."""
        matrix = self.products.matrix(feature)
        scale, shift = (
            self.products.affine(matrix, *pair).view(feature.shape)
            for pair in zip(self.weights, self.biases)
        )
        both = flow.at_target(target) + flow.at_source(source)
        return shift.addcmul_(scale, both), scale, both

    def backward(
        self, feature: Tensor, g_scale: Tensor, g_shift: Tensor, g_weight: Tensor, g_bias: Tensor
    ) -> Tensor:
        """Gradient of the features [edges, d]; adds to those of weight and bias."""
        matrix = self.products.matrix(feature)
        width, total = feature.shape[-1], None
        for k, g in enumerate((g_scale, g_shift)):
            part = slice(k * width, (k + 1) * width)
            low = self.products.matrix(g)
            g_weight[part] += self.products(low.T, matrix)
            g_bias[part] += g.reshape(-1, width).sum(0)
            found = product(low, self.weights[k])
            total = found if total is None else total.add_(found)
        assert total is not None
        return total


class UpdateEdges(torch.autograd.Function):
    """e_ij' = W_out silu(W e_ij + s_j + t_i) + b_out for one flow.

    ``apply(join, flow, s, t, W, W_out, b_out, feature)``; s, t [graphs, n, d]; feature
    [graphs, g, out, in, d].
    """

    @staticmethod
    def forward(
        ctx: Any, join: Join, flow: Flow, source: Tensor, target: Tensor, weight: Tensor,
        weight_out: Tensor, bias_out: Tensor, feature: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.join, ctx.flow, ctx.products = join, flow, Products.now(target)
        ctx.size = chunk_size(target.device, feature[0].numel())
        low, low_out, bias_low = (w.to(ctx.products.low) for w in (weight, weight_out, bias_out))
        result = torch.empty(feature.shape, dtype=ctx.products.low, device=feature.device)
        for rows in chunks(len(feature), ctx.size):
            inner = _inner(ctx.products, flow, feature[rows], source[rows], target[rows], low)
            active = ctx.products.matrix(silu(inner, inplace=True))
            torch.addmm(bias_low, active, low_out.T, out=ctx.products.matrix(result[rows]))
        ctx.save_for_backward(source, target, weight, weight_out, feature)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        flow, products = ctx.flow, ctx.products
        source, target, weight, weight_out, feature = ctx.saved_tensors
        low, low_out = (w.to(products.low) for w in (weight, weight_out))
        g_weight, g_out = torch.zeros_like(weight), torch.zeros_like(weight_out)
        g_bias = torch.zeros_like(weight_out[:, 0])
        g_source, g_target = torch.empty_like(source), torch.empty_like(target)
        g_feature = torch.empty_like(feature)
        for rows in chunks(len(feature), ctx.size):
            inner = _inner(products, flow, feature[rows], source[rows], target[rows], low)
            g = products.matrix(outer[rows])
            g_out += products(g.T, products.matrix(silu(inner)))
            g_bias += g.sum(0)
            g_active = products(g, low_out).view(inner.shape)
            g_inner = torch.ops.aten.silu_backward(g_active, inner)
            g_target[rows] = ctx.join.sum([g_inner.sum(flow.axis)])
            g_source[rows] = ctx.join.sum_sources([g_inner.sum(5 - flow.axis)])
            g_low = products.matrix(g_inner)
            g_weight += products(g_low.T, products.matrix(feature[rows]))
            g_feature[rows] = product(g_low, low).view(feature[rows].shape)
        return (None, None, g_source, g_target, g_weight, g_out, g_bias, g_feature)


def _inner(
    products: Products, flow: Flow, feature: Tensor, source: Tensor, target: Tensor, weight: Tensor
) -> Tensor:
    inner = products(products.matrix(feature), weight.T).view(feature.shape)
    inner += flow.at_source(source)
    inner += flow.at_target(target)
    return inner
