"""What works along axes: reductions, softmax, running sums, sorting."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir

from ngc.ir import program as ir
from ngc.ir.program import Ints, Value
from ngc.passes.lower.base import Builder, Operand, Rule, lowers

# What the program calls each reduction, and the opset since when the axes are an input.
REDUCTIONS = {
    "ReduceL1": ("l1", 18),
    "ReduceL2": ("l2", 18),
    "ReduceLogSum": ("log_sum", 18),
    "ReduceLogSumExp": ("log_sum_exp", 18),
    "ReduceMax": ("max", 18),
    "ReduceMean": ("mean", 18),
    "ReduceMin": ("min", 18),
    "ReduceProd": ("prod", 18),
    "ReduceSum": ("sum", 13),
    "ReduceSumSquare": ("sum_square", 18),
}

# Reducing nothing still does to each entry what the reduction does besides.
OF_ONE_ENTRY: dict[str, tuple[str, Sequence[float]]] = {
    "l1": ("abs", ()),
    "l2": ("abs", ()),
    "log_sum": ("log", ()),
    "sum_square": ("power", (2.0,)),
}


def _rules(fn: str) -> tuple[Rule, Rule]:
    """The rule with axes as an attribute and the rule with axes as an input."""

    def old(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
        return _reduced(b, node, x, fn, node.attributes.get_ints("axes", ()))

    def new(b: Builder, node: onnx_ir.Node, x: Operand, axes: Operand | None = None) -> Operand:
        chosen = () if axes is None else b.ints_of(axes, "axes")
        noop = node.attributes.get_int("noop_with_empty_axes", 0)
        if noop and not chosen:
            function, numbers = OF_ONE_ENTRY.get(fn, ("", ()))
            return b.activation(x, function, *numbers) if function else x
        return _reduced(b, node, x, fn, chosen)

    return old, new


for _op_type, (_fn, _since) in REDUCTIONS.items():
    _old, _new = _rules(_fn)
    lowers(_op_type, since=1)(_old)
    lowers(_op_type, since=_since)(_new)


def _reduced(b: Builder, node: onnx_ir.Node, x: Operand, fn: str, axes: Sequence[int]) -> Operand:
    """Over the axes given, over all where none are."""
    rank = len(x.shape)
    chosen = tuple(sorted({b.axis(axis, rank) for axis in axes})) if rank else ()
    keep = bool(node.attributes.get_int("keepdims", 1))
    return reduced(b, x, fn, chosen or tuple(range(rank)), keep)


def reduced(b: Builder, x: Operand, fn: str, axes: Ints, keep: bool, dtype: str = "") -> Operand:
    """A Reduce over these axes. That of a scalar does to its one entry what the reduction does."""
    if not axes:
        function, numbers = OF_ONE_ENTRY.get(fn, ("", ()))
        return b.activation(x, function, *numbers) if function else x
    shape = [1 if k in axes else n for k, n in enumerate(x.shape) if keep or k not in axes]
    value = b.value(x)
    fields = {"x": value.name, "fn": fn, "axes": axes, "keepdims": keep}
    return b.emit(ir.Reduce, shape, dtype or x.dtype, **fields)


def _argument(fn: str) -> Rule:
    def rule(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
        axis = b.axis(node.attributes.get_int("axis", 0), len(x.shape))
        if not x.shape or not x.shape[axis]:
            raise b.misshapen(f"no entries along axis {axis} of {list(x.shape)}")
        last = node.attributes.get_int("select_last_index", 0)
        keep = bool(node.attributes.get_int("keepdims", 1))
        return reduced(b, x, f"{fn}_last" if last else fn, (axis,), keep, "int64")

    return rule


lowers("ArgMax", since=1)(_argument("argmax"))
lowers("ArgMin", since=1)(_argument("argmin"))


def _cumulated(fn: str) -> Rule:
    def rule(b: Builder, node: onnx_ir.Node, x: Operand, axis: Operand) -> Operand:
        (along,) = b.ints_of(axis, "axis")
        value = b.value(x)
        return b.emit(
            ir.Cumulate,
            x.shape,
            x.dtype,
            x=value.name,
            fn=fn,
            axis=b.axis(along, len(x.shape)),
            exclusive=bool(node.attributes.get_int("exclusive", 0)),
            reverse=bool(node.attributes.get_int("reverse", 0)),
        )

    return rule


lowers("CumSum", since=11)(_cumulated("sum"))
lowers("CumProd", since=26)(_cumulated("prod"))


@lowers("TopK", since=1)
def top_k_1(b: Builder, node: onnx_ir.Node, x: Operand) -> tuple[Operand, Operand]:
    """The number of entries is an attribute."""
    return _top(b, node, x, node.attributes.get_int("k", 0))


@lowers("TopK", since=10)
def top_k(b: Builder, node: onnx_ir.Node, x: Operand, k: Operand) -> tuple[Operand, Operand]:
    """The k largest, since opset 11 also smallest, entries and where they are; sorted even where
    that is not asked for."""
    (count,) = b.ints_of(k, "k")
    return _top(b, node, x, count)


def _top(b: Builder, node: onnx_ir.Node, x: Operand, count: int) -> tuple[Operand, Operand]:
    axis = b.axis(node.attributes.get_int("axis", -1), len(x.shape))
    if not x.shape or not 0 <= count <= x.shape[axis]:
        raise b.misshapen(f"{count} entries along axis {axis} of {list(x.shape)}")
    value, shape = b.value(x), (*x.shape[:axis], count, *x.shape[axis + 1 :])
    fields = {
        "x": value.name,
        "axis": axis,
        "largest": bool(node.attributes.get_int("largest", 1)),
    }
    values = b.emit(ir.TopK, shape, x.dtype, result="values", **fields)
    return values, b.emit(ir.TopK, shape, "int64", result="indices", **fields)


def _softmax(fn: str) -> tuple[Rule, Rule]:
    """Before opset 13 over all axes from ``axis`` on as if they were one; since then over one."""

    def old(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
        axis = b.axis(node.attributes.get_int("axis", 1), len(x.shape))
        if math.prod(x.shape[axis + 1 :]) == 1:
            return _along(b, x, fn, axis)
        flat = b.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
        return b.reshape(_along(b, flat, fn, 1), x.shape)

    def new(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
        return _along(b, x, fn, b.axis(node.attributes.get_int("axis", -1), len(x.shape)))

    return old, new


def _along(b: Builder, x: Operand, fn: str, axis: int) -> Value:
    if not x.shape:
        raise b.misshapen("it needs an axis, and a scalar has none")
    value = b.value(x)
    return b.emit(ir.Softmax, x.shape, x.dtype, x=value.name, fn=fn, axis=axis)


for _op_type, _fn in (
    ("Softmax", "softmax"),
    ("LogSoftmax", "log_softmax"),
    ("Hardmax", "hardmax"),
):
    _old, _new = _softmax(_fn)
    lowers(_op_type, since=1)(_old)
    lowers(_op_type, since=13)(_new)
