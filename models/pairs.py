"""How NG-T sees the neurons of a graph: as all pairs (i, j), i the target and j the source.

A pair carries a feature e_ij: the encoding of the kernel from j to i, of a kernel of zeros where no
edge runs. The transformer needs four things of the pairs: to encode them, to attend over them, to
update them, and to read edges out. Both forms offer these, with the same numbers (to rounding): the
chunked one (``chunked_pairs.py``) is the fast one, the direct one (``direct_pairs.py``) writes the
formulas down as they are.

Memory: pairs are dense, so features of e numbers and the attention of h heads take 4 (e + h) n^2
bytes for a graph of n neurons. ``ChunkedPairs`` keeps these for each layer in training
(``pair_bytes``) and nothing else that grows with n^2; temporaries are those of one chunk for each
thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ngc.backends.graphs import GraphBatch, Part, Structure
from ngc.errors import OptionError

GIB = 2**30


@dataclass(frozen=True)
class Kernels:
    """How kernels are encoded: linear features (``weight``, ``bias``) of the kernel, or of its
    random Fourier features with ``frequencies`` [width, f]."""

    frequencies: Tensor | None
    weight: Tensor
    bias: Tensor

    def of_zero(self) -> Tensor:
        """The encoding of a kernel of zeros, [e]."""
        if self.frequencies is None:
            return self.bias
        # The sine of zero is zero, its cosine one.
        return self.bias + self.weight[:, self.frequencies.shape[1] :].sum(1)


@dataclass(frozen=True)
class AttentionMaps:
    """Linear maps [attention, e] of the pairs: added to queries and keys, shift and scale of the
    values (paper, Eq. 5)."""

    query: Tensor
    key: Tensor
    shift: Tensor
    scale: Tensor
    heads: int

    @property
    def temperature(self) -> float:
        """Of the scores: 1 / sqrt(attention), over all heads together."""
        return float(len(self.query) ** -0.5)


@dataclass(frozen=True)
class UpdateMaps:
    """Weights of the edge update: e' = N1(e_ij + W_out g(W_edges [e_ij, e_ji] + s_j + t_i)), then
    N2(e' + W_second g(W_first e')), g = GELU, N a LayerNorm [scale, shift]. Dropout at ``rate``
    before each sum."""

    edges: Tensor
    out: Tensor
    out_bias: Tensor
    norm: tuple[Tensor, Tensor]
    first: Tensor
    second: Tensor
    second_bias: Tensor
    second_norm: tuple[Tensor, Tensor]
    rate: float

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.edges, self.out, self.out_bias, *self.norm,
                self.first, self.second, self.second_bias, *self.second_norm)  # fmt: skip


@dataclass(frozen=True, eq=False)
class EdgePairs:
    """The pairs of an architecture that have an edge.

    ``place`` [pairs], ascending: among all pairs in the order (i, j); ``other``: the place of a
    pair without an edge, None if there is none; ``of_edge`` [e]: which pair each edge is of.
    Parallel edges are one pair, and their kernels are added: x + conv(x) is the convolution with
    the sum of the two centred kernels.
    """

    place: Tensor
    other: int | None
    of_edge: Tensor
    num_nodes: int

    @classmethod
    def of(cls, structure: Structure) -> EdgePairs:
        return structure.keep("edge_pairs", lambda: cls._of(structure))  # type: ignore[no-any-return]

    @classmethod
    def _of(cls, structure: Structure) -> EdgePairs:
        nodes = structure.num_nodes
        source, target = structure.features["edge_index"]
        place, of_edge = torch.unique(target * nodes + source, return_inverse=True)
        gaps = (place != torch.arange(len(place), device=place.device)).nonzero()
        other = int(gaps[0]) if len(gaps) else len(place)
        return cls(place, other if other < nodes**2 else None, of_edge, nodes)

    @property
    def target(self) -> Tensor:
        return self.place // self.num_nodes

    @property
    def source(self) -> Tensor:
        return self.place % self.num_nodes

    def kernels(self, part: Part) -> Tensor:
        """[graphs, pairs, width]."""
        zero = part.edges.new_zeros(len(part), len(self.place), part.structure.width)
        return zero.index_add(1, self.of_edge, part.edges)


class Pairs(ABC):
    """The pairs of the graphs of one part. Features are [graphs, i, j, e]; a form may leave out
    those that nothing reads."""

    @abstractmethod
    def encode(self, kernels: Kernels) -> Tensor:
        """Features of all pairs."""

    @abstractmethod
    def targets(self, layer: int) -> Tensor | None:
        """Which nodes attend in a layer; None for all."""

    @abstractmethod
    def attend(
        self,
        layer: int,
        pairs: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        maps: AttentionMaps,
    ) -> Tensor:
        """sum_j a_ij (scale_ij * v_j + shift_ij) [graphs, targets, attention], a = softmax over all
        j of the scores (q_i + query_ij) (k_j + key_ij) in each head. query [graphs, targets,
        attention], key and value [graphs, n, attention]."""

    @abstractmethod
    def update(
        self, layer: int, pairs: Tensor, source: Tensor, target: Tensor, maps: UpdateMaps
    ) -> Tensor:
        """Features after the edge update that follows a layer; source, target [graphs, n, h]."""

    @abstractmethod
    def read_edges(self, pairs: Tensor) -> Tensor:
        """Features of the edges after the last layer, [graphs, edges, e]."""


def pair_bytes(graphs: int, nodes: int, width: int, layers: int, training: bool) -> int:
    """Bytes of pairs that a part needs, each of ``width`` numbers, features and heads: a tensor for
    each layer, and three for gradients; without gradients three in all."""
    return 4 * graphs * nodes**2 * width * (layers + 3 if training else 3)


def check_memory(batch: GraphBatch, width: int, layers: int, limit: float) -> None:
    """Refuse a batch whose pairs take more than ``limit`` GiB."""
    training = torch.is_grad_enabled()
    sizes = [(len(part), part.structure.num_nodes) for part in batch.parts]
    needed = sum(pair_bytes(*size, width, layers, training) for size in sizes) / GIB
    if needed > limit:
        largest = max(nodes for _, nodes in sizes)
        raise OptionError(
            f"the pairs of neurons of {len(batch)} graphs, the largest with {largest}, take "
            f"{needed:.3g} GiB; pair_memory allows {limit:g}",
            hint="a smaller batch, a larger pair_memory, or ng_gnn, whose memory goes by edges",
        )
