"""Whether two neural graphs are the same but for the order of their nodes and edges.

Independent of ngc: only the tensors of the graphs are read. Weisfeiler-Lehman colour refinement: a
node's colour starts as its features, and becomes those of its neighbours and the edges to them,
until it distinguishes no more nodes. Trained weights differ, so nearly all nodes end with a colour
of their own, and equal multisets of coloured edges then are the same graph.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from ngc.ir.graph import ACTIVATIONS, EDGE_KINDS, NODE_KINDS, NODE_ROLES, POOLS

Key = tuple[object, ...]

NODE_CATEGORIES = {
    "node_kind": NODE_KINDS, "node_role": NODE_ROLES, "activation": ACTIVATIONS, "pool": POOLS,
}  # fmt: skip


def difference(a: Data, b: Data, tolerance: float = 1e-5) -> str:
    """What differs between two graphs; empty where nothing does but the order."""
    for name, count in _counts(a).items():
        if count != _counts(b)[name]:
            return f"{name}: {_shown(count)} | {_shown(_counts(b)[name])}"
    values = [_numbers(g) for g in (a, b)]
    step = _levels(np.concatenate([v.reshape(-1) for pair in values for v in pair]), tolerance)
    parts = [_Coloured(g, *(step(v) for v in pair)) for g, pair in zip((a, b), values)]
    for _ in range(int(a.num_nodes or 0)):
        before = parts[0].num_colours()
        for part in parts:
            part.refine()
        if not np.array_equal(np.sort(parts[0].colour), np.sort(parts[1].colour)):
            break
        if parts[0].num_colours() == before:
            break
    alike = np.isin(parts[0].colour, parts[1].colour)
    if not alike.all():
        return (
            f"{int((~alike).sum())} of {len(alike)} nodes have no like, as {parts[0].name(alike)}"
        )
    for what in ("colour", "edges"):
        left, right = (np.sort(getattr(part, what)) for part in parts)
        if not np.array_equal(left, right):
            return f"{what} differ in number"
    return ""


def _counts(graph: Data) -> dict[str, Counter[Key]]:
    """Nodes by category, edges by kind and kernel, and the ends of edges by kind."""
    names = list(NODE_CATEGORIES)
    columns = [_array(graph[name]).tolist() for name in names]
    rows = [
        tuple(NODE_CATEGORIES[n][k] for n, k in zip(names, row, strict=True))
        for row in zip(*columns)
    ]
    src, dst = _array(graph.edge_index)
    kinds = [EDGE_KINDS[k] for k in _array(graph.edge_kind).tolist()]
    sizes = [tuple(size) for size in _array(graph.kernel_size).tolist()]
    ends = [(kind, rows[a], rows[b]) for kind, a, b in zip(kinds, src, dst)]
    return {
        "nodes": Counter(rows),
        "edges": Counter(zip(kinds, sizes)),
        "ends of edges": Counter(ends),
        "layers": Counter((layer,) for layer in _array(graph.layer).tolist()),
    }


def _shown(count: Counter[Key]) -> str:
    return ", ".join(f"{n} {key}" for key, n in sorted(count.items(), key=repr))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _numbers(graph: Data) -> tuple[np.ndarray, np.ndarray]:
    return _array(graph.x).astype(np.float64), _array(graph.edge_attr).astype(np.float64)


class _levels:
    """Numbers as integers: equal where a chain of differences within the tolerance joins them.
    Rounding would tear numbers apart that lie on two sides of a step."""

    def __init__(self, values: np.ndarray, tolerance: float) -> None:
        ordered = np.unique(values)
        apart = np.diff(ordered) > tolerance * np.maximum(1.0, np.abs(ordered[1:]))
        self.starts = ordered[np.r_[True, apart]] if len(ordered) else ordered

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.starts, values, side="right").astype(np.uint64)


class _Coloured:
    """The nodes of a graph with a colour each, and its edges."""

    def __init__(self, graph: Data, x: np.ndarray, kernels: np.ndarray) -> None:
        self.src, self.dst = _array(graph.edge_index)
        self.kinds = _array(graph.node_kind)
        role = _array(graph.node_role)
        ends = role != NODE_ROLES.index("hidden")
        # Inputs and outputs keep their places: the order of those is part of the function.
        place = np.where(ends, _array(graph.position_id), -1)
        columns = [x, _array(graph.place), place[:, None], _array(graph.layer)[:, None]]
        columns += [_array(graph[name])[:, None] for name in NODE_CATEGORIES]
        self.colour = _hashed(*columns)
        own = [kernels, _array(graph.kernel_size), _array(graph.edge_kind)[:, None]]
        self.edge_colour = _hashed(*own)

    @property
    def edges(self) -> np.ndarray:
        """The colour of each edge together with those of its ends."""
        ends = (self.colour[self.src], self.colour[self.dst])
        return _hashed(self.edge_colour[:, None], *(end[:, None] for end in ends))

    def num_colours(self) -> int:
        return len(np.unique(self.colour))

    def refine(self) -> None:
        old = self.colour
        into, out = np.zeros_like(old), np.zeros_like(old)
        np.add.at(into, self.dst, _hashed(self.edge_colour[:, None], old[self.src][:, None]))
        np.add.at(out, self.src, _hashed(self.edge_colour[:, None], old[self.dst][:, None]))
        self.colour = _hashed(old[:, None], into[:, None], out[:, None])

    def name(self, alike: np.ndarray) -> str:
        node = int(np.flatnonzero(~alike)[0])
        return f"node {node} ({NODE_KINDS[self.kinds[node]]})"


def _hashed(*columns: np.ndarray) -> np.ndarray:
    """One 64-bit number for each row (splitmix64, column by column)."""
    table = np.concatenate([column.astype(np.uint64) for column in columns], axis=1)
    result = np.zeros(len(table), dtype=np.uint64)
    for column in table.T:
        result = (result + column + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
        result = (result ^ (result >> np.uint64(30))) * np.uint64(0x94D049BB133111EB)
        result ^= result >> np.uint64(31)
    return result
