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

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from ngc.ir import program as ir
from ngc.ir.program import Program, Ref

# What may differ between the steps in a view of a value of outside: where it looks.
PLACES = ("starts", "index")


@dataclass(frozen=True, eq=False)
class Loop:
    """One loop. ``previous``: operation -> the same one in the step before, by number; ``states``:
    (operation, operand) that reads an initial value -> the result of step one that the
    corresponding operation of step two reads in its place."""

    previous: Mapping[int, int]
    states: Mapping[tuple[int, Ref], Ref]

    @cached_property
    def first(self) -> dict[int, int]:
        """Operation of a later step -> the same one in the first step."""
        found: dict[int, int] = {}
        for number in sorted(self.previous):
            before = self.previous[number]
            found[number] = found.get(before, before)
        return found


@dataclass(eq=False)
class _Found:
    """A loop as far as it has been found. ``within``: operations that depend on its first ones."""

    within: set[int]
    members: set[int] = field(default_factory=set)
    states: dict[tuple[int, Ref], Ref] = field(default_factory=dict)
    has_input: bool = False


@dataclass(eq=False)
class _Trial:
    """What would have to hold for two operations to correspond. ``loops``: those that would then be
    one."""

    pairs: dict[int, int] = field(default_factory=dict)
    states: dict[tuple[int, Ref], Ref] = field(default_factory=dict)
    has_input: bool = False
    loops: list[_Found] = field(default_factory=list)

    def merge(self, other: _Trial) -> None:
        self.pairs |= other.pairs
        self.states |= other.states
        self.has_input |= other.has_input
        self.loops += other.loops


def find_loops(program: Program) -> list[Loop]:
    """The loops of a program; no operation is in two."""
    return _Finder(program).run()


class _Finder:
    def __init__(self, program: Program) -> None:
        self.ops = program.ops
        self.number = {op.out.name: n for n, op in enumerate(program.ops)}
        self.readers: list[list[int]] = [[] for _ in program.ops]
        for n, op in enumerate(program.ops):
            for ref in dict.fromkeys(op.inputs):
                self.readers[self.number[ref]].append(n)
        self.loop_of: dict[int, _Found] = {}
        self.previous: dict[int, int] = {}
        self.following: dict[int, int] = {}

    def run(self) -> list[Loop]:
        last: dict[ir.Op, int] = {}  # the last operation of its attributes and parameters
        for n, op in enumerate(self.ops):
            weighted = bool(op.operands and op.inputs)
            if n not in self.previous and not self.continues(n) and weighted:
                self.starts(last.get(_kind(op), n), n)
            if weighted:
                last[_kind(op)] = n
        found = {id(loop): loop for loop in self.loop_of.values()}
        return [
            Loop({n: self.previous[n] for n in loop.members & self.previous.keys()}, loop.states)
            for loop in found.values()
            if loop.has_input and loop.states
        ]

    def starts(self, before: int, n: int) -> bool:
        """Whether a loop starts with two operations of which the second depends on the first."""
        loop = _Found(self.reached_from(before) if before < n else set())
        return n in loop.within and self.extend(loop, before, n)

    def continues(self, n: int) -> bool:
        """Whether the operation is one of the step before in its next step: one that reads what its
        operands were there."""
        for ref in self.ops[n].inputs:
            operand = self.number[ref]
            if operand not in self.previous:
                continue
            for before in self.readers[self.previous[operand]]:
                alike = before < n and _kind(self.ops[before]) == _kind(self.ops[n])
                if alike and self.extend(self.loop_of[operand], before, n):
                    return True
        return False

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
        self.previous |= trial.pairs
        self.following |= {one: two for two, one in trial.pairs.items()}
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
        for one, two in zip(self.ops[before].inputs, self.ops[n].inputs, strict=True):
            found = self.correspond(loop, before, one, two)
            if found is None:
                return None
            trial.merge(found)
        return trial

    def correspond(self, loop: _Found, reader: int, one: Ref, two: Ref) -> _Trial | None:
        """What it takes for ``two`` to be to the next step what ``one`` is to ``reader``."""
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
        if a in loop.within or reader in self.previous:
            return None  # states are read from outside in the first step only
        if first.is_view and second.is_view and _kind(first) == _kind(second):
            trial = self.operands_correspond(loop, a, b)  # the state is behind the view
            if trial is not None:
                trial.pairs[b] = a
                return trial
        if (first.out.shape, first.out.dtype) != (second.out.shape, second.out.dtype):
            return None
        return _Trial(states={(reader, one): two})

    def both_outside(self, loop: _Found, a: int, b: int) -> _Trial | None:
        """Two values of outside: the inputs of the steps, or computed from them alike."""
        first, second = self.ops[a], self.ops[b]
        others = any(self.loop_of.get(number, loop) is not loop for number in (a, b))
        if a in loop.within or others or not first.inputs:
            return None
        if first.is_view and first.inputs == second.inputs:
            alike = _kind(first, PLACES) == _kind(second, PLACES)
            return _Trial(pairs={b: a}, has_input=True) if alike else None
        if _kind(first) != _kind(second):
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
