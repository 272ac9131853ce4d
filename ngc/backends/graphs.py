"""What learned models read: a batch of neural graphs as dense blocks, or as edge lists.

Compiled edges come in dense bipartite blocks, so that a model can broadcast over [graphs, g, out,
in] where edge lists make it gather and scatter. Graphs of one architecture form a ``Part``; a batch
has a part for each architecture in it. Built by ``ngc.backends.blocks``.

Nodes of a batch are rows: the graphs of the first part one after another, then those of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from ngc.backends.schema import BY_NAME

Shapes = tuple[tuple[int, ...], ...]


def shapes_text(shapes: Shapes) -> str:
    """[1, 2] and [1, 3]"""
    return " and ".join(str(list(shape)) for shape in shapes)


@dataclass(frozen=True, eq=False)
class Ends:
    """The nodes at one side of a block, [g, k]; a run of consecutive ones is read as a view."""

    nodes: Tensor
    start: int | None  # of a consecutive run, None if they are not one

    @classmethod
    def of(cls, nodes: Tensor) -> Ends:
        flat = nodes.reshape(-1)
        first = int(flat[0]) if len(flat) else 0
        run = bool((flat == torch.arange(first, first + len(flat), device=flat.device)).all())
        return cls(nodes, first if run else None)

    def read(self, values: Tensor) -> Tensor:
        """values [graphs, n, d] at these nodes, [graphs, g, k, d]."""
        if self.start is None:
            return values[:, self.nodes]
        return values[:, self.start : self.start + self.nodes.numel()].unflatten(
            1, tuple(self.nodes.shape)
        )


@dataclass(frozen=True, eq=False)
class Block:
    """All pairs of src [g, i] and dst [g, o]: edges ``start`` to ``stop`` of the graph.

    ``columns``: those of the padded kernel that it fills, the others are zeros; ``separate``: it is
    the last one alone, that of linear layers."""

    src: Ends
    dst: Ends
    start: int
    stop: int
    kind: int
    columns: tuple[int, ...]
    separate: bool = False

    @property
    def grid(self) -> tuple[int, int, int]:
        """(g, out, in): the order of its edges."""
        return (*self.dst.nodes.shape, self.src.nodes.shape[1])  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Structure:
    """What all graphs of one architecture share.

    ``features``: the rows of the feature table that do not depend on weights, of nodes [n, ...] and
    of the edges without their reversed twins [e, ...]; ``rank`` [n]: place of a node among those of
    its role (inputs and outputs one by one, hidden neurons by layer); ``blocks``: the edges;
    ``width``: columns of a kernel, the last one for linear layers alone if ``linear_column``;
    ``reverse``: as in the options; ``weight_mask`` [e, width] and
    ``scalar_mask`` [n, 6]: which entries are parameters (the others are the constants 0 and 1).
    """

    key: str
    features: dict[str, Tensor]
    rank: Tensor
    blocks: tuple[Block, ...]
    width: int
    linear_column: bool
    reverse: str
    weight_mask: Tensor
    scalar_mask: Tensor
    kept: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def num_nodes(self) -> int:
        return len(self.rank)

    @property
    def num_edges(self) -> int:
        """Edges without their reversed twins."""
        return self.features["edge_index"].shape[1]

    @cached_property
    def depth(self) -> int:
        """Layers of weights: edges on the longest way from an input neuron."""
        return int(self.features["layer"].max())

    @cached_property
    def outputs(self) -> Tensor:
        """The output neurons, in order."""
        role = self.features["node_role"]
        return (role == ROLE_OUTPUT).nonzero().squeeze(-1)

    @cached_property
    def degree(self) -> Tensor:
        """[n]: edges into each node, reversed ones included."""
        source, target = self.features["edge_index"]
        ends = target if self.reverse == "none" else torch.cat([target, source])
        return torch.bincount(ends, minlength=self.num_nodes)

    def keep(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make`` returns; made once for this architecture."""
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


@dataclass(frozen=True, eq=False)
class Edits:
    """Predicted changes, for each part of a batch: of the node scalars [graphs, n, 6], and of the
    kernels [graphs, e, width]."""

    nodes: tuple[Tensor, ...]
    edges: tuple[Tensor, ...]


ROLE_OUTPUT = BY_NAME["node_role"].categories.index("output")


class Activations(Protocol):
    """Networks that can be run on probe inputs, and their ``weights`` [graphs, slots]."""

    @property
    def weights(self) -> Tensor: ...

    def on(self, weights: Tensor, /) -> Activations:
        """Networks of the same architecture with other weights."""
        ...

    @property
    def num_values(self) -> int:
        """How many numbers one network computes for one probe."""
        ...

    def __call__(self, inputs: Sequence[Tensor], /) -> Tensor:
        """[m, *shape] for each input of the networks -> values of the nodes, [graphs, n, m]."""
        ...

    def answers(self, inputs: Sequence[Tensor], /) -> Tensor:
        """The same of the output neurons alone, [graphs, outputs, m]."""
        ...

    def mismatch(self, shapes: Shapes, /) -> str:
        """What the networks read in place of probes of these shapes; nothing where they fit."""
        ...


@dataclass(frozen=True, eq=False)
class Part:
    """Graphs of one architecture: ``x`` [graphs, n, 6] and ``edges`` [graphs, e, width].

    ``activations`` runs the networks themselves on probe inputs (paper, Eq. 2).
    """

    structure: Structure
    x: Tensor
    edges: Tensor
    activations: Activations | None = None

    def __len__(self) -> int:
        return len(self.x)

    def values(self, block: Block) -> Tensor:
        """Kernels of a block's edges, [graphs, g, out, in, width]."""
        return self.edges[:, block.start : block.stop].unflatten(1, block.grid)


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Graphs of several architectures. ``order`` [graphs]: which row of the parts, one after
    another, graph k is; results of models come in the order of the graphs. ``told``
    [graphs, columns]: what a table says of each network."""

    parts: tuple[Part, ...]
    order: Tensor
    told: Tensor | None = None

    def __len__(self) -> int:
        return len(self.order)

    @property
    def num_nodes(self) -> int:
        return sum(len(part) * part.structure.num_nodes for part in self.parts)

    @property
    def device(self) -> torch.device:
        return self.order.device

    def restored(self, rows: list[Tensor]) -> Tensor:
        """One row a graph, part by part -> in the order of the graphs."""
        return torch.cat(rows)[self.order] if len(rows) > 1 else rows[0][self.order]

    def split(self, rows: Tensor) -> list[Tensor]:
        """rows [nodes, ...] of the batch -> [graphs, n, ...] of each part."""
        sizes = [len(part) * part.structure.num_nodes for part in self.parts]
        return [
            piece.unflatten(0, (len(part), part.structure.num_nodes))
            for part, piece in zip(self.parts, rows.split(sizes))
        ]

    def rows(self, name: str) -> Tensor:
        """A feature of the nodes that weights do not change, [nodes, ...]."""
        pieces = [
            _repeated(part.structure.rank if name == "rank" else
                      part.structure.degree if name == "degree" else
                      part.structure.features[name], len(part))
            for part in self.parts
        ]  # fmt: skip
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    @property
    def x(self) -> Tensor:
        """Node scalars [nodes, 6]."""
        return torch.cat([part.x.flatten(0, 1) for part in self.parts])

    @cached_property
    def graph_of(self) -> Tensor:
        """[nodes]: which graph, in the order of the batch, each node belongs to."""
        inverse = torch.empty_like(self.order)
        inverse[self.order] = torch.arange(len(self), device=self.device)
        sizes = torch.cat(
            [self.order.new_full((len(p),), p.structure.num_nodes) for p in self.parts]
        )
        return inverse.repeat_interleave(sizes)


def _repeated(rows: Tensor, times: int) -> Tensor:
    return rows.expand(times, *rows.shape).flatten(0, 1)
