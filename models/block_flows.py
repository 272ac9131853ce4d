"""Which blocks a network of blocks works on: the blocks of a batch in both directions, those of the
same size in one stack, whatever architectures they belong to.

Layers of one size are common among architectures: CNN Wild Park has 28 sizes. So a batch of 64
architectures is a few dozen stacks, where it is 900 blocks.

What a layer computes is also bounded by what is read later: where only output neurons are read,
blocks that cannot reach them in the remaining layers are left out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from ngc.backends.graphs import Block, Ends, GraphBatch, Structure

Grid = tuple[int, int, int]
KEPT = 4  # sizes of batches of one architecture whose stacks are kept


@dataclass(frozen=True, eq=False)
class Flow:
    """A block in one direction: messages from ``source`` to ``target``, nodes [g, k] of a graph.
    It is read in the first ``life`` layers."""

    block: Block
    reverse: bool
    target: np.ndarray
    source: np.ndarray
    life: int

    @property
    def alike(self) -> tuple[Grid, bool]:
        """Flows of one stack have this in common."""
        return self.block.grid, self.reverse


@dataclass(frozen=True, eq=False)
class Member:
    """The flow of one architecture in a stack: its rows there, those of the graphs of a part."""

    part: int
    flow: Flow
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Stack:
    """Flows of one grid and direction, [many, g, out, in] edges. ``target`` [many, g, out] and
    ``source`` [many, g, in] (exchanged where reversed): rows of the nodes in the batch. In layer k
    the first ``counts[k]`` of the stack are read."""

    grid: Grid
    reverse: bool
    members: tuple[Member, ...]
    target: Tensor
    source: Tensor
    counts: tuple[int, ...]

    @property
    def axis(self) -> int:
        """Messages are reduced over this axis of [many, g, out, in, d]."""
        return 2 if self.reverse else 3

    @property
    def degree(self) -> int:
        """Edges into each target."""
        return self.grid[self.axis - 1]

    def at_target(self, rows: Tensor) -> Tensor:
        """rows [many, g, k, d] of the target nodes, to broadcast over the edges."""
        return rows.unsqueeze(self.axis)

    def at_source(self, rows: Tensor) -> Tensor:
        """rows [many, g, k, d] of the source nodes, to broadcast over the edges."""
        return rows.unsqueeze(5 - self.axis)

    def runs(self) -> list[tuple[tuple[int, ...], bool, list[Member]]]:
        """Members one after another that have the same columns of the kernel, those that nothing
        reads left out: (columns, whether they are those of linear layers, members)."""
        alive = [member for member in self.members if member.flow.life]
        alike = groupby(alive, lambda m: (m.flow.block.columns, m.flow.block.separate))
        return [(*key, list(members)) for key, members in alike]


@dataclass(frozen=True, eq=False)
class Stacks:
    """All stacks of a batch of ``num_nodes`` nodes, and the rows of its nodes in them."""

    stacks: tuple[Stack, ...]
    num_nodes: int

    @classmethod
    def of_batch(cls, batch: GraphBatch, layers: int, outputs_only: bool) -> Stacks:
        """``layers`` and ``outputs_only`` say what is ever read. Those of a batch of one
        architecture are kept."""
        if len(batch.parts) > 1:
            return cls._of(batch, layers, outputs_only)
        kept = batch.parts[0].structure.keep("stacks", OrderedDict)
        key = (len(batch), layers, outputs_only)
        if key not in kept:
            kept[key] = cls._of(batch, layers, outputs_only)
        kept.move_to_end(key)
        if len(kept) > KEPT:
            kept.popitem(last=False)
        return kept[key]  # type: ignore[no-any-return]

    @classmethod
    def _of(cls, batch: GraphBatch, layers: int, outputs_only: bool) -> Stacks:
        found: dict[tuple[Grid, bool], list[tuple[int, Flow]]] = {}
        for part, of_part in enumerate(batch.parts):
            for flow in flows_of(of_part.structure, layers, outputs_only):
                found.setdefault(flow.alike, []).append((part, flow))
        sizes = [len(part) for part in batch.parts]
        nodes = [part.structure.num_nodes for part in batch.parts]
        first = np.cumsum([0, *(size * many for size, many in zip(sizes, nodes))])
        graphs = [start + np.arange(size) * many for start, size, many in zip(first, sizes, nodes)]
        stacks = tuple(
            _stack(alike, flows, graphs, layers + 1, batch.device) for alike, flows in found.items()
        )
        return cls(stacks, int(first[-1]))

    def live(self, layer: int) -> tuple[int, ...]:
        """How many of each stack are read in a layer."""
        return tuple(stack.counts[layer] for stack in self.stacks)

    @cached_property
    def _joins(self) -> dict[tuple[bool, tuple[int, ...]], Join]:
        return {}

    def join(self, layer: int, targets: bool) -> Join:
        """Of what is read in a layer, at the target or the source nodes."""
        key = targets, self.live(layer)
        if key not in self._joins:
            ends = [
                (stack.target if targets else stack.source)[:count].reshape(-1)
                for stack, count in zip(self.stacks, key[1])
            ]
            degrees = [stack.degree for stack in self.stacks]
            self._joins[key] = Join.of(ends, degrees, self.num_nodes)
        return self._joins[key]


def _stack(
    alike: tuple[Grid, bool],
    flows: list[tuple[int, Flow]],
    graphs: list[np.ndarray],
    layers: int,
    device: torch.device,
) -> Stack:
    # What is read longest comes first, so that each layer reads a run of rows.
    flows.sort(key=lambda pair: (-pair[1].life, pair[1].block.columns))
    members, start = [], 0
    for part, flow in flows:
        stop = start + len(graphs[part])
        members.append(Member(part, flow, start, stop))
        start = stop
    ends = [
        np.concatenate([graphs[part][:, None, None] + getattr(flow, end) for part, flow in flows])
        for end in ("target", "source")
    ]
    counts = tuple(sum(len(graphs[part]) for part, flow in flows if flow.life > layer)
                   for layer in range(layers))  # fmt: skip
    target, source = (torch.from_numpy(rows).to(device) for rows in ends)
    return Stack(*alike, tuple(members), target, source, counts)


def flows_of(structure: Structure, layers: int, outputs_only: bool) -> list[Flow]:
    """Every block forwards; then, where the graphs have reversed edges, every block backwards."""
    key = ("flows", layers, outputs_only)
    return structure.keep(key, lambda: _flows(structure, layers, outputs_only))  # type: ignore[no-any-return]


def _flows(structure: Structure, layers: int, outputs_only: bool) -> list[Flow]:
    directions = (False,) if structure.reverse == "none" else (False, True)
    pairs = [(block, back) for back in directions for block in structure.blocks]
    ends = [_ends(block.src, block.dst) if back else _ends(block.dst, block.src)
            for block, back in pairs]  # fmt: skip
    lives = [layers + 1] * len(pairs)
    if outputs_only:
        needed = np.zeros(structure.num_nodes, dtype=bool)
        needed[structure.outputs.cpu().numpy()] = True
        lives = [0] * len(pairs)
        for layer in reversed(range(layers)):
            chosen = [k for k, (target, _) in enumerate(ends) if needed[target].any()]
            for k in chosen:
                lives[k] = max(lives[k], layer + 1)
                needed[ends[k][1]] = True
    return [Flow(*pair, *of_pair, life) for pair, of_pair, life in zip(pairs, ends, lives)]


def _ends(target: Ends, source: Ends) -> tuple[np.ndarray, np.ndarray]:
    return target.nodes.cpu().numpy(), source.nodes.cpu().numpy()


@dataclass(frozen=True, eq=False)
class Join:
    """Rows of several stacks, one after another, joined node by node.

    ``order`` [rows]: the rows sorted so that nodes with as many rows are together; ``groups``:
    (rows of a node, number of such nodes); ``place`` [nodes]: of each node among these, the one
    after the last for nodes without a row. ``degree`` [nodes, 1]: edges into each, at least 1;
    ``degrees`` [rows, 1]: of those, how many are in each row.
    """

    order: Tensor
    groups: tuple[tuple[int, int], ...]
    place: Tensor
    degree: Tensor
    degrees: Tensor
    nodes: Tensor

    @classmethod
    def of(cls, ends: Sequence[Tensor], degrees: Sequence[int], num_nodes: int) -> Join:
        """``ends``: the node of each row of each stack; ``degrees``: edges into a row of each."""
        nodes = torch.cat(list(ends))
        counts = torch.bincount(nodes, minlength=num_nodes)
        rows = torch.cat([e.new_full((len(e),), n) for e, n in zip(ends, degrees)]).float()
        degree = rows.new_zeros(num_nodes).index_add_(0, nodes, rows)
        order = torch.argsort(counts[nodes] * num_nodes + nodes)
        by_count = torch.argsort(counts, stable=True)
        many, of_each = torch.unique(counts[counts > 0], return_counts=True)
        without = int((counts == 0).sum())
        place = torch.empty_like(by_count)
        place[by_count] = torch.arange(num_nodes, device=place.device) - without
        place = torch.where(counts > 0, place, num_nodes - without)
        groups = tuple(zip(many.tolist(), of_each.tolist()))
        return cls(order, groups, place, degree.clamp(min=1)[:, None], rows[:, None], nodes)

    def sum(self, rows: Tensor) -> Tensor:
        """rows [rows, d] -> sums [nodes, d]."""
        return self._reduced(rows, lambda piece: piece.sum(1))

    def least(self, rows: Tensor) -> Tensor:
        """Minima; zero at nodes without a row."""
        return self._reduced(rows, lambda piece: piece.amin(1))

    def most(self, rows: Tensor) -> Tensor:
        """Maxima; zero at nodes without a row."""
        return self._reduced(rows, lambda piece: piece.amax(1))

    def _reduced(self, rows: Tensor, reduce) -> Tensor:  # type: ignore[no-untyped-def]
        sorted_rows, pieces, start = rows.index_select(0, self.order), [], 0
        for each, many in self.groups:
            stop = start + each * many
            piece = sorted_rows[start:stop]
            pieces.append(piece if each == 1 else reduce(piece.unflatten(0, (many, each))))
            start = stop
        pieces.append(rows.new_zeros(1, rows.shape[1]))
        return torch.cat(pieces).index_select(0, self.place)
