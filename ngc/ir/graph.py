"""The neural graph without weights: node table, edge blocks, and the layout of edge features.

Nodes are contiguous by group; edges come in dense bipartite blocks. Every numeric entry is a slot
(``ir/slots.py``), so binding weights is a gather and lifting them back is the inverse scatter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

from ngc.ir.program import Ints
from ngc.ir.slots import ONE, ZERO, Slots

# Categories: a node or edge stores the place of its category in these lists. New ones go at the
# end, since files and trained models hold the numbers.
NODE_KINDS = (
    "input", "sum", "norm", "product", "maximum", "minimum", "select", "reduce", "gather", "order",
    "compare", "token", "position", "constant", "parameter", "flatten", "attention",
)  # fmt: skip
NODE_ROLES = ("input", "hidden", "output")
EDGE_KINDS = (
    "linear", "convolution", "convolution_transpose", "embedding", "scale", "norm", "identity",
    "product", "linear_positions", "convolution_positions", "convolution_transpose_positions",
    "positional", "token", "divide", "reciprocal", "negative", "quotient", "base", "exponent",
    "condition", "maximum", "minimum", "operand", "pool", "reduce", "gather", "mix",
    "position_bias", "position_sub_bias", "position_mean", "position_var", "position_slope",
    "flatten", "attention", "recurrent", "initial",
)  # fmt: skip
POOLS = ("none", "max", "mean", "sum", "min", "lp", "other")
ACTIVATIONS = (
    "none", "relu", "gelu", "tanh", "sigmoid", "leaky_relu", "silu", "sin", "elu", "selu", "celu",
    "softplus", "softsign", "hard_sigmoid", "hard_swish", "mish", "gelu_tanh", "prelu", "softmax",
    "log_softmax", "hardmax", "exp", "log", "sqrt", "abs", "clip", "power", "erf", "cos", "swish",
    "thresholded_relu", "shrink", "reciprocal", "sign", "other",
)  # fmt: skip

# Columns of the node scalars, and the slot that stands for "has none".
SCALARS = ("bias", "mean", "var", "slope", "query_bias", "key_bias")
NO_SCALAR = (ZERO, ZERO, ONE, ZERO, ZERO, ZERO)

# Columns of an edge of kind attention -> column of the scalars of its target with their bias.
TRIPLE = {"query": "query_bias", "key": "key_bias", "value": "bias"}


@dataclass(frozen=True, eq=False)
class Nodes:
    """The node table, one row a node.

    ``kind``, ``role``, ``activation``, ``pool``: categories (places in the lists above);
    ``layer``: longest path from a source; ``position_id``: one number per hidden layer, a number of
    its own for each input and output neuron; ``place``: position [n, 2] (row, column) of a node
    copied per position, else -1; ``scalars`` [n, 6]: slots of SCALARS; ``op``: operation it comes
    from; ``neuron``: granular neuron whose value the node holds (a copy: at its place).
    """

    kind: np.ndarray
    role: np.ndarray
    activation: np.ndarray
    pool: np.ndarray
    layer: np.ndarray
    position_id: np.ndarray
    place: np.ndarray
    scalars: np.ndarray
    op: np.ndarray
    neuron: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, picked: np.ndarray) -> Nodes:
        return Nodes(*(getattr(self, f.name)[picked] for f in fields(self)))

    def joined(self, other: Nodes) -> Nodes:
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return Nodes(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True, eq=False)
class NodeGroup:
    """Nodes ``start`` to ``start + size``: one layer's neurons, alike in kind and activation."""

    name: str
    start: int
    size: int


@dataclass(frozen=True, eq=False)
class EdgeBlock:
    """All pairs of src [g, i] and dst [g, o], group by group; ``slots`` [g, o, i, k] are the edges'
    kernels, k = prod(kernel). Edges are numbered in the order of (g, o, i). ``recurrent``: they are
    read in the next step of a loop."""

    name: str
    op: int
    kind: str
    src: np.ndarray
    dst: np.ndarray
    slots: Slots
    kernel: Ints
    reverse: bool = False
    recurrent: bool = False

    @property
    def category(self) -> int:
        """Place in EDGE_KINDS."""
        return EDGE_KINDS.index("recurrent" if self.recurrent else self.kind)

    @property
    def num_edges(self) -> int:
        return self.dst.shape[0] * self.dst.shape[1] * self.src.shape[1]

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    def edge_index(self) -> np.ndarray:
        """[2, edges]: source and target node of each edge."""
        ends = np.empty((2, self.num_edges), dtype=np.int64)
        self.write_edges(ends)
        return ends

    def write_edges(self, ends: np.ndarray) -> None:
        """Write the source and target node of each edge into ends [2, edges]."""
        src, dst = ends[::-1] if self.reverse else ends
        grid = (*self.dst.shape, self.src.shape[1])
        for row, nodes in ((src, self.src[:, None, :]), (dst, self.dst[:, :, None])):
            row.reshape(grid)[...] = nodes  # a slice of a row is contiguous: reshape is a view

    def renumbered(self, number: np.ndarray) -> EdgeBlock:
        """The block between the nodes ``number[src]`` and ``number[dst]``."""
        return replace(self, src=number[self.src], dst=number[self.dst])

    def pick(self, groups: np.ndarray) -> EdgeBlock:
        """The block with only some of its groups."""
        return replace(
            self, src=self.src[groups], dst=self.dst[groups], slots=self.slots.along(0, groups)
        )


@dataclass(frozen=True)
class Layout:
    """How kernels lie in the columns of a padded edge feature.

    ``kernel`` is the common kernel size; smaller kernels sit in its centre. ``linear_column``: a
    kernel of one weight from a Linear has a column of its own, the last. ``attention``: a (query,
    key, value) has three of its own, after those of kernels. ``directions`` is 3 where an edge
    carries (own weight, weight of the opposite edge, their sum), else 1.
    """

    kernel: Ints
    linear_column: bool = False
    directions: int = 1
    attention: bool = False

    @property
    def width(self) -> int:
        """Columns for one direction."""
        return math.prod(self.kernel) + len(TRIPLE) * self.attention + self.linear_column

    def columns(self, block: EdgeBlock) -> np.ndarray:
        """[k]: the column of each entry of the block's kernel."""
        if self.linear_column and block.kind == "linear" and block.taps == 1:
            return np.array([self.width - 1])
        if block.kind == "attention":
            return math.prod(self.kernel) + np.arange(len(TRIPLE))
        kernel = aligned(block.kernel, len(self.kernel))
        # Centred: an even remainder is split, an odd one leaves the extra column at the end.
        starts = [(big - small) // 2 for big, small in zip(self.kernel, kernel)]
        grid = np.ix_(*(s + np.arange(n) for s, n in zip(starts, kernel)))
        return np.ravel_multi_index(grid, self.kernel).reshape(-1) if self.kernel else np.array([0])


def aligned(kernel: Ints, rank: int) -> Ints:
    """A kernel size with leading ones up to the rank."""
    kernel = tuple(n for n in kernel)
    while len(kernel) > rank and 1 in kernel:
        kernel = tuple(n for k, n in enumerate(kernel) if k != kernel.index(1))
    return (1,) * (rank - len(kernel)) + kernel


@dataclass(frozen=True, eq=False)
class FusedHeads:
    """Attention of which each head and inner dimension is one node: granular neurons [heads, inner]
    of its query, key, value and result. The node holds the result. ``op`` computes it."""

    op: int
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    result: np.ndarray


@dataclass(frozen=True, eq=False)
class Graph:
    """A neural graph without weights. ``layout`` is None until the kernel pass, and stays None
    where edges keep their kernels ragged. ``fused``: attention with one node for each head and
    inner dimension; ``unfused``: why other attention is not, operation by operation;
    ``written_out``: why loops, or their first steps, have neurons of their own."""

    name: str
    nodes: Nodes
    blocks: tuple[EdgeBlock, ...]
    groups: tuple[NodeGroup, ...] = ()
    layout: Layout | None = None
    reverse: str = "none"
    fused: tuple[FusedHeads, ...] = ()
    unfused: tuple[str, ...] = ()
    written_out: tuple[str, ...] = ()

    @property
    def num_nodes(self) -> int:
        return len(self.nodes)

    @property
    def num_edges(self) -> int:
        return sum(block.num_edges for block in self.blocks)

    @property
    def num_taps(self) -> int:
        """Entries of all kernels together."""
        return sum(block.num_edges * block.taps for block in self.blocks)

    def in_order(self) -> Iterator[EdgeBlock]:
        """Blocks by operation, then as they were made: every edge into a node comes before the
        edges out of it."""
        return iter(sorted(self.blocks, key=lambda block: block.op))


def category(names: tuple[str, ...], name: str, default: str = "") -> int:
    """Place of a category in its list."""
    return names.index(name if name in names or not default else default)
