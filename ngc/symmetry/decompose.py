"""Permutable families of a coloured structure, and their hierarchy.

Nodes with the same neighbours are twins. Of each set of twins one is kept, and colours are refined
until nodes of one colour have equally coloured neighbours. A node alone in its colour is fixed and
a relation that joins all of one colour to all of another says nothing more, so both are dropped;
what is left falls apart into components, and components of equal form can be exchanged, as blocks.
Inside a block the same again: what was one of many may be alone there.

A component that does not fall apart is like a grid (heads that share keys: rows are the heads,
columns the dimensions). Fixing all nodes of one colour leaves the columns to permute, fixing one
node of each column leaves the rows. What yields to none of this stays fixed: the group may be too
small, never too large.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from math import lgamma, log

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ngc.symmetry.hashing import classes, colour, mixed, summed

TRIES = (8, 3, 1)  # colours tried to open a grid, a grid within a grid, ...


@dataclass(frozen=True, eq=False)
class Family:
    """blocks [m, n]: m blocks of n nodes that can be exchanged, corresponding nodes in one column.

    Nodes are columns of a block of the parent (nodes of the structure at the top). ``inner``
    families act in the same way within every block.
    """

    blocks: np.ndarray
    inner: tuple[Family, ...] = ()

    @property
    def size(self) -> int:
        return len(self.blocks)

    def log10_order(self) -> float:
        own = lgamma(self.size + 1) / log(10)
        return own + self.size * sum(family.log10_order() for family in self.inner)


@dataclass(frozen=True, eq=False)
class Nodes:
    """A coloured structure: relations a - b with a label; never from a node to itself."""

    colours: np.ndarray
    a: np.ndarray
    b: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.colours)

    def refined(self) -> np.ndarray:
        """Stable colours, the same for structures that are the same but for numbering."""
        colours = self.colours
        touched = np.unique(np.concatenate([self.a, self.b]))
        if not len(touched):
            return colours
        place = np.zeros(len(self), dtype=np.int64)
        place[touched] = np.arange(len(touched))
        ends = np.concatenate([place[self.a], place[self.b]])
        others = np.concatenate([self.b, self.a])
        kinds = np.concatenate([mixed(self.label, 1), mixed(self.label, 2)])
        order = np.argsort(ends, kind="stable")
        others, kinds = others[order], kinds[order]
        starts = np.r_[0, np.cumsum(np.bincount(ends))[:-1]]
        count = len(np.unique(colours[touched]))
        while True:
            sums = np.add.reduceat(mixed(colours[others], kinds), starts)
            colours = colours.copy()
            colours[touched] = mixed(colours[touched], sums)
            now = len(np.unique(colours[touched]))
            if now == count:
                return colours
            count = now

    def neighbours(self) -> np.ndarray:
        """A colour for exactly which nodes each is related to, and how."""
        ends = np.concatenate([self.a, self.b])
        seen = np.concatenate([mixed(self.label, self.b, 1), mixed(self.label, self.a, 2)])
        return summed(ends, seen, len(self))

    def part(self, nodes: np.ndarray, colours: np.ndarray) -> Nodes:
        """The structure among some nodes, numbered by their place."""
        place = np.full(len(self), -1, dtype=np.int64)
        place[nodes] = np.arange(len(nodes))
        inside = (place[self.a] >= 0) & (place[self.b] >= 0)
        return Nodes(
            colours[nodes], place[self.a[inside]], place[self.b[inside]], self.label[inside]
        )


@dataclass(frozen=True, eq=False)
class _Level:
    """component, rank within it and certificate of its component, of each node."""

    component: np.ndarray
    rank: np.ndarray
    certificate: np.ndarray


def families(nodes: Nodes, depth: int = 0) -> tuple[Family, ...]:
    """The permutable families of a structure."""
    if not len(nodes):
        return ()
    # Twins, nodes with the very same neighbours, are exchanged freely: one stands for all.
    twin = _by_appearance(classes(nodes.colours, nodes.neighbours()))
    members = np.argsort(twin, kind="stable")
    count = np.bincount(twin)
    single = nodes.part(members[np.cumsum(count) - count], nodes.colours)
    single = replace(single, colours=mixed(single.colours, count))
    single = replace(single, colours=single.refined())
    levels = _levels(single)
    everything = np.argsort(levels[0].rank)
    found = tuple(_moved(_within(single, levels, 0, everything, depth), everything))
    return tuple(_moved(_with_twins(found, count, np.ones(len(count), dtype=bool)), members))


def _by_appearance(labels: np.ndarray) -> np.ndarray:
    """Labels numbered as they appear: components of one form then keep to one order."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _with_twins(
    found: tuple[Family, ...], count: np.ndarray, missing: np.ndarray
) -> tuple[Family, ...]:
    """Families of nodes that stand for ``count`` twins each, as families of all of those.

    The twins of ``missing`` nodes become families of their own, in the innermost block they are in.
    """
    first = np.cumsum(count) - count
    missing = missing.copy()
    result = []
    for family in found:
        everywhere = missing[family.blocks].all(axis=0)
        widths = count[family.blocks[0]]
        inner = _with_twins(family.inner, widths, everywhere)
        missing[family.blocks[:, everywhere]] = False
        within = np.arange(widths.sum()) - np.repeat(np.cumsum(widths) - widths, widths)
        result.append(Family(np.repeat(first[family.blocks], widths, axis=1) + within, inner))
    for k in np.flatnonzero(missing & (count > 1)):
        result.append(Family(np.arange(first[k], first[k] + count[k])[:, None]))
    return tuple(result)


def _levels(nodes: Nodes) -> list[_Level]:
    """Components within components, the whole first."""
    components = [np.zeros(len(nodes), dtype=np.int64)]
    left = np.ones(len(nodes.a), dtype=bool)
    while True:
        kind = classes(components[-1], nodes.colours)
        left &= _tells(nodes, components[-1], kind, left)
        graph = coo_matrix(
            (np.ones(int(left.sum()), dtype=bool), (nodes.a[left], nodes.b[left])),
            shape=(len(nodes),) * 2,
        )
        finer = connected_components(graph, directed=False)[1].astype(np.int64)
        if finer.max() == components[-1].max():
            break
        components.append(finer)
    numbers = np.arange(len(nodes))
    levels: list[_Level] = []
    order = np.lexsort((numbers, nodes.colours, components[-1]))
    for component in reversed(components):
        if levels:
            below = levels[0]
            first = np.full(len(nodes), len(nodes))
            np.minimum.at(first, below.component, numbers)
            order = np.lexsort((below.rank, first[below.component], below.certificate, component))
        ordered = component[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        rank = np.empty(len(nodes), dtype=np.int64)
        rank[order] = np.arange(len(nodes)) - np.repeat(starts, np.diff(np.r_[starts, len(nodes)]))
        form = summed(component, mixed(rank, nodes.colours), len(nodes))
        inside = component[nodes.a] == component[nodes.b]
        a, b = nodes.a[inside], nodes.b[inside]
        form += summed(component[a], mixed(rank[a], rank[b], nodes.label[inside]), len(nodes))
        levels.insert(0, _Level(component, rank, mixed(form)[component]))
    return levels


def _tells(nodes: Nodes, component: np.ndarray, kind: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Which relations say more than the colours do: neither to a node alone in its colour, nor from
    all of a colour to all of another."""
    size = np.bincount(kind)
    a, b = kind[nodes.a], kind[nodes.b]
    useful = left & (size[a] > 1) & (size[b] > 1)
    number = np.zeros(len(left), dtype=np.int64)
    if useful.any():
        among = classes(a[useful], b[useful], nodes.label[useful])
        number[useful] = np.bincount(among)[among]
        useful &= number < size[a] * size[b]
    return useful


def _within(
    nodes: Nodes, levels: list[_Level], level: int, block: np.ndarray, depth: int
) -> Iterator[Family]:
    """Families inside a component; their nodes are places in ``block``."""
    if len(block) == 1:
        return
    if level + 1 == len(levels):
        yield from _grid(nodes.part(block, nodes.colours), depth)
        return
    below = levels[level + 1]
    component, certificate = below.component[block], below.certificate[block]
    order = np.lexsort((below.rank[block], component, certificate))
    if component[order[0]] == component[order[-1]] and (component == component[0]).all():
        yield from _moved(_within(nodes, levels, level + 1, block[order], depth), order)
        return
    starts = np.flatnonzero(np.r_[True, certificate[order][1:] != certificate[order][:-1], True])
    for start, stop in pairwise(starts):
        places = order[start:stop]
        if len(places) == 1:
            continue
        width = int(below.rank[block[places]].max()) + 1
        rows = places.reshape(-1, width)
        inner = tuple(_within(nodes, levels, level + 1, block[rows[0]], depth))
        if len(rows) > 1:
            yield Family(rows, inner)
        else:
            yield from _moved(inner, rows[0])


def _moved(found: Iterator[Family] | tuple[Family, ...], places: np.ndarray) -> Iterator[Family]:
    for family in found:
        yield replace(family, blocks=places[family.blocks])


def _grid(nodes: Nodes, depth: int) -> tuple[Family, ...]:
    """Families of a component that does not fall apart by itself."""
    if depth == len(TRIES):
        return ()
    kinds, sizes = np.unique(nodes.colours, return_counts=True)
    opened = []  # (nodes kept in place, families left)
    for kind in kinds[np.lexsort((kinds, sizes))][: TRIES[depth]]:
        rows = nodes.colours == kind
        columns = families(_individual(nodes, rows), depth + 1)
        if columns:
            opened.append((rows, columns))
    closed = []
    for rows, columns in opened:
        hubs = _hubs(nodes, columns, rows)
        if hubs.any():
            closed.append(families(_individual(nodes, hubs), depth + 1))
    best: tuple[Family, ...] = ()
    for rows, columns in opened:
        for others in ((), *closed, *(found for _, found in opened)):
            moving = tuple(f for family in others if (f := _moving(family, rows)))
            best = max(best, columns + moving, key=_log10_order)
    return best


def _log10_order(found: tuple[Family, ...]) -> float:
    return sum((family.log10_order() for family in found), 0.0)


def _individual(nodes: Nodes, chosen: np.ndarray) -> Nodes:
    own = mixed(np.cumsum(chosen), colour("individual"), nodes.colours)
    return replace(nodes, colours=np.where(chosen, own, nodes.colours))


def _hubs(nodes: Nodes, columns: tuple[Family, ...], rows: np.ndarray) -> np.ndarray:
    """Nodes that are the only ones of their colour in a block that runs through several rows."""
    result = np.zeros(len(nodes), dtype=bool)
    for family in columns:
        inside = np.zeros(len(nodes), dtype=bool)
        inside[family.blocks] = True
        ends = np.concatenate([nodes.b[inside[nodes.a]], nodes.a[inside[nodes.b]]])
        met = len(np.unique(ends[rows[ends]]))
        if met > 1 or (met == 0 and family.blocks.shape[1] > 1):
            colours = nodes.colours[family.blocks[0]]
            kinds, counts = np.unique(colours, return_counts=True)
            result[family.blocks[:, np.isin(colours, kinds[counts == 1])]] = True
    return result


def _moving(family: Family, chosen: np.ndarray) -> Family | None:
    """What of a family moves chosen nodes; the rest is found otherwise already."""
    if not chosen[family.blocks].any():
        return None
    columns = chosen[family.blocks[0]]
    inner = tuple(f for below in family.inner if (f := _moving(below, columns)))
    return replace(family, inner=inner)
