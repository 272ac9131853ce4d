"""Data movement that undoes itself goes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ngc.ir import program as ir
from ngc.ir.program import Op, Program, Ref
from ngc.passes.base import ProgramPass
from ngc.passes.rewrite import Scope, rewrite, share


@dataclass(frozen=True)
class FoldView(ProgramPass):
    """Transpose of transpose -> one transpose, reshape of reshape -> one reshape, expand of expand
    -> one expand; views, casts and affines that change nothing -> their operand; an expand that a
    combine repeats by broadcasting -> its operand; equal views of one value -> one view."""

    name: ClassVar[str] = "fold-view"

    def __call__(self, program: Program) -> Program:
        while True:
            folded = share(
                rewrite(program, _step), lambda op: op.is_view or isinstance(op, ir.Cast)
            )
            if folded is program:
                return program
            program = folded


def _step(op: Op, scope: Scope) -> Op | Ref | None:
    if len(op.inputs) == 1 and _is_identity(op, scope):
        return op.inputs[0]
    match op:
        case ir.Transpose(x=x, perm=perm):
            inner = scope.producers[x]
            if isinstance(inner, ir.Transpose):
                return replace(op, x=inner.x, perm=tuple(inner.perm[p] for p in perm))
        case ir.Reshape(x=x) | ir.Expand(x=x):
            inner = scope.producers[x]
            if isinstance(inner, ir.Reshape | ir.Expand) and type(inner) is type(op):
                return replace(op, x=inner.x)
        case ir.Combine():
            return _broadcasting(op, scope)
    return None


def _is_identity(op: Op, scope: Scope) -> bool:
    x = scope.value(op.inputs[0])
    if x.shape != op.out.shape or x.dtype != op.out.dtype:
        return False
    match op:
        case ir.Reshape() | ir.Expand() | ir.Concat() | ir.Cast() | ir.Pad():
            return True
        case ir.Activation(fn="affine", a=a):
            return a == (1.0, 0.0)
        case ir.Transpose(perm=perm):
            return perm == tuple(range(len(perm)))
        case ir.Slice(steps=steps):
            return all(d == 1 for d in steps)
        case ir.Take(index=index) | ir.Select(index=index):
            entries = index.numpy().reshape(-1)
            return bool(np.array_equal(entries, np.arange(len(entries))))
    return False


def _broadcasting(op: ir.Combine, scope: Scope) -> Op | None:
    """The combine reading what its expands read, one at a time while its shape stays."""
    refs = list(op.xs)
    for k, ref in enumerate(op.xs):
        inner = scope.producers[ref]
        if isinstance(inner, ir.Expand):
            refs[k] = inner.x
            shapes = [scope.value(r).shape for r in refs]
            if np.broadcast_shapes(*shapes) != op.out.shape:
                refs[k] = ref
    return replace(op, xs=tuple(refs)) if tuple(refs) != op.xs else None
