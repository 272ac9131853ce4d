"""The plan: a compiled graph without weights, ready to bind any weights of its architecture.

``bind`` is a gather, differentiable and vectorised over a stack of weights; ``lift`` is the inverse
scatter. See docs/graph-features.md for the features.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ngc.backends.torch_kernels import reader
from ngc.errors import LiftError
from ngc.ir.graph import NO_SCALAR, EdgeBlock, Graph, aligned
from ngc.ir.program import Program
from ngc.ir.slots import FIRST_SLOT, ONE, ZERO, Slots
from ngc.options import Options

# Up to this many padded entries, all edges are gathered through one table of slots.
TABLE_ENTRIES = 20_000_000

# The structure of batches is kept for so many batch sizes: the usual one and the last, smaller one.
KEPT_BATCHES = 2

T = TypeVar("T")


@dataclass(eq=False)
class Plan:
    """Program, graph and options of one architecture; ``hash`` identifies it."""

    program: Program
    graph: Graph
    options: Options
    hash: str
    _cache: dict[tuple[str, torch.device], Tensor] = field(
        default_factory=dict, init=False, repr=False
    )
    _batches: OrderedDict[Hashable, Any] = field(
        default_factory=OrderedDict, init=False, repr=False
    )

    @property
    def num_nodes(self) -> int:
        return self.graph.num_nodes

    @property
    def num_edges(self) -> int:
        return self.graph.num_edges

    @property
    def padded(self) -> bool:
        """Whether kernels have one size (``edge_attr``) or are ragged (``edge_value``)."""
        return self.graph.layout is not None

    @property
    def edge_width(self) -> int:
        """Columns of ``edge_attr``."""
        layout = self.graph.layout
        assert layout is not None
        return layout.width * layout.directions

    # --- structure: the same for all weights ---

    def structure(self, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """All features that do not depend on the weights."""
        device = torch.device(device)
        names = ["node_kind", "node_role", "activation", "pool", "layer", "position_id", "place"]
        names += ["edge_index", "edge_kind", "kernel_size"]
        if not self.padded:
            names.append("edge_taps")
        if self.graph.reverse != "none":
            names.append("edge_reversed")
        return {name: self._kept(name, device) for name in names}

    def _kept(self, name: str, device: torch.device) -> Tensor:
        if (name, device) not in self._cache:
            self._cache[name, device] = self._made(name).to(device)
        return self._cache[name, device]

    def of_batch(self, key: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` returns, kept for the batch sizes (``key``) used last."""
        if key not in self._batches:
            self._batches[key] = make()
        self._batches.move_to_end(key)
        while len(self._batches) > KEPT_BATCHES:
            self._batches.popitem(last=False)
        return self._batches[key]

    def _made(self, name: str) -> Tensor:
        nodes, blocks = self.graph.nodes, self.graph.blocks
        columns = {"node_kind": "kind", "node_role": "role"}
        match name:
            case "edge_index":
                ends = np.empty((2, self.num_edges), dtype=np.int64)
                start = 0
                for block in blocks:
                    block.write_edges(ends[:, start : start + block.num_edges])
                    start += block.num_edges
                return torch.from_numpy(ends)
            case "edge_kind":
                return self._per_edge([b.category for b in blocks], torch.int64)
            case "edge_taps":
                return self._per_edge([b.taps for b in blocks], torch.int32)
            case "edge_reversed":
                return self._per_edge([b.reverse for b in blocks], torch.bool)
            case "kernel_size":
                sizes = [aligned(_three(b.kernel), 3) for b in blocks]
                return self._per_edge(sizes, torch.int16).reshape(-1, 3)
            case "node_slots":  # int32: half the memory, and faster to gather by
                return torch.from_numpy(nodes.scalars.astype(np.int32))
            case "edge_slots":
                return self._edge_slots()
        return torch.from_numpy(getattr(nodes, columns.get(name, name)).astype(np.int64))

    def _per_edge(self, values: list[Any], dtype: torch.dtype) -> Tensor:
        """One row for each edge, the same for all edges of a block."""
        rows = torch.tensor(values, dtype=dtype)
        result = torch.empty((self.num_edges, *rows.shape[1:]), dtype=dtype)
        start = 0
        for row, block in zip(rows, self.graph.blocks):
            result[start : start + block.num_edges] = row
            start += block.num_edges
        return result

    def slot_table(self, name: str, device: torch.device | str = "cpu") -> Tensor:
        """``node_slots`` [nodes, scalars], or ``edge_slots`` of the edges without their reversed
        twins: [edges, width] padded with ZERO, or [taps] ragged."""
        return self._kept(name, torch.device(device))

    def _edge_slots(self) -> Tensor:
        """Slots of all edges, [edges, width] padded with ZERO, or [taps] ragged."""
        blocks = [b for b in self.graph.blocks if not b.reverse]
        layout = self.graph.layout
        if layout is None:
            flat = [block.slots.numpy().reshape(-1) for block in blocks]
            return torch.from_numpy(np.concatenate([np.zeros(0, np.int32), *flat]).astype(np.int32))
        count = sum(block.num_edges for block in blocks)
        table = np.full((count, layout.width), ZERO, dtype=np.int32)
        start = 0
        for block in blocks:
            rows = block.slots.numpy().reshape(block.num_edges, block.taps)
            table[start : start + len(rows), layout.columns(block)] = rows
            start += len(rows)
        return torch.from_numpy(table)

    # --- numbers ---

    def node_features(self, weights: Tensor) -> Tensor:
        """x [..., nodes, scalars] of weights [..., slots]."""
        return _gathered(weights, self._kept("node_slots", weights.device))

    def edge_features(self, weights: Tensor) -> Tensor:
        """edge_attr [..., edges, width] or edge_value [..., taps] of weights [..., slots]."""
        values = self.forward_values(weights)
        if self.graph.reverse == "none":
            return values
        if self.graph.reverse == "append":
            return torch.cat([values, values], dim=-2 if self.padded else -1)
        assert self.padded, "the options object refuses ragged kernels with reverse=features"
        nothing = torch.zeros_like(values)
        return torch.cat(
            [torch.cat([values, nothing, values], -1), torch.cat([nothing, values, values], -1)], -2
        )

    def forward_values(self, weights: Tensor) -> Tensor:
        """``edge_features`` of the edges without their reversed twins."""
        layout = self.graph.layout
        blocks = [b for b in self.graph.blocks if not b.reverse]
        entries = sum(b.num_edges * (layout.width if layout else b.taps) for b in blocks)
        if entries <= TABLE_ENTRIES:
            return _gathered(weights, self._kept("edge_slots", weights.device))
        # Large graphs: block by block through strided views, without a table of slots.
        if layout is None:
            return torch.cat([read(weights, b.slots) for b in blocks], dim=-1)
        padded = []
        for block in blocks:
            rows = read(weights, block.slots).unflatten(-1, (block.num_edges, block.taps))
            wide = rows.new_zeros((*rows.shape[:-1], layout.width))
            columns = torch.from_numpy(layout.columns(block)).to(weights.device)
            padded.append(wide.index_copy(-1, columns, rows))
        return torch.cat(padded, dim=-2)

    # --- back ---

    def lift(self, x: Tensor, edges: Tensor, shared: str = "check") -> Tensor:
        """Weights [slots] from node features x and edge features; the inverse of binding.

        A parameter entry that lies on several edges must have one value; with ``shared="mean"``
        their mean is taken. Entries that are on no node or edge come back as zero.
        """
        layout, values = self.graph.layout, edges
        forward = [b for b in self.graph.blocks if not b.reverse]
        if self.graph.reverse != "none":
            values = values[: len(values) // 2]
        if layout is not None:
            values = values[:, : layout.width]
        weights = torch.zeros(self.program.num_slots, dtype=x.dtype, device=x.device)
        pieces = list(self._pieces(x, values, forward))
        if shared == "mean":
            return self._mean(weights, pieces)
        for _, slots, numbers in pieces:
            write(weights, slots, numbers)
        weights[ZERO], weights[ONE] = 0, 1
        for name, slots, numbers in pieces:
            if not _same_bits(read(weights, slots), numbers.reshape(-1)):
                found = read(weights, slots) != numbers.reshape(-1)
                raise LiftError(
                    f"{int(found.sum())} of its entries disagree with other places of the same "
                    "parameter, or with a constant 0 or 1",
                    where=name,
                    hint='shared="mean" takes the mean of entries that share a parameter',
                )
        return weights

    def _mean(self, weights: Tensor, pieces: list) -> Tensor:
        count = torch.zeros_like(weights)
        for _, slots, numbers in pieces:
            index = torch.from_numpy(slots.numpy().reshape(-1).copy()).to(weights.device)
            weights.index_add_(0, index, numbers.reshape(-1))
            count.index_add_(0, index, torch.ones_like(numbers.reshape(-1)))
        weights = weights / count.clamp(min=1)
        weights[ZERO], weights[ONE] = 0, 1
        return weights

    def _pieces(
        self, x: Tensor, values: Tensor, blocks: list[EdgeBlock]
    ) -> Iterator[tuple[str, Slots, Tensor]]:
        """(where, slots, numbers) of every node column and edge block."""
        scalars = self.graph.nodes.scalars
        for column, empty in enumerate(NO_SCALAR):
            rows = np.flatnonzero(scalars[:, column] != empty)
            if len(rows):
                numbers = x[torch.from_numpy(rows).to(x.device), column]
                yield f"column {column} of x", Slots.of(scalars[rows, column]), numbers
        start = 0
        layout = self.graph.layout
        for block in blocks:
            edges, taps = block.num_edges, block.taps
            if layout is None:
                numbers = values[start : start + edges * taps]
                start += edges * taps
            else:
                columns = torch.from_numpy(layout.columns(block)).to(values.device)
                numbers = values[start : start + edges].index_select(1, columns)
                start += edges
            yield block.name, block.slots, numbers

    def covered(self) -> np.ndarray:
        """[slots]: which entries of the weight vector are on a node or an edge."""
        found = np.zeros(self.program.num_slots, dtype=bool)
        found[self.graph.nodes.scalars.reshape(-1)] = True
        view = torch.from_numpy(found)
        for block in self.graph.blocks:
            write(view, block.slots, torch.ones(block.slots.size, dtype=torch.bool))
        found[:FIRST_SLOT] = False
        return found


def _three(kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Depth, height, width; a kernel with more axes keeps its last two and merges the others."""
    if len(kernel) <= 3:
        return kernel
    return (int(np.prod(kernel[:-2])), *kernel[-2:])


def _gathered(weights: Tensor, slots: Tensor) -> Tensor:
    """Entries of weights [..., num_slots], [..., *slots.shape]."""
    return weights.index_select(-1, slots.reshape(-1)).unflatten(-1, slots.shape)


def read(weights: Tensor, slots: Slots) -> Tensor:
    """Entries of weights [..., slots], flattened to [..., size]."""
    if weights.dim() > 1:
        index = torch.from_numpy(slots.numpy().reshape(-1).copy()).to(weights.device)
        return weights.index_select(-1, index)
    kernel = reader(slots, weights.shape[-1])
    constants = [torch.from_numpy(np.array(c)).to(weights.device) for c in kernel.constants]
    return kernel.function(weights, *constants).reshape(-1)


def write(weights: Tensor, slots: Slots, numbers: Tensor) -> None:
    """Write entries into weights [slots]; of several for one slot, one wins."""
    if slots.entries is None and slots.size:
        # Axes that repeat a slot are written once.
        once = tuple(1 if step == 0 else n for n, step in zip(slots.shape, slots.strides))
        numbers = numbers.reshape(slots.shape)[tuple(slice(0, n) for n in once)]
        kernel = reader(Slots(once, slots.offset, slots.strides), len(weights))
        if not kernel.constants:
            view = kernel.function(weights)
            if view.untyped_storage().data_ptr() == weights.untyped_storage().data_ptr():
                view.copy_(numbers)
                return
        slots = Slots(once, slots.offset, slots.strides)
    index = torch.from_numpy(slots.numpy().reshape(-1).copy()).to(weights.device)
    weights[index] = numbers.reshape(-1)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.dtype.is_floating_point:
        whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
        return bool(torch.equal(a.contiguous().view(whole), b.contiguous().view(whole)))
    return bool(torch.equal(a, b))
