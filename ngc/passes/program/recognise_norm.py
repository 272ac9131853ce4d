"""Normalisations that exporters break up become one operation again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from ngc.ir import program as ir
from ngc.ir.program import Op, Program, Ref
from ngc.ir.slots import ONE, ZERO, Slots
from ngc.passes.base import ProgramPass
from ngc.passes.match import (
    Act,
    Any,
    Combined,
    Constant,
    OneOf,
    Pattern,
    Reduced,
    matches,
    quotient,
    square,
    square_root,
)
from ngc.passes.rewrite import Scope, rewrite


@dataclass(frozen=True)
class RecogniseNorm(ProgramPass):
    """(x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) -> normalise(x), and so on for each row
    of ``FORMS``. The constant scale 1 and shift 0 that group normalisation is written with go too;
    a learned one stays, whatever its value."""

    name: ClassVar[str] = "recognise-norm"

    def __call__(self, program: Program) -> Program:
        return rewrite(program, _step)


def _step(op: Op, scope: Scope) -> Op | Ref | None:
    match op:
        case ir.Scale(factor=slots, fn="mul") if _is_constant(slots, ONE):
            return op.x if scope.value(op.x).shape == op.out.shape else None
        case ir.Shift(term=slots, fn="add" | "sub") if _is_constant(slots, ZERO):
            return op.x if scope.value(op.x).shape == op.out.shape else None
        case ir.Combine(fn="div" | "mul"):
            return _normalise(op, scope)
    return None


def _is_constant(slots: Slots, slot: int) -> bool:
    return slots == Slots.constant(slots.shape, slot)


def _normalise(op: ir.Combine, scope: Scope) -> Op | None:
    for fn, pattern in FORMS:
        for found in matches(pattern, op, scope):
            x = scope.value(found.values["x"])
            axes = {tuple(sorted(reduce.axes)) for reduce in found.reductions}
            if x != replace(op.out, name=x.name) or not x.dtype.startswith("float"):
                continue
            if len(axes) != 1:
                continue
            return ir.Normalise(
                out=op.out,
                origin=op.origin,
                x=x.name,
                fn=fn,
                axes=axes.pop(),
                epsilon=found.numbers.get("epsilon", 0.0),
            )
    return None


X = Any("x")


def divided_by_root(x: Pattern, y: Pattern) -> Pattern:
    """x / sqrt(y + epsilon)"""
    stable = OneOf(Act("affine", y, 1.0, "epsilon"), y)
    return OneOf(
        quotient(x, square_root(stable)),
        Combined("mul", x, Act("power", stable, -0.5)),
        Combined("mul", x, Act("sqrt", Act("reciprocal", stable))),
    )


def at_least_epsilon(norm: Pattern) -> Pattern:
    return OneOf(Act("clip", norm, "epsilon", math.inf), Combined("max", norm, Constant("epsilon")))


CENTRED = Combined("sub", X, Reduced("mean", X))
SUM_OF_SQUARES = OneOf(Reduced("sum_square", X), Reduced("sum", square(X)))
L2 = OneOf(Reduced("l2", X), square_root(SUM_OF_SQUARES))
L1 = OneOf(Reduced("l1", X), Reduced("sum", Act("abs", X)))

FORMS: tuple[tuple[str, Pattern], ...] = (
    ("standard", divided_by_root(CENTRED, Reduced("mean", square(CENTRED)))),
    ("rms", divided_by_root(X, Reduced("mean", square(X)))),
    ("l2", quotient(X, at_least_epsilon(L2))),
    ("l1", quotient(X, at_least_epsilon(L1))),
)
