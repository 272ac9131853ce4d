"""Reductions, running sums, sorting and softmax: operations along axes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir

from ngc.ir import program as ir
from ngc.ir.program import Value
from ngc.passes.lower.base import Builder, Operand, Rule, lowers

REDUCTIONS = {
    "ReduceSum": "sum",
    "ReduceMean": "mean",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceL1": "l1",
    "ReduceL2": "l2",
    "ReduceSumSquare": "sum_square",
    "ReduceLogSum": "log_sum",
    "ReduceLogSumExp": "log_sum_exp",
}
# From this opset on the axes are an input instead of an attribute.
AXES_INPUT = {op_type: 13 if op_type == "ReduceSum" else 18 for op_type in REDUCTIONS}


def reduced(b: Builder, x: Operand, fn: str, axes: Sequence[int], keep: bool, dtype: str = "") -> Value:
    """One Reduce over some axes (negative ones count from the end)."""
    x = b.value(x)
    rank = len(x.shape)
    along = tuple(sorted({b.axis(a, rank) for a in axes}))
    shape = [1 if a in along else n for a, n in enumerate(x.shape) if keep or a not in along]
    return b.emit(
        ir.Reduce, shape, dtype or x.dtype, x=x.name, fn=fn, axes=along, keepdims=keep
    )


def _reduction_rules(fn: str) -> tuple[Rule, Rule]:
    def by_attribute(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
        axes = tuple(node.attributes.get_ints("axes", ())) or range(len(x.shape))
        return reduced(b, x, fn, axes, bool(node.attributes.get_int("keepdims", 1)))

    def by_input(
        b: Builder, node: onnx_ir.Node, x: Operand, axes: Operand | None = None
    ) -> Operand:
        along: Sequence[int] = b.ints_of(axes, "axes") if axes is not None else ()
        if not along:
            if node.attributes.get_int("noop_with_empty_axes", 0):
                return x
            along = range(len(x.shape))
        return reduced(b, x, fn, along, bool(node.attributes.get_int("keepdims", 1)))

    return by_attribute, by_input


for _op_type, _fn in REDUCTIONS.items():
    _old, _new = _reduction_rules(_fn)
    lowers(_op_type, since=1)(_old)
    lowers(_op_type, since=AXES_INPUT[_op_type])(_new)


def _arg_rule(fn: str) -> Rule:
    def rule(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
        last = node.attributes.get_int("select_last_index", 0)
        axis = node.attributes.get_int("axis", 0)
        keep = bool(node.attributes.get_int("keepdims", 1))
        return reduced(b, x, f"{fn}_last" if last else fn, (axis,), keep, "int64")

    return rule


lowers("ArgMax", since=1)(_arg_rule("argmax"))
lowers("ArgMin", since=1)(_arg_rule("argmin"))


def _cumulate_rule(fn: str) -> Rule:
    def rule(b: Builder, node: onnx_ir.Node, x: Operand, axis: Operand) -> Operand:
        x = b.value(x)
        return b.emit(
            ir.Cumulate,
            x.shape,
            x.dtype,
            x=x.name,
            fn=fn,
            axis=b.axis(b.ints_of(axis, "axis")[0], len(x.shape)),
            exclusive=bool(node.attributes.get_int("exclusive", 0)),
            reverse=bool(node.attributes.get_int("reverse", 0)),
        )

    return rule


lowers("CumSum", since=11)(_cumulate_rule("sum"))
lowers("CumProd", since=24)(_cumulate_rule("prod"))


@lowers("TopK", since=1)
def topk_1(b: Builder, node: onnx_ir.Node, x: Operand) -> tuple[Operand, Operand]:
    return _topk(b, node, x, node.attributes.get_int("k", 0))


@lowers("TopK", since=10)
def topk(b: Builder, node: onnx_ir.Node, x: Operand, k: Operand) -> tuple[Operand, Operand]:
    return _topk(b, node, x, b.ints_of(k, "k")[0])


def _topk(b: Builder, node: onnx_ir.Node, x: Operand, k: int) -> tuple[Operand, Operand]:
    """Values and places; sorted, which the unsorted form allows too."""
    x = b.value(x)
    axis = b.axis(node.attributes.get_int("axis", -1), len(x.shape))
    if not 0 < k <= x.shape[axis]:
        raise b.misshapen(f"the {k} largest of {x.shape[axis]}")
    shape = [k if a == axis else n for a, n in enumerate(x.shape)]
    largest = bool(node.attributes.get_int("largest", 1))

    def part(result: str, dtype: str) -> Value:
        return b.emit(
            ir.TopK, shape, dtype, x=x.name, axis=axis, largest=largest, result=result
        )

    return part("values", x.dtype), part("indices", "int64")


SOFTMAX = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Hardmax": "hardmax"}


def _softmax_rules(fn: str) -> tuple[Rule, Rule]:
    def along(b: Builder, x: Operand, axis: int) -> Operand:
        x = b.value(x)
        return b.emit(ir.Softmax, x.shape, x.dtype, x=x.name, fn=fn, axis=axis)

    def old(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
        """Before opset 13: over all axes from ``axis`` on at once."""
        axis = b.axis(node.attributes.get_int("axis", 1), len(x.shape))
        if axis == len(x.shape) - 1:
            return along(b, x, axis)
        flat = b.reshape(x, (*x.shape[:axis], -1))
        return b.reshape(along(b, flat, axis), x.shape)

    def new(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
        return along(b, x, b.axis(node.attributes.get_int("axis", -1), len(x.shape)))

    return old, new


for _op_type, _fn in SOFTMAX.items():
    _old, _new = _softmax_rules(_fn)
    lowers(_op_type, since=1)(_old)
    lowers(_op_type, since=13)(_new)
