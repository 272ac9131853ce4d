"""How a layer sees the edges of a batch: as dense blocks, or as lists.

A graph network needs few things of the edges: to encode their weights, to reduce messages into the
nodes, to update edge features, and to read them out. Both forms offer these, with the same numbers
(to rounding); layers are written once against them. The block form (``block_edges.py``) is the fast
one; the list form (``list_edges.py``) is the plain PyG one, and the reference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Variance below which a deviation counts as none; it keeps the square root differentiable.
EPSILON = 1e-5

EdgeFeatures = Any  # of a form's own kind: a tensor of rows, or a tensor for each block


@dataclass(frozen=True)
class Encoding:
    """Linear features (``weight`` [d, k], ``bias``) of columns ``start`` to ``stop`` of a kernel in
    all its directions, or of their random Fourier features with ``frequencies``
    [directions * columns, f]."""

    start: int
    stop: int
    frequencies: Tensor | None
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Reduced:
    """Messages reduced into each node, [nodes, d] each; zero where no edge comes in."""

    mean: Tensor
    minimum: Tensor
    maximum: Tensor
    deviation: Tensor


@dataclass(frozen=True)
class EdgeMlp:
    """Weights of e' = W_out act(W_e e + source + target) + b_out, act = SiLU. The linear maps of
    the node features are done once per node, before."""

    weight: Tensor
    weight_out: Tensor
    bias_out: Tensor


class Topology(ABC):
    """The edges of a batch. Node features are rows [nodes, d] in the order of the batch."""

    @abstractmethod
    def encode(self, kernel: Encoding, linear: Encoding | None) -> EdgeFeatures:
        """Features of the edges; ``linear`` is for those of linear layers, where they have a column
        of their own."""

    @abstractmethod
    def reduce(
        self,
        layer: int,
        edges: EdgeFeatures,
        target: Tensor,
        source: Tensor,
        film: tuple[Tensor, Tensor],
    ) -> Reduced:
        """Messages scale * (target_i + source_j) + shift reduced over j (paper, Eq. 4), where
        [scale, shift] = film weight @ edge + film bias."""

    @abstractmethod
    def update(
        self, layer: int, edges: EdgeFeatures, source: Tensor, target: Tensor, mlp: EdgeMlp
    ) -> EdgeFeatures:
        """Edge features after one edge update (Eq. 3)."""

    @abstractmethod
    def read_edges(self, edges: EdgeFeatures) -> Sequence[Tensor]:
        """Features of the edges without their reversed twins, [graphs, e, d] for each part."""


def fourier(values: Tensor, frequencies: Tensor) -> Tensor:
    """Random Fourier features [..., 2 f] of values [..., k]: sines, then cosines of
    2 pi values @ frequencies (Tancik et al. 2020). Never in low precision: angles are many radians
    wide."""
    with torch.autocast(values.device.type, enabled=False):
        angles = values @ (2 * torch.pi * frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
