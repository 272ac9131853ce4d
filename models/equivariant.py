"""Layers between weight spaces that respect every permutation of neurons, and heads on them.

Two members of a weight space share the set axes of neurons that both touch: a weight both axes with
itself, one with its neighbours and their biases, none with those farther away. The linear maps from
one to the other that commute with every permutation are spanned by one for each subset of the
shared axes: sum over all source axes but these, copy along all target axes but these. So there are
2^shared of them, times the channels in and out, and a constant for each target channel (Navon et
al. 2023; Zhou et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ngc.errors import OptionError
from ngc.models.layers import EditScale, Layers
from ngc.models.perceptron import perceptron
from ngc.models.weight_space import Axes, Features, WeightSpace

POOLS = ("mean", "sum", "max")


class WeightSpaceLinear(nn.Module):
    """All equivariant affine maps of a weight space, [graphs, *axes, channels] for each member.

    ``pool``: sums over axes, divided by their lengths (mean) or not, make the map linear; max does
    not, and is what DWSNets use by default. For each subset of axes there is one map of the joined
    channels of all members that have it.
    """

    def __init__(self, space: WeightSpace, read: Features, write: Features, pool: str) -> None:
        super().__init__()
        if pool not in POOLS:
            raise OptionError(f"pool cannot be {pool!r}", hint=f"one of {', '.join(POOLS)}")
        self.space, self.pool = space, pool
        self.sizes = [
            [space.members[k].channels(write) for k in space.having(axes)] for axes in space.subsets
        ]
        self.maps = nn.ModuleList(
            nn.Linear(
                sum(space.members[k].channels(read) for k in space.having(axes)),
                sum(sizes),
                bias=not axes,
            )
            for axes, sizes in zip(space.subsets, self.sizes)
        )
        self._draw()

    @torch.no_grad()
    def _draw(self) -> None:
        """Kaiming uniform; the terms that a member is the sum of have equal shares of its
        variance, so that the few entry-wise maps do not drown in the many pooled ones."""
        for axes, linear, sizes in zip(self.space.subsets, self.maps, self.sizes):
            assert isinstance(linear, nn.Linear)
            if linear.bias is not None:
                linear.bias.zero_()
            for k, rows in zip(self.space.having(axes), linear.weight.split(sizes)):
                terms = 2 ** len(self.space.members[k].axes)
                bound = (6 / (terms * linear.in_features)) ** 0.5
                rows.uniform_(-bound, bound)

    def forward(self, members: Sequence[Tensor]) -> list[Tensor]:
        pools = [Pools(x, m.axes, self.pool) for x, m in zip(members, self.space.members)]
        results: list[Tensor | None] = [None] * len(pools)
        for axes, linear, sizes in zip(self.space.subsets, self.maps, self.sizes):
            having = self.space.having(axes)
            joined = [pools[k].over_all_but(axes) for k in having]
            mapped = linear(joined[0] if len(joined) == 1 else torch.cat(joined, dim=-1))
            for k, piece in zip(having, mapped.split(sizes, dim=-1)):
                term = spread(piece, axes, self.space.members[k].axes)
                before = results[k]
                results[k] = term if before is None else before + term
        return [result for result in results if result is not None]


class Pools:
    """A member [graphs, *axes, channels] pooled over some of its axes; each pooling done once."""

    def __init__(self, values: Tensor, axes: Axes, how: str) -> None:
        self.axes, self.how = axes, how
        self.kept = {axes: values}

    def over_all_but(self, axes: Axes) -> Tensor:
        """[graphs, *axes, channels]"""
        if axes not in self.kept:
            # One axis at a time, the first of those to go last.
            gone = next(axis for axis in self.axes if axis not in axes)
            larger = tuple(axis for axis in self.axes if axis in axes or axis == gone)
            self.kept[axes] = pooled(self.over_all_but(larger), 1 + larger.index(gone), self.how)
        return self.kept[axes]


def pooled(values: Tensor, dim: int, how: str) -> Tensor:
    match how:
        case "max":
            return values.amax(dim)
        case "sum":
            return values.sum(dim)
        case _:
            return values.mean(dim)


def spread(values: Tensor, axes: Axes, target: Axes) -> Tensor:
    """[graphs, *axes, channels] with axes of length one where ``target`` has more."""
    for place, axis in enumerate(target, start=1):
        if axis not in axes:
            values = values.unsqueeze(place)
    return values


class GraphHead(nn.Module):
    """Every member pooled over all its set axes, joined -> MLP -> [graphs, outputs]."""

    def __init__(
        self,
        space: WeightSpace,
        read: Features,
        *hidden: int,
        outputs: int,
        pool: str,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.space, self.pool = space, pool
        joined = sum(member.channels(read) for member in space.members)
        self.mlp = perceptron(joined, *hidden, outputs, dropout=dropout)

    def forward(self, members: Sequence[Tensor]) -> Tensor:
        invariants = [
            Pools(x, member.axes, self.pool).over_all_but(())
            for x, member in zip(members, self.space.members)
        ]
        return self.mlp(torch.cat(invariants, dim=-1))


class EditHead(nn.Module):
    """A last layer to one change for every weight and bias, each layer's scaled."""

    def __init__(self, space: WeightSpace, read: Features, pool: str) -> None:
        super().__init__()
        self.space, self.write = space, Features(space.chain.taps, 1)
        self.last = WeightSpaceLinear(space, read, self.write, pool)
        self.scale = EditScale(space.chain)

    def forward(self, members: Sequence[Tensor]) -> Layers:
        weights, biases = self.space.unfold(self.last(members), self.write)
        return self.scale(Layers(weights, tuple(b[..., 0] for b in biases)))
