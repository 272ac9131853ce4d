"""Batch normalisation written as Sub, Mul, Add becomes one operation again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ngc.ir import program as ir
from ngc.ir.program import Ints, Op, Program
from ngc.ir.slots import ONE, Slots
from ngc.passes.base import ProgramPass
from ngc.passes.rewrite import Scope, rewrite


@dataclass(frozen=True)
class RecogniseBatchNorm(ProgramPass):
    """(x - mean) * scale + bias, three parameters that vary along axis 1 only ->
    batch_norm(x, scale, bias, mean) with variance 1 and epsilon 0.

    The scale already holds the variance (Keras writes gamma times rsqrt), hence variance 1, exactly
    the same function. A ``batch_norm`` is along axis 1: with channels last the three operations
    stay as they are, and are the same diagonal edges in the graph.
    """

    name: ClassVar[str] = "recognise-batch-norm"

    def __call__(self, program: Program) -> Program:
        return rewrite(program, _step)


def _step(op: Op, scope: Scope) -> Op | None:
    if not (isinstance(op, ir.Shift) and op.fn == "add" and scope.has_one_use(op.x)):
        return None
    scaled = scope.producers[op.x]
    if not (isinstance(scaled, ir.Scale) and scaled.fn == "mul" and scope.has_one_use(scaled.x)):
        return None
    centred = scope.producers[scaled.x]
    if not (isinstance(centred, ir.Shift) and centred.fn == "sub"):
        return None
    shape = op.out.shape
    if scope.value(centred.x).shape != shape:
        return None
    mean = _by_channel(centred.term, shape)
    scale = _by_channel(scaled.factor, shape)
    bias = _by_channel(op.term, shape)
    if mean is None or scale is None or bias is None:
        return None
    return ir.BatchNorm(
        out=op.out,
        origin=op.origin,
        x=centred.x,
        scale=scale,
        bias=bias,
        mean=mean,
        var=Slots.constant(scale.shape, ONE),
        epsilon=0.0,
    )


def _by_channel(slots: Slots, shape: Ints) -> Slots | None:
    """The operand as [channels], if it varies along axis 1 of ``shape`` and no other."""
    lead = len(shape) - slots.ndim
    varying = [lead + k for k, n in enumerate(slots.shape) if n > 1]
    if varying != [1] or (slots.entries is None and slots.strides[1 - lead] == 0):
        return None
    return slots.reshape((shape[1],))
