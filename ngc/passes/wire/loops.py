"""Finding loops that are written out: the steps of a recurrent network.

Exporters write a recurrent network step by step, and ``lower/recurrent.py`` does so too. The steps
are found by dataflow: an operation of one step is that of the step before if it has the same
attributes and parameters, and operands that correspond. Operands correspond if they are

- results of corresponding operations (a *state* among them: what step one reads comes from outside,
  what the next one reads is a result of step one);
- one value of outside;
- different places of one value of outside: the input of the step.

A network that applies the same layers again and again to nothing but their own result is deep, not
recurrent: without an input of the step there is no loop.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypeAlias

from ngc.ir import program as ir
from ngc.ir.program import Program, Ref

# What may differ between the steps in a view of a value of outside: where it looks.
PLACES = ("starts", "index")

# (operation, place of an operand among its inputs)
Read: TypeAlias = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Loop:
    """One loop. ``previous``: operation -> the same one in the step before, by number; ``states``:
    what reads an initial value -> the result of step one that the corresponding operation of step
    two reads in its place."""

    previous: Mapping[int, int]
    states: Mapping[Read, Ref]

    @cached_property
    def first(self) -> dict[int, int]:
        """Operation -> the first in the program that is the same: that of step one, but inputs of
        the steps may be computed in another order than they are read."""
        found: dict[int, int] = {}
        for last in self.previous.keys() - set(self.previous.values()):
            chain = [last]
            while chain[-1] in self.previous:
                chain.append(self.previous[chain[-1]])
            found |= dict.fromkeys(chain, min(chain))
        return {number: first for number, first in found.items() if number != first}


@dataclass(eq=False)
class _Found:
    """A loop as far as it has been found. ``within``: operations that depend on its first ones."""

    within: set[int]
    members: set[int] = field(default_factory=set)
    states: dict[Read, Ref] = field(default_factory=dict)
    has_input: bool = False


@dataclass(eq=False)
class _Trial:
    """What would have to hold for two operations to correspond. ``loops``: those that would then be
    one."""

    pairs: dict[int, int] = field(default_factory=dict)
    states: dict[Read, Ref] = field(default_factory=dict)
    has_input: bool = False
    loops: list[_Found] = field(default_factory=list)

    def merge(self, other: _Trial) -> None:
        self.pairs |= other.pairs
        self.states |= other.states
        self.has_input |= other.has_input
        self.loops += other.loops


def find_loops(program: Program, alone: Collection[int] = ()) -> list[Loop]:
    """The loops of a program; no operation is in two, and those of ``alone`` in none."""
    alone = set(alone)
    loops, broken = _Finder(program, alone).run()
    while broken:
        # Exporters simplify a first step that starts from zeros, and then it is not like the
        # others: without it there may be a longer loop.
        alone |= {first for loop in broken for first in loop.first.values()}
        longer, broken = _Finder(program, alone).run()
        if sum(len(loop.first) for loop in longer) <= sum(len(loop.first) for loop in loops):
            break
        loops = longer
    return loops


class _Finder:
    def __init__(self, program: Program, alone: Collection[int]) -> None:
        self.ops, self.alone = program.ops, frozenset(alone)
        self.kinds = [_kind(op) for op in program.ops]
        self.number = {op.out.name: n for n, op in enumerate(program.ops)}
        self.readers: list[list[int]] = [[] for _ in program.ops]
        for n, op in enumerate(program.ops):
            for ref in dict.fromkeys(op.inputs):
                self.readers[self.number[ref]].append(n)
        self.loop_of: dict[int, _Found] = {}
        self.previous: dict[int, int] = {}
        self.following: dict[int, int] = {}

    def run(self) -> tuple[list[Loop], list[Loop]]:
        """The loops, and those of which a further step is unlike the others."""
        grown = True
        while grown:  # what reads a state may come before the operation that shows it to be one
            grown = False
            last = dict(self.alike())
            for n in range(len(self.ops)):
                if n not in self.previous:
                    grown |= self.continues(n) or (n in last and self.starts(last[n], n))
        found = {id(loop): loop for loop in self.loop_of.values()}
        for loop in found.values():  # what turned out to be the same operation is no state
            loop.states = {
                (reader, place): state
                for (reader, place), state in loop.states.items()
                if self.previous.get(self.number[state], -1)
                != self.number[self.ops[reader].inputs[place]]
            }
        loops = {
            key: Loop(
                {n: self.previous[n] for n in loop.members & self.previous.keys()}, loop.states
            )
            for key, loop in found.items()
            if loop.has_input and loop.states and self.is_consistent(loop)
        }
        broken = {
            id(self.loop_of[before])
            for n, before in self.alike()
            if before in self.previous and n not in self.previous
            if n in self.loop_of[before].within
        }
        return list(loops.values()), [loop for key, loop in loops.items() if key in broken]

    def alike(self) -> Iterator[tuple[int, int]]:
        """Each operation with parameters, and the last one before of the same parameters."""
        last: dict[ir.Op, int] = {}
        for n, op in enumerate(self.ops):
            if op.operands and op.inputs:
                if self.kinds[n] in last:
                    yield n, last[self.kinds[n]]
                last[self.kinds[n]] = n

    def is_consistent(self, loop: _Found) -> bool:
        """Whether states are results of step one, which reads nothing of later steps."""
        later = loop.members & self.previous.keys()
        firsts = loop.members - later
        reads = {self.number[ref] for n in firsts & loop.within for ref in self.ops[n].inputs}
        return not reads & later and not any(
            self.depends_on_later(loop, self.number[state]) for state in loop.states.values()
        )

    def depends_on_later(self, loop: _Found, n: int) -> bool:
        """Whether an operation depends on one of a later step of a loop, or is one."""
        first = min(loop.members, default=n)
        seen, rest = {n}, [n]
        while rest:
            op = rest.pop()
            if op in self.previous and op in loop.members:
                return True
            sources = {self.number[ref] for ref in self.ops[op].inputs} - seen
            rest += [source for source in sources if source >= first]
            seen |= sources
        return False

    def starts(self, before: int, n: int) -> bool:
        """Whether a loop starts with two operations of which the second depends on the first."""
        if before in self.following:
            return False
        loop = _Found(self.reached_from(before))
        return n in loop.within and self.extend(loop, before, n)

    def continues(self, n: int) -> bool:
        """Whether the operation is one of the step before in its next step: one that reads what its
        operands were there."""
        for ref in self.ops[n].inputs:
            loop = self.loop_of.get(self.number[ref])
            for one in [] if loop is None else self.before(loop, ref):
                for reader in self.readers[one]:
                    alike = reader < n and self.kinds[reader] == self.kinds[n]
                    if alike and loop is not None and self.extend(loop, reader, n):
                        return True
        return False

    def before(self, loop: _Found, ref: Ref) -> list[int]:
        """What a value of a loop is in the step before; of a state of step one, what it starts
        from."""
        operand = self.number[ref]
        if operand in self.previous:
            return [self.previous[operand]]
        reads = [read for read, state in loop.states.items() if state == ref]
        return [self.number[self.ops[reader].inputs[place]] for reader, place in reads]

    def extend(self, loop: _Found, before: int, n: int) -> bool:
        """Take operation n for ``before`` in the next step, if it can be."""
        if before in self.following:
            return False
        trial = self.operands_correspond(loop, before, n)
        if trial is None:
            return False
        trial.pairs[n] = before
        if len(set(trial.pairs.values())) < len(trial.pairs):
            return False
        if self.alone & {*trial.pairs, *trial.pairs.values()}:
            return False
        self.previous |= trial.pairs
        self.following |= {one: two for two, one in trial.pairs.items()}
        if n in loop.within and before not in loop.within:  # it reads an initial value, too
            loop.within |= self.reached_from(before)
        loop.members |= {*trial.pairs, *trial.pairs.values()}
        loop.states |= trial.states
        loop.has_input |= trial.has_input
        for other in trial.loops:
            loop.within |= other.within
            loop.members |= other.members
            loop.states |= other.states
            loop.has_input |= other.has_input
        new = {*trial.pairs, *trial.pairs.values()}.union(*(o.members for o in trial.loops))
        self.loop_of |= dict.fromkeys(new, loop)
        return True

    def operands_correspond(self, loop: _Found, before: int, n: int) -> _Trial | None:
        trial = _Trial()
        inputs = zip(self.ops[before].inputs, self.ops[n].inputs, strict=True)
        for place, (one, two) in enumerate(inputs):
            found = self.correspond(loop, (before, place), one, two)
            if found is None:
                return None
            trial.merge(found)
        return trial

    def correspond(self, loop: _Found, read: Read, one: Ref, two: Ref) -> _Trial | None:
        """What it takes for ``two`` to be to the next step what ``one``, read there, is to this."""
        a, b = self.number[one], self.number[two]
        if a == b:
            return _Trial()
        if self.previous.get(b) == a:
            other = self.loop_of[b]
            return _Trial(loops=[] if other is loop else [other])
        if a in self.following or b in self.previous:
            return None
        first, second = self.ops[a], self.ops[b]
        if b not in loop.within:
            return self.both_outside(loop, a, b)
        if a in loop.within or read[0] in self.previous:
            return None  # states are read from outside in the first step only
        if first.is_view and second.is_view and self.kinds[a] == self.kinds[b]:
            trial = self.operands_correspond(loop, a, b)  # the state is behind the view
            if trial is not None:
                trial.pairs[b] = a
                return trial
        if (first.out.shape, first.out.dtype) != (second.out.shape, second.out.dtype):
            return None
        if self.depends_on_later(loop, b):
            return None
        return _Trial(states={read: two})

    def both_outside(self, loop: _Found, a: int, b: int) -> _Trial | None:
        """Two values of outside: the inputs of the steps, or computed from them alike."""
        first, second = self.ops[a], self.ops[b]
        others = any(self.loop_of.get(number, loop) is not loop for number in (a, b))
        if a in loop.within or others or not first.inputs:
            return None
        if first.is_view and first.inputs == second.inputs:
            alike = _kind(first, PLACES) == _kind(second, PLACES)
            return _Trial(pairs={b: a}, has_input=True) if alike else None
        if self.kinds[a] != self.kinds[b]:
            return None
        trial = self.operands_correspond(loop, a, b)
        if trial is not None:
            trial.pairs[b] = a
        return trial

    def reached_from(self, start: int) -> set[int]:
        found, rest = {start}, [start]
        while rest:
            for reader in self.readers[rest.pop()]:
                if reader not in found:
                    found.add(reader)
                    rest.append(reader)
        return found


def _kind(op: ir.Op, apart_from: tuple[str, ...] = ()) -> ir.Op:
    """The operation without what it reads: equal for operations of the same attributes, parameters
    and shape of result."""
    gone: dict[str, Any] = {f.name: None for f in fields(op) if f.name in apart_from}
    names = dict.fromkeys(op.inputs, "")
    return replace(op.renamed(names), out=replace(op.out, name=""), **gone)
