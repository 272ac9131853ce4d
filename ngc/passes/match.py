"""Patterns over the operations that lead to a value.

A pattern looks at the operation that computes a value, and its parts at the values that operation
reads::

    X = Any("x")
    SILU = Product(1.0, X, Act("sigmoid", X))

``find`` yields every way in which a pattern fits. Wherever a pattern takes a number, a float stands
for that number (exporters round: 1e-3 relative) and a string binds it to a name.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ngc.ir import program as ir
from ngc.ir.program import Op, Ref
from ngc.passes.rewrite import Scope

TOLERANCE = 1e-3
COMMUTATIVE = frozenset(("add", "mul", "max", "min"))
Number: TypeAlias = "float | str"


def close(a: float, b: float) -> bool:
    return a == b or math.isclose(a, b, rel_tol=TOLERANCE)


@dataclass(frozen=True)
class Match:
    """How a pattern fits: the values and numbers its names stand for, the reductions it met, and
    the operations it covers."""

    scope: Scope
    values: dict[str, Ref] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    reductions: tuple[ir.Reduce, ...] = ()
    covered: tuple[Op, ...] = ()

    def producer(self, ref: Ref) -> Op:
        return self.scope.producers[ref]

    def covering(self, op: Op) -> Match:
        return replace(self, covered=(*self.covered, op))

    def number(self, wanted: Number, found: float) -> Match | None:
        if isinstance(wanted, str):
            known = self.numbers.get(wanted)
            if known is None:
                return replace(self, numbers={**self.numbers, wanted: found})
            wanted = known
        return self if close(wanted, found) else None

    def is_closed(self, root: Op) -> bool:
        """Whether what lies between the root and the bound values is read nowhere else. Constants
        may be: they cost nothing to keep."""
        names = {op.out.name for op in self.covered}
        return all(
            op.out.name == root.out.name
            or isinstance(op, ir.Constant)
            or self.scope.used_only_by(op.out.name, names)
            for op in self.covered
        )


class Pattern(ABC):
    @abstractmethod
    def find(self, ref: Ref, m: Match) -> Iterator[Match]:
        """Every way in which the value fits, each a match that extends ``m``."""


@dataclass(frozen=True)
class Any(Pattern):
    """Any value; the same name is the same value."""

    name: str

    def find(self, ref: Ref, m: Match) -> Iterator[Match]:
        known = m.values.get(self.name)
        if known is None:
            yield replace(m, values={**m.values, self.name: ref})
        elif known == ref:
            yield m


@dataclass(frozen=True)
class Constant(Pattern):
    """A constant of one entry."""

    number: Number

    def find(self, ref: Ref, m: Match) -> Iterator[Match]:
        op = m.producer(ref)
        if isinstance(op, ir.Constant) and math.prod(op.data.shape) == 1:
            found = m.covering(op).number(self.number, float(op.data.numpy().reshape(())))
            if found:
                yield found


class Act(Pattern):
    """An activation of ``x`` with these numbers."""

    def __init__(self, fn: str, x: Pattern, *numbers: Number) -> None:
        self.fn, self.x, self.numbers = fn, x, numbers

    def find(self, ref: Ref, m: Match) -> Iterator[Match]:
        op = m.producer(ref)
        if not (isinstance(op, ir.Activation) and op.fn == self.fn):
            return
        if len(op.a) != len(self.numbers):
            return
        found: Match | None = m.covering(op)
        for wanted, number in zip(self.numbers, op.a, strict=True):
            found = found.number(wanted, number) if found else None
        if found:
            yield from self.x.find(op.x, found)


class Combined(Pattern):
    """A Combine of ``xs``, in any order where the function does not mind."""

    def __init__(self, fn: str, *xs: Pattern) -> None:
        self.fn, self.xs = fn, xs

    def find(self, ref: Ref, m: Match) -> Iterator[Match]:
        op = m.producer(ref)
        if isinstance(op, ir.Combine) and op.fn == self.fn and len(op.xs) == len(self.xs):
            orders = itertools.permutations(op.xs) if self.fn in COMMUTATIVE else [op.xs]
            for refs in orders:
                yield from all_of(self.xs, refs, m.covering(op))


class Reduced(Pattern):
    """A Reduce of ``x`` that keeps its axes."""

    def __init__(self, fn: str, x: Pattern) -> None:
        self.fn, self.x = fn, x

    def find(self, ref: Ref, m: Match) -> Iterator[Match]:
        op = m.producer(ref)
        if isinstance(op, ir.Reduce) and op.fn == self.fn and op.keepdims:
            m = replace(m.covering(op), reductions=(*m.reductions, op))
            yield from self.x.find(op.x, m)


class OneOf(Pattern):
    def __init__(self, *choices: Pattern) -> None:
        self.choices = choices

    def find(self, ref: Ref, m: Match) -> Iterator[Match]:
        for choice in self.choices:
            yield from choice.find(ref, m)


class Product(Pattern):
    """``scale`` times the factors, however the products and plain factors are ordered."""

    def __init__(self, scale: Number, *factors: Pattern) -> None:
        self.scale, self.factors = scale, factors

    def find(self, ref: Ref, m: Match) -> Iterator[Match]:
        for scale, refs, covering in _factored(ref, len(self.factors), m):
            found = covering.number(self.scale, scale)
            for order in set(itertools.permutations(refs)) if found else ():
                assert found
                yield from all_of(self.factors, order, found)


def _factored(ref: Ref, count: int, m: Match) -> Iterator[tuple[float, tuple[Ref, ...], Match]]:
    """Ways to write a value as a number times ``count`` values."""
    if count == 1:
        yield 1.0, (ref,), m
    match m.producer(ref):
        case ir.Activation(fn="affine", a=(number, 0.0)) as op:
            for scale, refs, found in _factored(op.x, count, m.covering(op)):
                yield scale * number, refs, found
        case ir.Activation(fn="neg") as op:
            for scale, refs, found in _factored(op.x, count, m.covering(op)):
                yield -scale, refs, found
        case ir.Activation(fn="power", a=(exponent,)) as op if exponent == count > 1:
            yield 1.0, (op.x,) * count, m.covering(op)
        case ir.Combine(fn="mul", xs=(left, right)) as op:
            for k in range(1, count):
                for s, a, found in _factored(left, k, m.covering(op)):
                    for t, b, both in _factored(right, count - k, found):
                        yield s * t, a + b, both


def all_of(patterns: Sequence[Pattern], refs: Sequence[Ref], m: Match) -> Iterator[Match]:
    """Ways in which each pattern fits the value at its place."""
    if not patterns:
        yield m
        return
    for found in patterns[0].find(refs[0], m):
        yield from all_of(patterns[1:], refs[1:], found)


def matches(pattern: Pattern, root: Op, scope: Scope) -> Iterator[Match]:
    """Ways in which the pattern fits the result of ``root`` and covers nothing read elsewhere."""
    for found in pattern.find(root.out.name, Match(scope)):
        if found.is_closed(root):
            yield found


# --- patterns that several passes need -------------------------------------------------------


def square(x: Pattern) -> Pattern:
    return Product(1.0, x, x)


def quotient(x: Pattern, y: Pattern) -> Pattern:
    return OneOf(Combined("div", x, y), Combined("mul", x, Act("reciprocal", y)))


def square_root(x: Pattern) -> Pattern:
    return OneOf(Act("sqrt", x), Act("power", x, 0.5))
