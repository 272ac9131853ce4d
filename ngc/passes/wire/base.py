"""Reading a program as a graph, neuron by neuron: the record and the tool that rules write with.

Every operation that computes something gives birth to *neurons* of its own, one per scalar that it
computes at each position; data movement only passes neurons on. The record is granular: a
convolution, its bias and its activation are three sets of neurons here, and are merged into the
nodes of the neural graph afterwards (``passes/graph``). Granular neurons are also what the symmetry
group permutes (``symmetry.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from ngc.budget import DEFAULT
from ngc.errors import BudgetError, UnsupportedOp
from ngc.ir import program as ir
from ngc.ir.index import IndexArray
from ngc.ir.program import Ints, Program, Ref
from ngc.ir.slots import ONE, Slots

# An operation whose neurons differ by position is written out window by window. An entry of it
# counts as so many elements of the budget: it is sorted, compared and numbered on the way.
ENTRY_COST = 16


@dataclass(frozen=True, eq=False)
class Birth:
    """Neurons ``start`` to ``stop`` come from operation number ``op``.

    role: ``out`` (they hold its result), ``token`` (one-hot rows of an embedding), ``position``
    (one-hot positions of a parameter that varies by position), ``constant`` (padding).
    """

    op: int
    start: int
    stop: int
    role: str


@dataclass(frozen=True, eq=False)
class Wires:
    """Edges of one operation: ``src`` [g, i] to ``dst`` [g, o], all pairs within each of g groups.

    ``slots`` [g, o, i, k]: the kernel of each edge, k = prod(kernel). ``recurrent``: they are read
    in the next step.
    """

    op: int
    kind: str
    src: np.ndarray
    dst: np.ndarray
    slots: Slots
    kernel: Ints
    recurrent: bool = False

    @property
    def num_edges(self) -> int:
        return self.dst.shape[0] * self.dst.shape[1] * self.src.shape[1]


@dataclass(frozen=True, eq=False)
class Scalars:
    """One slot per neuron: role bias (or sub_bias, rsub_bias), mean, var, slope."""

    op: int
    role: str
    neurons: np.ndarray
    slots: np.ndarray


@dataclass(eq=False)
class Wiring:
    """The granular graph of a program."""

    program: Program
    index: dict[Ref, IndexArray] = field(default_factory=dict)
    births: list[Birth] = field(default_factory=list)
    wires: list[Wires] = field(default_factory=list)
    scalars: list[Scalars] = field(default_factory=list)
    num_neurons: int = 0
    # What symmetries must respect beyond the wires: pairs of neurons that move together (paired
    # in a contraction), and neurons that cannot move (order matters to the operation).
    ties: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    fixed: list[np.ndarray] = field(default_factory=list)
    # Sets of neurons treated alike by one operation (rows of a normalisation): [sets, members].
    sets: list[tuple[int, np.ndarray]] = field(default_factory=list)
    # Loops whose steps have the same neurons. ``first``: operation -> the first of the same in
    # the loop. ``states``: operation of the first step -> place among its inputs, where an
    # initial value is read -> the result of the loop that this stands for. ``written_out``: why
    # loops, or their first steps, have neurons of their own.
    first: dict[int, int] = field(default_factory=dict)
    states: dict[int, dict[int, Ref]] = field(default_factory=dict)
    written_out: list[str] = field(default_factory=list)

    def as_read(self, number: int) -> ir.Op:
        """An operation as the graph has it: in the first step of a loop, states stand for their
        initial values."""
        op = self.program.ops[number]
        states = self.states.get(number, {})
        return op.reading(tuple(states.get(k, ref) for k, ref in enumerate(op.inputs)))

    def initial_values(self) -> list[tuple[Ref, Ref]]:
        """Pairs of an initial value and the state that starts from it."""
        ops = self.program.ops
        return list(
            dict.fromkeys(
                (ops[reader].inputs[place], state)
                for reader, states in self.states.items()
                for place, state in states.items()
            )
        )

    def op_of(self) -> np.ndarray:
        """Number of the operation that each neuron comes from."""
        result = np.zeros(self.num_neurons, dtype=np.int64)
        for birth in self.births:
            result[birth.start : birth.stop] = birth.op
        return result


Rule = Callable[["Wirer", Any], IndexArray]
RULES: dict[type[ir.Op], Rule] = {}
R = TypeVar("R", bound=Rule)


def wires(*classes: type[ir.Op]) -> Callable[[R], R]:
    """Register the rule that wires an operation: ``rule(w, op) -> index array of op.out``."""

    def register(rule: R) -> R:
        for cls in classes:
            assert cls not in RULES, cls
            RULES[cls] = rule
        return rule

    return register


class Wirer:
    """Builds a Wiring, one operation after the other."""

    def __init__(
        self,
        program: Program,
        identity_axes: dict[Ref, Ints],
        max_elements: int = DEFAULT.max_elements,
    ) -> None:
        self.wiring = Wiring(program)
        self.max_elements = max_elements
        self.identity_axes = identity_axes
        self.zeros: set[int] = set()
        self.values = program.values()
        self.op = -1

    def run(self) -> Wiring:
        for number, op in enumerate(self.wiring.program.ops):
            self.op = number
            self.wiring.index[op.out.name] = RULES[type(op)](self, op)
        return self.wiring

    def index(self, ref: Ref) -> IndexArray:
        return self.wiring.index[ref]

    def fresh(self, count: int, role: str = "out") -> np.ndarray:
        """Ids of new neurons."""
        w = self.wiring
        w.births.append(Birth(self.op, w.num_neurons, w.num_neurons + count, role))
        w.num_neurons += count
        return np.arange(w.num_neurons - count, w.num_neurons)

    def zero(self) -> int:
        """A neuron that is constantly zero (padding along an axis of neurons)."""
        neuron = int(self.fresh(1, "constant")[0])
        self.zeros.add(neuron)
        return neuron

    def connect(
        self,
        kind: str,
        src: np.ndarray,
        dst: np.ndarray,
        slots: Slots | None = None,
        kernel: Ints = (),
    ) -> None:
        """Edges between src [g, i] and dst [g, o]; slots [g, o, i, k], by default all ONE."""
        g, i, o = src.shape[0], src.shape[1], dst.shape[1]
        if slots is None:
            slots = Slots.constant((g, o, i, 1), ONE)
        assert slots.shape == (g, o, i, math.prod(kernel)), (kind, slots.shape, src.shape, kernel)
        if g * i * o:
            self.record(Wires(self.op, kind, src, dst, slots, kernel))

    def record(self, wires: Wires) -> None:
        self.wiring.wires.append(wires)

    def connect_each(self, kind: str, src: np.ndarray, dst: np.ndarray) -> None:
        """One edge of weight one from src [n] to dst [n]; none from constant zeros."""
        if self.zeros:
            keep = ~np.isin(src, list(self.zeros))
            src, dst = src[keep], dst[keep]
        self.connect(kind, src[:, None], dst[:, None])

    def attach(self, role: str, neurons: np.ndarray, slots: np.ndarray, kernel: Ints) -> None:
        """A parameter of neurons [n] with slots [n, k]. One that varies by position hangs on the
        edges from k new position neurons, of which one is on at each position."""
        if not slots.size:
            return
        if slots.shape[1] == 1:
            self.wiring.scalars.append(Scalars(self.op, role, neurons, slots[:, 0]))
            return
        self.check_size(slots.size, f"a {role} for each of {slots.shape[1]} positions")
        positions = self.fresh(slots.shape[1], "position")
        entries = Slots.of(slots[None, :, :, None])
        self.connect(f"position_{role}", positions[None], neurons[None], entries)
        self.wiring.fixed.append(positions)

    def fix(self, *arrays: np.ndarray) -> None:
        """These neurons cannot be permuted."""
        self.wiring.fixed.extend(np.unique(a) for a in arrays)

    def check_size(self, entries: int, what: str) -> None:
        """Refuses what takes too many entries to write out, before any is."""
        needed = entries * ENTRY_COST
        if needed > self.max_elements:
            op = self.wiring.program.ops[self.op]
            raise BudgetError(
                f"{what} makes {entries:,} entries, {needed:,} elements on the way, "
                f"over the budget of {self.max_elements:,}",
                where=f"{op.origin} ({op.mnemonic})",
                hint="a larger budget (--max-elements), or other axes of neurons (--input-axes)",
            )

    def refuse(self, message: str) -> UnsupportedOp:
        op = self.wiring.program.ops[self.op]
        return UnsupportedOp(op.mnemonic, message, where=op.origin)


def fresh_rows(w: Wirer, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One new neuron for each distinct row of an array [n, m]: what is computed from the same
    neurons is the same scalar. Returns (neuron of each row [n], the new neurons [u], their rows
    [u, m])."""
    if rows.shape[1] == 1 and _strictly_increasing(rows[:, 0]):
        new = w.fresh(len(rows))
        return new, new, rows
    distinct, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    # Number them by first appearance, so that the order of neurons is that of the elements.
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    new = w.fresh(len(distinct))
    return new[rank[inverse.reshape(-1)]], new, distinct[order]


def connect_sets(w: Wirer, kind: str, rows: np.ndarray, dst: np.ndarray) -> None:
    """Edges from the distinct neurons of each row [t, k] to those of dst [t, o]."""
    ordered = np.sort(rows, axis=1)
    new = np.ones(ordered.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    if new.all():
        w.connect(kind, rows, dst)
        return
    counts = new.sum(axis=1)
    for count in np.unique(counts):
        picked = counts == count
        src = ordered[picked][new[picked]].reshape(-1, count)
        w.connect(kind, src, dst[picked])


def _strictly_increasing(values: np.ndarray) -> bool:
    return bool((np.diff(values) > 0).all())


def grouped_by_neuron(rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Entries of each row [t, k] that lie on the same neuron, collected.

    Returns pairs (src [t, i], order [t, i, m]): in row t, neuron src[t, i] occurs at the m places
    order[t, i]. One pair per multiplicity m, so that every pair is a dense array.
    """
    t, k = rows.shape
    places = np.arange(k)
    if k == 1 or not (np.diff(np.sort(rows, axis=1), axis=1) == 0).any():
        return [(rows, np.broadcast_to(places, (t, k))[:, :, None])]
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    starts = np.ones((t, k), dtype=bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    run = starts.cumsum(axis=1) - 1 + np.arange(t)[:, None] * k  # number of each run, unique
    counts = np.bincount(run.reshape(-1), minlength=t * k)
    multiplicity = counts[run]
    result = []
    for m in np.unique(multiplicity):
        mask = multiplicity == m
        per_row = mask.sum(axis=1)
        if (per_row == per_row[0]).all():
            picked = order[mask].reshape(t, -1, m)
            result.append((ordered[mask].reshape(t, -1, m)[:, :, 0], picked))
        else:
            # Rows of different make-up: pad nothing, give each its own group through one row.
            raise UnevenRows
    return result


class UnevenRows(Exception):
    """Rows whose neurons occur different numbers of times; the caller treats rows one by one."""


def window_rows(
    ids: np.ndarray, out: Sequence[int], kernel: Ints, strides: Ints, dilations: Ints
) -> np.ndarray:
    """Windows of ids [c, *space] (already padded): [*out, c, *kernel]."""
    rank = len(kernel)
    steps = ids.strides
    shape = (*out, ids.shape[0], *kernel)
    byte_strides = (
        *(steps[1 + a] * strides[a] for a in range(rank)),
        steps[0],
        *(steps[1 + a] * dilations[a] for a in range(rank)),
    )
    return np.lib.stride_tricks.as_strided(ids, shape, byte_strides, writeable=False)
