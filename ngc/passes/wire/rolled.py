"""Wiring a loop once: all steps of a recurrent network have the neurons of the first one.

A state is read before it is computed, so its neurons are numbered ahead, as many as the network
written out has. Edges from such neurons are the recurrent ones. Where the steps turn out to read
different neurons, the loop stays written out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ngc.ir import program as ir
from ngc.ir.index import IndexArray
from ngc.ir.program import Ints, Ref
from ngc.passes.wire.base import RULES, Birth, Wirer, Wires, Wiring
from ngc.passes.wire.loops import Loop


class NotRolled(Exception):
    """Why a loop stays written out."""

    def __init__(self, loop: Loop, reason: str) -> None:
        super().__init__(reason)
        self.loop = loop


class Roller(Wirer):
    """Wires a program of which ``written_out`` is the wiring without any loop."""

    def __init__(
        self,
        written_out: Wiring,
        loops: Sequence[Loop],
        identity_axes: dict[Ref, Ints],
        max_elements: int,
    ) -> None:
        super().__init__(written_out.program, identity_axes, max_elements)
        self.written_out = written_out
        self.ops = written_out.program.ops
        self.number = {op.out.name: n for n, op in enumerate(self.ops)}
        self.loop_of: dict[int, Loop] = {}
        self.ahead: dict[Ref, IndexArray] = {}  # states that are not computed yet
        self.reserved: dict[int, np.ndarray] = {}  # operation -> its neurons, numbered ahead
        for loop in loops:
            self.loop_of |= dict.fromkeys({*loop.first, *loop.first.values()}, loop)
            self.wiring.first |= loop.first
            for (reader, place), state in loop.states.items():
                self.wiring.states.setdefault(reader, {})[place] = state
        self.readers: dict[Ref, list[int]] = {}
        for n, op in enumerate(self.ops):
            for ref in dict.fromkeys(op.inputs):
                self.readers.setdefault(ref, []).append(n)

    def run(self) -> Wiring:
        self.reserve()
        index = self.wiring.index
        for number, op in enumerate(self.ops):
            self.op = number
            if number in self.wiring.first:
                index[op.out.name] = self.again(self.wiring.first[number], op)
                continue
            state = self.state_instead(op)
            read = self.wiring.as_read(number)
            index[op.out.name] = RULES[type(op)](self, read) if state is None else state
            ahead = self.ahead.get(op.out.name)
            if ahead is not None and not _same(ahead, index[op.out.name]):
                raise self.not_rolled("a state has other neurons in each step")
        self.initial_values()
        self.wiring.births.sort(key=lambda birth: birth.start)
        return self.wiring

    def not_rolled(self, reason: str, number: int = -1) -> NotRolled:
        return NotRolled(self.loop_of[self.op if number < 0 else number], reason)

    # --- states ---

    def reserve(self) -> None:
        """Number the neurons of all states ahead."""
        before = self.written_out
        op_of = before.op_of()
        born = {birth.op: birth for birth in reversed(before.births) if birth.role == "out"}
        for reader, states in self.wiring.states.items():
            for state in states.values():
                ids = before.index[state].ids
                moved = ids.copy()
                for op in np.unique(op_of[ids]).tolist():
                    birth, own = born.get(op), op_of[ids] == op
                    if birth is None or (ids[own] >= birth.stop).any() or op not in self.loop_of:
                        raise self.not_rolled("a state comes from outside", reader)
                    if op not in self.reserved:
                        count = birth.stop - birth.start
                        start = self.wiring.num_neurons
                        self.reserved[op] = np.arange(start, start + count)
                        self.wiring.num_neurons += count
                    moved[own] = ids[own] - birth.start + self.reserved[op][0]
                self.ahead[state] = IndexArray(before.index[state].shape, moved)

    def index(self, ref: Ref) -> IndexArray:
        found = self.wiring.index.get(ref)
        return self.ahead[ref] if found is None else found

    def state_instead(self, op: ir.Op) -> IndexArray | None:
        """Zeros that a state starts from are no neurons of their own."""
        name = op.out.name
        if not (isinstance(op, ir.Constant) and op.is_zero):
            return None
        if any(name == ref for _, ref in self.wiring.program.outputs):
            return None
        reads = [
            self.wiring.states.get(n, {}).get(place)
            for n in self.readers.get(name, [])
            for place, ref in enumerate(self.ops[n].inputs)
            if ref == name
        ]
        return self.ahead[reads[0]] if reads and reads[0] and all(reads) else None

    def initial_values(self) -> None:
        """Edges from the values that states start from."""
        index, op_of = self.wiring.index, self.wiring.op_of()
        for initial, state in self.wiring.initial_values():
            start = self.ops[self.number[initial]]
            if isinstance(start, ir.Constant) and start.is_zero:
                continue
            source, target = initial_edges(index[initial], index[state])
            for op in np.unique(op_of[target]).tolist():
                self.op = op
                own = op_of[target] == op
                self.connect("initial", source[own][:, None], target[own][:, None])

    # --- steps ---

    def again(self, root: int, op: ir.Op) -> IndexArray:
        """The neurons of a later step are those of the first."""
        first = self.ops[root]
        result = self.wiring.index[first.out.name]
        if op.is_view and op.inputs == first.inputs:  # another place of a value of outside
            alike = _same(RULES[type(op)](self, op), result)
        else:
            reads = zip(self.wiring.as_read(root).inputs, self.wiring.as_read(self.op).inputs)
            alike = all(_same(self.index(one), self.index(two)) for one, two in reads)
        if not alike:
            raise self.not_rolled(f"the steps read different neurons at {op.origin or op.out.name}")
        return result

    def fresh(self, count: int, role: str = "out") -> np.ndarray:
        reserved = self.reserved.get(self.op)
        if reserved is None or role != "out":
            return super().fresh(count, role)
        if len(reserved) != count or any(b.start == reserved[0] for b in self.wiring.births):
            raise self.not_rolled("a state has other neurons in each step")
        stop = int(reserved[0]) + count
        self.wiring.births.append(Birth(self.op, int(reserved[0]), stop, role))
        return reserved

    def record(self, wires: Wires) -> None:
        """Edges from neurons that are computed only later, or now, are recurrent."""
        late = [ids for op, ids in self.reserved.items() if op >= self.op]
        if not late or wires.kind == "initial":
            super().record(wires)
            return
        recurrent = np.isin(wires.src, np.concatenate(late))
        if (recurrent != recurrent[:1]).any():
            raise self.not_rolled("states and inputs are mixed")
        for flag in np.unique(recurrent[0]).tolist():
            columns = np.flatnonzero(recurrent[0] == flag)
            src, slots = wires.src[:, columns], wires.slots.along(2, columns)
            super().record(replace(wires, src=src, slots=slots, recurrent=flag))


def _same(a: IndexArray, b: IndexArray) -> bool:
    return a.shape == b.shape and np.array_equal(a.ids, b.ids)


def initial_edges(initial: IndexArray, state: IndexArray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of neurons: a value that a state starts from, and the state."""
    both = np.broadcast_arrays(initial.ids, state.ids)
    source, target = np.unique(np.stack([ids.reshape(-1) for ids in both]), axis=1)
    return source, target
