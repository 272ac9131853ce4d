"""Axes of an input that no weighted operation contracts: those of the neurons that it meets.

A mask is added to scores, a gate multiplies features. Along which axes there lie neurons, and along
which positions, is known once what the input meets is wired; the same holds for the input.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ngc.errors import NgcError
from ngc.ir import program as ir
from ngc.ir.index import IndexArray
from ngc.ir.program import Ints, Program, Ref
from ngc.passes.wire.base import RULES, Wirer


@dataclass(frozen=True, eq=False)
class Meeting:
    """``op`` reads ``own``, in which the elements of ``source`` are at ``trail``, and ``others``:
    values computed without it, with the sources of each."""

    op: ir.Op
    source: Ref
    own: Ref
    trail: IndexArray
    others: Mapping[Ref, frozenset[Ref]]


class Teller:
    """Tells axes from meetings. ``axes``: those of the sources, without the ones that are asked for
    until they are known."""

    def __init__(self, program: Program, axes: dict[Ref, Ints], max_elements: int) -> None:
        self.wirer = Wirer(program, axes, max_elements)
        self.failed = False

    def axes(self, meeting: Meeting, found: Collection[Ref]) -> list[int] | None:
        """Axes of the trail along which neurons lie; None where it cannot be told. Only what comes
        from ``found`` sources, that some operation asked of, tells."""
        known = self.wirer.identity_axes
        others = [
            ref
            for ref, sources in meeting.others.items()
            if sources <= known.keys() and not sources.isdisjoint(found)
        ]
        if not others or self.failed:
            return None
        try:
            return _told(meeting, {ref: self.wired(ref) for ref in others})
        except NgcError:  # refused or too large: compiling says so, if the choice does not help it
            self.failed = True
            return None

    def wired(self, ref: Ref) -> IndexArray:
        """The neurons of a value. Nothing is wired but what it is computed from."""
        wirer, index = self.wirer, self.wirer.wiring.index
        ops = wirer.wiring.program.ops
        needed = {ref}
        for op in reversed(ops):
            if op.out.name in needed and op.out.name not in index:
                needed.update(op.inputs)
        for wirer.op, op in enumerate(ops):
            if op.out.name in needed and op.out.name not in index:
                index[op.out.name] = RULES[type(op)](wirer, op)
        return index[ref]


def _told(meeting: Meeting, met: Mapping[Ref, IndexArray]) -> list[int] | None:
    """Axes of the trail that are of neurons; None where what it meets is as large as one entry."""
    own, others, summed = _names(meeting, met)
    moving = [c for c, size in zip(own, meeting.trail.ids.shape) if size > 1]
    neurons, large, brought = set(), set(), False
    for letters, index in others:
        for c, size, distinct in zip(letters, index.shape, index.ids.shape):
            large |= {c} if size > 1 else set()
            neurons |= {c} if distinct > 1 and c in moving else set()
            brought |= distinct > 1 and c not in moving
    if not large & set(moving):
        return None
    # Along axes that the other lacks, the input brings neurons if the other has none besides what
    # they share, and if no neurons are summed over: what is left of those are positions.
    alone = set(moving) - large
    if brought or neurons & summed or (neurons and not summed):
        alone = set()
    return [own.index(c) for c in moving if c in neurons | alone]


def _names(
    meeting: Meeting, met: Mapping[Ref, IndexArray]
) -> tuple[str, list[tuple[str, IndexArray]], set[str]]:
    """Letters for the axes of the trail and of what it meets, alike where they meet, and those that
    are summed over."""
    op = meeting.op
    if isinstance(op, ir.Contract):
        left, right, out = op.spec.replace("->", ",").split(",")
        own, other = (left, right) if op.a == meeting.own else (right, left)
        return own, [(other, index) for index in met.values()], (set(own) & set(other)) - set(out)
    rank = len(op.out.shape)
    letters = "".join(chr(ord("a") + k) for k in range(rank))
    others = [(letters[rank - len(index.shape) :], index) for index in met.values()]
    return letters[rank - len(meeting.trail.shape) :], others, set()
