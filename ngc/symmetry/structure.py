"""The structure that a symmetry must keep: points, their colours, and labelled relations.

Points are the granular neurons and a few abstract ones (a group of a grouped convolution, a row of
a shared weight, a set that is normalised together). Relations that pair points one to one are
contracted, so that what moves together is one *unit*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ngc.symmetry.hashing import colour, mixed, summed

Relation = tuple[np.ndarray, np.ndarray, np.ndarray]  # a - b, with a label

MAX_ROUNDS = 12  # of telling apart the members of a unit


@dataclass(frozen=True, eq=False)
class Structure:
    """Units and the relations left between them.

    unit: of each point; colours: of each unit; a, b, label: relations, from unit to unit.
    members: points ordered by unit, then by birth and colour; unit u has
    members[starts[u] : starts[u + 1]]. Units of equal colour have corresponding members.
    """

    num_neurons: int
    unit: np.ndarray
    births: np.ndarray
    colours: np.ndarray
    a: np.ndarray
    b: np.ndarray
    label: np.ndarray
    members: np.ndarray
    starts: np.ndarray

    @property
    def num_units(self) -> int:
        return len(self.colours)

    def permutation(self, units: np.ndarray) -> np.ndarray:
        """The permutation of neurons where unit u goes to units[u]."""
        sizes = np.diff(self.starts)
        place = np.arange(len(self.members)) - np.repeat(self.starts[:-1], sizes)
        image = self.members[self.starts[units][self.unit[self.members]] + place]
        result = np.empty(len(self.members), dtype=np.int64)
        result[self.members] = image
        return result[: self.num_neurons]

    def units_of(self, permutation: np.ndarray) -> np.ndarray | None:
        """Where the units go under a permutation of neurons, if it keeps the structure."""
        target = np.full(self.num_units, -1, dtype=np.int64)
        target[self.unit[: self.num_neurons]] = self.unit[permutation]
        self._place_abstract(target)
        if (target < 0).any() or (self.colours[target] != self.colours).any():
            return None
        if not np.array_equal(self.permutation(target), permutation):
            return None
        edges = np.sort(mixed(self.a, self.b, self.label))
        moved = np.sort(mixed(target[self.a], target[self.b], self.label))
        return target if np.array_equal(edges, moved) else None

    def _place_abstract(self, target: np.ndarray) -> None:
        """Units without neurons go where their neighbours go."""
        loose = np.flatnonzero(target < 0)
        if not len(loose):
            return

        def signature(image: np.ndarray) -> np.ndarray:
            a = summed(self.a, mixed(image[self.b], self.label, 1), self.num_units)
            b = summed(self.b, mixed(image[self.a], self.label, 2), self.num_units)
            return mixed(self.colours, a, b)[loose]

        image = np.where(target < 0, 0, target)
        still = np.arange(self.num_units)
        still[loose] = 0
        before, after = signature(still), signature(image)
        order, wanted = np.argsort(before, kind="stable"), np.argsort(after, kind="stable")
        if np.array_equal(before[order], after[wanted]):
            target[loose[wanted]] = loose[order]


class Builder:
    """Collects points and relations."""

    def __init__(self, births: np.ndarray) -> None:
        """births: number of the birth of each neuron."""
        self.num_neurons = len(births)
        self._births = [births]
        self._next_birth = int(births.max(initial=-1)) + 1
        self.num_points = len(births)
        self._tokens: list[tuple[np.ndarray, np.ndarray]] = []
        self._relations: list[tuple[np.ndarray, np.ndarray, np.uint64]] = []

    def points(self, count: int) -> np.ndarray:
        """New abstract points of one birth."""
        self._births.append(np.full(count, self._next_birth))
        self._next_birth += 1
        self.num_points += count
        return np.arange(self.num_points - count, self.num_points)

    def mark(self, points: np.ndarray, token: np.ndarray | np.uint64) -> None:
        """Points with different tokens cannot be exchanged."""
        self._tokens.append((points, np.broadcast_to(token, points.shape)))

    def fix(self, points: np.ndarray) -> None:
        """These points stay where they are."""
        points = np.unique(points)
        self.mark(points, mixed(points, colour("fixed")))

    def relate(self, a: np.ndarray, b: np.ndarray, *label: object) -> None:
        """Pairs of points. Equal pairs count once."""
        keys = np.unique(a.reshape(-1) * self.num_points + b.reshape(-1))
        self._relations.append((*np.divmod(keys, self.num_points), colour(*label)))

    def build(self) -> Structure:
        births = np.concatenate(self._births)
        own = self._own_colours(births)
        paired: list[Relation] = []
        left: list[Relation] = []
        for a, b, name in self._relations:
            single = (np.bincount(a)[a] == 1) & (np.bincount(b)[b] == 1)
            paired.append((a[single], b[single], np.full(int(single.sum()), name)))
            left.append((a[~single], b[~single], np.full(int((~single).sum()), name)))
        pairs, rest = _joined(paired), _joined(left)
        unit = _components(self.num_points, *pairs[:2])
        for _ in range(MAX_ROUNDS):
            members = np.lexsort((own, births, unit))
            ambiguous = _ambiguous(unit[members], births[members], own[members])
            if not ambiguous.any():
                break
            finer = self._seen_from(own)
            if len(np.unique(finer)) == len(np.unique(own)):
                break
            own = finer
        # Which of two equal members is which would be open, so such a unit stays where it is.
        stuck = np.isin(unit, unit[members[ambiguous]])
        own = np.where(stuck, mixed(np.arange(self.num_points), colour("stuck"), own), own)
        members = np.lexsort((own, births, unit))
        num_units = int(unit.max(initial=-1)) + 1
        colours = summed(unit, mixed(own), num_units)
        a, b, label = pairs
        colours += summed(unit[a], mixed(own[a], own[b], label, 3), num_units)
        a, b, label = rest
        label = mixed(own[a], own[b], label)
        a, b = unit[a], unit[b]
        inner = a == b
        colours += summed(a[inner], mixed(label[inner], 4), num_units)
        starts = np.r_[0, np.cumsum(np.bincount(unit, minlength=num_units))]
        return Structure(
            self.num_neurons,
            unit,
            births,
            colours,
            a[~inner],
            b[~inner],
            label[~inner],
            members,
            starts,
        )

    def _own_colours(self, births: np.ndarray) -> np.ndarray:
        """What is known of each point by itself."""
        points = np.concatenate([np.zeros(0, np.int64), *(points for points, _ in self._tokens)])
        tokens = np.concatenate([np.zeros(0, np.uint64), *(token for _, token in self._tokens)])
        own = mixed(births, summed(points, mixed(tokens), self.num_points))
        return mixed(own, self._ends(np.zeros(self.num_points, dtype=np.uint64)))

    def _seen_from(self, own: np.ndarray) -> np.ndarray:
        """Colours that tell apart what has different neighbours."""
        return mixed(own, self._ends(own))

    def _ends(self, own: np.ndarray) -> np.ndarray:
        a, b, label = _joined([(a, b, np.full(len(a), label)) for a, b, label in self._relations])
        ends = np.concatenate([a, b])
        return summed(
            ends,
            np.concatenate([mixed(label, own[b], 1), mixed(label, own[a], 2)]),
            self.num_points,
        )


def _joined(parts: list[Relation]) -> Relation:
    """Relations one after another."""
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint64)
    a, b, label = (np.concatenate(column) for column in zip(*parts))
    return a, b, label


def _ambiguous(unit: np.ndarray, births: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Which sorted members are just like the one before."""
    same = np.zeros(len(unit), dtype=bool)
    same[1:] = (unit[1:] == unit[:-1]) & (births[1:] == births[:-1]) & (own[1:] == own[:-1])
    return same


def _components(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    graph = coo_matrix((np.ones(len(a), dtype=bool), (a, b)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)
