"""Plain factors and terms in a row become one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from ngc.ir import program as ir
from ngc.ir.program import Op, Program, Ref
from ngc.passes.base import ProgramPass
from ngc.passes.rewrite import Scope, rewrite


@dataclass(frozen=True)
class MergeAffine(ProgramPass):
    """c (a x + b) + d -> (c a) x + (c b + d); 1 x + 0 -> x. Floating-point values only."""

    name: ClassVar[str] = "merge-affine"

    def __call__(self, program: Program) -> Program:
        return rewrite(program, _step)


def _step(op: Op, scope: Scope) -> Op | Ref | None:
    if not (isinstance(op, ir.Activation) and op.fn == "affine"):
        return None
    inner = scope.producers[op.x]
    if op.a == (1.0, 0.0) and inner.out.dtype == op.out.dtype:
        return op.x
    if not (isinstance(inner, ir.Activation) and inner.fn == "affine" and scope.has_one_use(op.x)):
        return None
    dtypes = {op.out.dtype, inner.out.dtype, scope.value(inner.x).dtype}
    factor, term = op.a[0] * inner.a[0], op.a[0] * inner.a[1] + op.a[1]
    if len(dtypes) > 1 or not op.out.dtype.startswith("float"):
        return None
    if not (math.isfinite(factor) and math.isfinite(term)):
        return None
    return replace(op, x=inner.x, a=(factor, term))
