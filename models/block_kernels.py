"""The two edge functions of NG-GNN on stacks of dense blocks, with derivatives written out.

Both run a chunk of a stack at a time, keep only what goes in, and recompute the rest in the
backward pass (see ``chunks.py``). Written out, the derivative takes about eighteen passes over the
edges of a chunk where automatic differentiation takes forty, so that matrix products are most of
the time.

With autocast on, products are taken in its dtype; all else is in the dtype of the node features,
which are in single precision at least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from ngc.models.block_flows import Stack, Stacks
from ngc.models.chunks import chunk_size
from ngc.models.products import Products, product
from ngc.models.topology import EPSILON

Piece = tuple[Stack, Tensor, slice, slice, slice]


def pieces(stacks: Stacks, layer: int, features: Sequence[Tensor]) -> Iterator[Piece]:
    """What is read in a layer, in chunks: a stack, its features [many, g, out, in, d]; which of the
    many are in the chunk; and the rows of these among those of all stacks, for joins at the targets
    and at the sources."""
    at_target = at_source = 0
    for stack, count, feature in zip(stacks.stacks, stacks.live(layer), features):
        if not count:
            continue
        targets, sources = stack.target[0].numel(), stack.source[0].numel()
        size = chunk_size(feature.device, feature[0].numel())
        for start in range(0, count, size):
            stop = min(start + size, count)
            yield (
                stack, feature[start:stop], slice(start, stop),
                slice(at_target + start * targets, at_target + stop * targets),
                slice(at_source + start * sources, at_source + stop * sources),
            )  # fmt: skip
        at_target += count * targets
        at_source += count * sources


class FilmReduce(torch.autograd.Function):
    """Messages m_ij = scale_ij (u_i + w_j) + shift_ij with [scale, shift] = W e_ij + b, reduced
    over j: mean, minimum, maximum and deviation, each [nodes, d].

    ``apply(stacks, layer, u, w, W, b, *features)``; u, w [nodes, d]; W [2 d, d]; features of each
    stack [many, g, out, in, d].
    """

    @staticmethod
    def forward(
        ctx: Any, stacks: Stacks, layer: int, target: Tensor, source: Tensor, weight: Tensor,
        bias: Tensor, *features: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        ctx.stacks, ctx.layer, ctx.products = stacks, layer, Products.now(target)
        join = stacks.join(layer, targets=True)
        shape = (len(join.nodes), target.shape[1])
        mean, low, high, spread, num_low, num_high = (target.new_empty(shape) for _ in range(6))
        film = _Film(ctx.products, weight, bias)
        tied = any(ctx.needs_input_grad)
        for stack, feature, many, rows, _ in pieces(stacks, layer, features):
            axis, end = stack.axis, (*stack.target[many].shape, -1)
            u, w = target[stack.target[many]], source[stack.source[many]]
            m, _, _ = film(stack, feature, u, w)
            of_row = torch.sum(m, axis).div_(stack.degree)
            mean[rows] = of_row.flatten(0, 2)
            least, most = m.amin(axis), m.amax(axis)
            low[rows], high[rows] = least.flatten(0, 2), most.flatten(0, 2)
            if tied:
                for found, extreme in ((num_low, least), (num_high, most)):
                    equal = _equal(m, stack.at_target(extreme))
                    found[rows] = equal.sum(axis).flatten(0, 2)
            m.sub_(stack.at_target(of_row)).square_()
            torch.sum(m, axis, out=spread[rows].view(end))
        # Variances of rows of one node are joined as in Chan et al. 1979.
        of_row, degree = mean, join.degrees
        mean = join.sum(of_row * degree).div_(join.degree)
        spread += (of_row - mean[join.nodes]).square_().mul_(degree)
        deviation = join.sum(spread).div_(join.degree).add_(EPSILON).sqrt_()
        counts = []
        results = [mean]
        for of_row, count, joined in ((low, num_low, join.least), (high, num_high, join.most)):
            extreme = joined(of_row)
            results.append(extreme)
            if tied:
                counts.append(join.sum(count.mul_(of_row == extreme[join.nodes])).clamp_(min=1))
        results.append(deviation)
        ctx.save_for_backward(target, source, weight, bias, *results, *counts, *features)
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        stacks, layer, products = ctx.stacks, ctx.layer, ctx.products
        target, source, weight, bias, *saved = ctx.saved_tensors
        mean, low, high, deviation, num_low, num_high, *features = saved
        g_mean, g_low, g_high, g_deviation = outer
        targets, sources = (stacks.join(layer, at) for at in (True, False))
        film, width = _Film(products, weight, bias), target.shape[1]
        to_target = target.new_empty(len(targets.nodes), width)
        to_source = target.new_empty(len(sources.nodes), width)
        g_features = [torch.empty_like(f) for f in features]
        g_weight, g_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        # d deviation / d m = (m - mean) / (degree * deviation)
        slope = g_deviation / (targets.degree * deviation)
        level = g_mean / targets.degree - mean * slope
        # Edges that tie for an extreme share its gradient.
        tables = (target, slope, level, low, high, g_low / num_low, g_high / num_high)
        table = torch.cat(tables, dim=1)
        outcomes = dict(zip(stacks.stacks, g_features))
        for stack, feature, many, at_target, at_source in pieces(stacks, layer, features):
            axis = stack.axis
            u, *read = table[stack.target[many]].split(width, dim=-1)
            slope, level, least, most, of_least, of_most = (stack.at_target(t) for t in read)
            m, scale, both = film(stack, feature, u, source[stack.source[many]])
            g = torch.addcmul(level, m, slope)
            g.addcmul_(_equal(m, least), of_least)
            g.addcmul_(_equal(m, most), of_most)
            g_scale = both.mul_(g)
            scale.mul_(g)
            to_target[at_target] = scale.sum(axis).flatten(0, 2)
            to_source[at_source] = scale.sum(5 - axis).flatten(0, 2)
            gradient = film.backward(feature, g_scale, g, g_weight, g_bias)
            outcomes[stack][many] = gradient.view_as(feature)
        for stack, count in zip(stacks.stacks, stacks.live(layer)):
            outcomes[stack][count:] = 0
        joined = targets.sum(to_target), sources.sum(to_source)
        return (None, None, *joined, g_weight, g_bias, *g_features)


def _equal(a: Tensor, b: Tensor) -> Tensor:
    """1 where they are equal, else 0: as numbers, since truth values are slow to make and read."""
    return torch.eq(a, b, out=torch.empty_like(a))


class _Film:
    """Messages of a stack from the features of its edges."""

    def __init__(self, products: Products, weight: Tensor, bias: Tensor) -> None:
        self.products = products
        # Scale and shift in products of their own: results without gaps are quicker to go over.
        self.weights = [w.to(products.low) for w in weight.chunk(2)]
        self.biases = bias.chunk(2)

    def __call__(
        self, stack: Stack, feature: Tensor, target: Tensor, source: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Messages, their scale, and u_i + w_j, each [many, g, out, in, d]."""
        matrix = self.products.matrix(feature)
        scale, shift = (
            self.products.affine(matrix, *pair).view(feature.shape)
            for pair in zip(self.weights, self.biases)
        )
        both = stack.at_target(target) + stack.at_source(source)
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
    """e_ij' = W_out silu(W e_ij + s_j + t_i) + b_out for what the next layer reads of each stack.

    ``apply(stacks, layer, s, t, W, W_out, b_out, *features)``; s, t [nodes, d]; features of each
    stack [many, g, out, in, d].
    """

    @staticmethod
    def forward(
        ctx: Any, stacks: Stacks, layer: int, source: Tensor, target: Tensor, weight: Tensor,
        weight_out: Tensor, bias_out: Tensor, *features: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        ctx.stacks, ctx.layer, ctx.products = stacks, layer, Products.now(target)
        low, low_out, bias_low = (w.to(ctx.products.low) for w in (weight, weight_out, bias_out))
        results = [
            feature.new_empty(count, *feature.shape[1:], dtype=ctx.products.low)
            for feature, count in zip(features, stacks.live(layer + 1))
        ]
        outcomes = dict(zip(stacks.stacks, results))
        for stack, feature, many, _, _ in pieces(stacks, layer + 1, features):
            s, t = source[stack.source[many]], target[stack.target[many]]
            inner = _inner(ctx.products, stack, feature, s, t, low)
            active = ctx.products.matrix(silu(inner, inplace=True))
            torch.addmm(bias_low, active, low_out.T, out=ctx.products.matrix(outcomes[stack][many]))
        ctx.save_for_backward(source, target, weight, weight_out, *features)
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        stacks, layer, products = ctx.stacks, ctx.layer + 1, ctx.products
        source, target, weight, weight_out, *features = ctx.saved_tensors
        targets, sources = (stacks.join(layer, at) for at in (True, False))
        low, low_out = (w.to(products.low) for w in (weight, weight_out))
        g_weight, g_out = torch.zeros_like(weight), torch.zeros_like(weight_out)
        g_bias = torch.zeros_like(weight_out[:, 0])
        to_target = target.new_empty(len(targets.nodes), target.shape[1])
        to_source = target.new_empty(len(sources.nodes), target.shape[1])
        g_features = [torch.empty_like(f) for f in features]
        outcomes = dict(zip(stacks.stacks, zip(outer, g_features)))
        for stack, feature, many, at_target, at_source in pieces(stacks, layer, features):
            s, t = source[stack.source[many]], target[stack.target[many]]
            inner = _inner(products, stack, feature, s, t, low)
            given, g_feature = outcomes[stack]
            g = products.matrix(given[many])
            g_out += products(g.T, products.matrix(silu(inner)))
            g_bias += g.sum(0)
            g_active = products(g, low_out).view(inner.shape)
            g_inner = torch.ops.aten.silu_backward(g_active, inner)
            to_target[at_target] = g_inner.sum(stack.axis).flatten(0, 2)
            to_source[at_source] = g_inner.sum(5 - stack.axis).flatten(0, 2)
            g_low = products.matrix(g_inner)
            g_weight += products(g_low.T, products.matrix(feature))
            g_feature[many] = product(g_low, low).view(feature.shape)
        for stack, count in zip(stacks.stacks, stacks.live(layer)):
            outcomes[stack][1][count:] = 0
        joined = sources.sum(to_source), targets.sum(to_target)
        return (None, None, *joined, g_weight, g_out, g_bias, *g_features)


def _inner(
    products: Products,
    stack: Stack,
    feature: Tensor,
    source: Tensor,
    target: Tensor,
    weight: Tensor,
) -> Tensor:
    inner = products(products.matrix(feature), weight.T).view(feature.shape)
    inner += stack.at_source(source)
    inner += stack.at_target(target)
    return inner
