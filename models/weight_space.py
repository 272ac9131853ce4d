"""Weight spaces: all weights and biases of a chain of layers, under permutations of its neurons.

A weight space has a member for each weight matrix and each bias vector. The axes of a member run
over the neurons of a layer. Those that may be permuted are *set axes*; the others (inputs and
outputs of a network, where their order means something) are folded into the channels, so a member
is a tensor [graphs, *set axes, channels]. The linear maps between members are in ``equivariant``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from torch import Tensor

from ngc.models.layers import Chain

Axes = tuple[int, ...]  # layers of neurons, 0 for the inputs; of a weight: (out, in)


@dataclass(frozen=True)
class Features:
    """Numbers for each entry of a weight matrix, in each layer the same or one for each; and for
    each of a bias vector."""

    weight: int | tuple[int, ...]
    bias: int

    def of_weight(self, layer: int) -> int:
        return self.weight if isinstance(self.weight, int) else self.weight[layer]


@dataclass(frozen=True)
class Member:
    """``axes``: the set axes; ``copies``: entries folded into the channels, for each feature;
    ``layer``: of which, the first is 0."""

    axes: Axes
    copies: int
    is_weight: bool
    layer: int

    def channels(self, features: Features) -> int:
        of_entry = features.of_weight(self.layer) if self.is_weight else features.bias
        return self.copies * of_entry


@dataclass(frozen=True)
class WeightSpace:
    """``chain``: the networks; ``permuted``: layers of neurons whose order means nothing."""

    chain: Chain
    permuted: frozenset[int]

    @classmethod
    def of_hidden(cls, chain: Chain) -> WeightSpace:
        """Hidden neurons may be permuted, inputs and outputs may not."""
        return cls(chain, frozenset(range(1, len(chain.sizes))))

    @classmethod
    def of_all(cls, chain: Chain) -> WeightSpace:
        """Inputs and outputs may be permuted as well."""
        return cls(chain, frozenset(range(len(chain.sizes) + 1)))

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """The weights, first layer first, then the biases."""
        weights, biases = [], []
        for k, (out, into) in enumerate(self.chain.sizes, start=1):
            out_copies = 1 if k in self.permuted else out
            in_copies = 1 if k - 1 in self.permuted else into
            axes = tuple(axis for axis in (k, k - 1) if axis in self.permuted)
            weights.append(Member(axes, out_copies * in_copies, True, k - 1))
            out_axes = tuple(axis for axis in axes if axis == k)
            biases.append(Member(out_axes, out_copies, False, k - 1))
        return (*weights, *biases)

    @cached_property
    def subsets(self) -> tuple[Axes, ...]:
        """Every set of axes that some member has, small ones first."""
        found = {
            chosen
            for member in self.members
            for count in range(len(member.axes) + 1)
            for chosen in combinations(member.axes, count)
        }
        return tuple(sorted(found, key=lambda axes: (len(axes), axes)))

    def having(self, axes: Axes) -> tuple[int, ...]:
        """Places of the members that have these axes."""
        return tuple(k for k, member in enumerate(self.members) if set(axes) <= set(member.axes))

    def fold(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> list[Tensor]:
        """Weights [graphs, out, in, features] and biases [graphs, out, features] -> members."""
        swapped = [w.transpose(1, 2) if self._swaps(k) else w for k, w in enumerate(weights, 1)]
        return [
            x.flatten(1 + len(member.axes))
            for x, member in zip([*swapped, *biases], self.members, strict=True)
        ]

    def unfold(
        self, members: Sequence[Tensor], features: Features
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The inverse of ``fold``."""
        weights, biases = [], []
        for k, (out, into) in enumerate(self.chain.sizes, 1):
            shape = (into, out) if self._swaps(k) else (out, into)
            x = members[k - 1].reshape(-1, *shape, features.of_weight(k - 1))
            weights.append(x.transpose(1, 2) if self._swaps(k) else x)
            biases.append(members[len(self.chain.sizes) + k - 1].reshape(-1, out, features.bias))
        return tuple(weights), tuple(biases)

    def _swaps(self, k: int) -> bool:
        """Whether the set axis of weight k is its second one, and has to come first."""
        return k not in self.permuted and k - 1 in self.permuted
