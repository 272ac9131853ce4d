"""Reductions written as pools, or in pieces, become one operation again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from ngc.ir import program as ir
from ngc.ir.program import Op, Program
from ngc.passes.base import ProgramPass
from ngc.passes.match import close
from ngc.passes.rewrite import Scope, rewrite


@dataclass(frozen=True)
class RecogniseReduce(ProgramPass):
    """A pool over the whole extent -> reduce over all space axes, kept; sum times 1 / count ->
    mean; a reduce that drops its axes and a reshape that puts them back -> one that keeps them."""

    name: ClassVar[str] = "recognise-reduce"

    def __call__(self, program: Program) -> Program:
        return rewrite(program, _step)


def _step(op: Op, scope: Scope) -> Op | None:
    match op:
        case ir.Pool():
            return _global_pool(op, scope)
        case ir.Activation(fn="affine", a=(factor, 0.0)):
            return _mean(op, factor, scope)
        case ir.Reshape():
            return _kept(op, scope)
    return None


def _global_pool(op: ir.Pool, scope: Scope) -> Op | None:
    fn = {"mean": "mean", "max": "max", "lp": {1: "l1", 2: "l2"}.get(op.p, "")}[op.fn]
    size, rank = scope.value(op.x).shape[2:], len(op.kernel)
    whole = op.kernel == size and op.out.shape[2:] == (1,) * rank and not any(op.pads)
    if not (fn and rank and whole and 0 not in size):
        return None
    if any(d > 1 and n > 1 for d, n in zip(op.dilations, size, strict=True)):
        return None
    axes = tuple(range(2, 2 + rank))
    return ir.Reduce(out=op.out, origin=op.origin, x=op.x, fn=fn, axes=axes, keepdims=True)


def _mean(op: ir.Activation, factor: float, scope: Scope) -> Op | None:
    total = scope.producers[op.x]
    if not (isinstance(total, ir.Reduce) and total.fn == "sum" and scope.has_one_use(op.x)):
        return None
    x = scope.value(total.x)
    count = math.prod(x.shape[axis] for axis in total.axes)
    # A tolerance here would take 1 / 1000 for 1 / 1001.
    if not (count and close(factor * count, 1.0) and abs(factor * count - 1.0) < 1e-6):
        return None
    return replace(total, out=op.out, fn="mean")


def _kept(op: ir.Reshape, scope: Scope) -> Op | None:
    reduced = scope.producers[op.x]
    if not (isinstance(reduced, ir.Reduce) and not reduced.keepdims and scope.has_one_use(op.x)):
        return None
    shape = scope.value(reduced.x).shape
    kept = tuple(1 if axis in reduced.axes else n for axis, n in enumerate(shape))
    return replace(reduced, out=op.out, keepdims=True) if op.out.shape == kept else None
