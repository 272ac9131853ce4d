"""The symmetry group of a network: permutations of its neurons that leave its function as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ngc.passes.wire import Wiring
from ngc.symmetry.constraints import structure_of
from ngc.symmetry.decompose import Family, Nodes, families
from ngc.symmetry.structure import Structure

Permutation = np.ndarray  # neuron n goes to permutation[n]


@dataclass(frozen=True, eq=False)
class SymmetryGroup:
    """families: the permutable families at the top; their blocks hold units of ``structure``."""

    wiring: Wiring
    structure: Structure
    families: tuple[Family, ...]

    def random_element(self, seed: int | np.random.Generator = 0) -> Permutation:
        """A random element: every block of every family in random order."""
        rng = np.random.default_rng(seed)
        units = np.arange(self.structure.num_units)
        _shuffle(units, units[None].copy(), self.families, rng)
        return self.structure.permutation(units)

    def contains(self, permutation: Permutation) -> bool:
        """Whether a permutation of neurons keeps all that this group's elements keep."""
        permutation = np.asarray(permutation)
        count = self.structure.num_neurons
        if permutation.shape != (count,) or not np.array_equal(
            np.sort(permutation), np.arange(count)
        ):
            return False
        return self.structure.units_of(permutation) is not None

    @property
    def log10_order(self) -> float:
        """log10 of the number of elements."""
        return sum((family.log10_order() for family in self.families), 0.0)


def symmetries(wiring: Wiring) -> SymmetryGroup:
    """The symmetry group of a network. It may be smaller than the whole, never larger."""
    s = structure_of(wiring)
    found = families(Nodes(s.colours, s.a, s.b, s.label))
    has_neurons = np.zeros(s.num_units, dtype=bool)
    has_neurons[s.unit[: s.num_neurons]] = True
    return SymmetryGroup(wiring, s, tuple(f for f in found if has_neurons[f.blocks].any()))


def _shuffle(
    units: np.ndarray, places: np.ndarray, found: Sequence[Family], rng: np.random.Generator
) -> None:
    """Compose ``units`` with random elements of the families, in each row of ``places``
    [instances, columns], innermost first."""
    for family in found:
        blocks = places[:, family.blocks]  # [instances, m, n]
        _shuffle(units, blocks.reshape(-1, blocks.shape[2]), family.inner, rng)
        order = rng.permuted(np.tile(np.arange(family.size), (len(blocks), 1)), axis=1)
        step = np.arange(len(units))
        step[blocks] = blocks[np.arange(len(blocks))[:, None], order]
        units[:] = step[units]


@dataclass(frozen=True)
class Row:
    """A line of a description: a family, how deep it lies, and what it ties together.

    size: number of blocks that can be exchanged; copies: how many such families there are (one in
    each block above); ties: values of the program whose neurons move together.
    """

    depth: int
    name: str
    size: int
    copies: int
    ties: tuple[str, ...] = field(default=())


def describe(group: SymmetryGroup) -> list[Row]:
    """The families in the order of the program, each before those within its blocks."""
    return list(_rows(group, group.families, np.arange(group.structure.num_units), 0, 1))


def _rows(
    group: SymmetryGroup, found: Sequence[Family], columns: np.ndarray, depth: int, copies: int
) -> Iterator[Row]:
    s, ops = group.structure, group.wiring.program.ops
    lines = []
    for family in found:
        block = columns[family.blocks[0]]
        points = np.concatenate([s.members[s.starts[u] : s.starts[u + 1]] for u in block])
        neurons = points[points < s.num_neurons]
        births = np.unique(s.births[neurons])
        numbers = sorted({group.wiring.births[b].op for b in births})
        if numbers:
            lines.append((numbers, block, family))
    for numbers, block, family in sorted(lines, key=lambda line: line[0]):
        ties = tuple(ops[k].out.name for k in numbers)
        yield Row(depth, ties[0], family.size, copies, ties)
        yield from _rows(group, family.inner, block, depth + 1, copies * family.size)
