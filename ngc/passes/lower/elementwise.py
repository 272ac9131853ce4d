"""Arithmetic, comparison and logic of several tensors, entry by entry.

A known operand of arithmetic is one of three things: a parameter (Scale, Shift), a plain number
(Activation), or a fixed tensor (Constant and Combine).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import onnx_ir

from ngc.ir.program import Value
from ngc.passes.lower.base import Builder, Known, Operand, Rule, is_float, is_initial_state, lowers

ARITHMETIC = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}
VARIADIC = {"Max": "max", "Min": "min", "Sum": "add", "Mean": "mean"}
COMPARISONS = {
    "And": "and",
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Or": "or",
    "Xor": "xor",
}
BITWISE = {"BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor"}


def _aligned(b: Builder, node: onnx_ir.Node, x: Operand, y: Operand) -> Operand:
    """Before opset 7: y fits into x from ``axis`` on, at the end by default, where the attribute
    ``broadcast`` allows it."""
    if not node.attributes.get_int("broadcast", 0):
        if x.shape != y.shape:
            raise b.misshapen(f"shapes {list(x.shape)} and {list(y.shape)} differ")
        return y
    first = len(x.shape) - len(y.shape)
    axis = node.attributes.get_int("axis", first)
    if not 0 <= axis <= first:
        raise b.misshapen(f"{list(y.shape)} does not fit {list(x.shape)} from axis {axis} on")
    return b.reshape(y, (*y.shape, *[1] * (first - axis)))


Binary: TypeAlias = Callable[[Builder, str, Operand, Operand], Operand]


def _rules(fn: str, compute: Binary) -> tuple[Rule, Rule]:
    """The rule with the old broadcasting and the rule with numpy's."""

    def old(b: Builder, node: onnx_ir.Node, x: Operand, y: Operand) -> Operand:
        return compute(b, fn, x, _aligned(b, node, x, y))

    def new(b: Builder, node: onnx_ir.Node, x: Operand, y: Operand) -> Operand:
        return compute(b, fn, x, y)

    return old, new


def arithmetic(b: Builder, fn: str, x: Operand, y: Operand) -> Operand:
    """add, sub, mul or div of two operands, at most one of them known."""
    if isinstance(y, Known) and is_float(y.dtype):
        return _with_known(b, fn, x, y)
    if isinstance(x, Known) and is_float(x.dtype):
        return _with_known(b, {"sub": "rsub", "div": "rdiv"}.get(fn, fn), y, x)
    return b.combine(fn, x, y)


def _with_known(b: Builder, fn: str, x: Operand, known: Known) -> Operand:
    """``fn`` of a value and a known tensor; rsub and rdiv are known - x and known / x."""
    shape = b.broadcast(x, known)
    if b.is_parameter(known):
        wide = b.expand(x, shape)
        return (b.shift if fn in ("add", "sub", "rsub") else b.scale)(wide, known, fn)
    number = _number(b, known)
    state = fn in ("mul", "sub", "rsub") and is_initial_state(known)
    if number is None or state or (fn == "div" and number == 0.0):
        pair = (known, x) if fn in ("rsub", "rdiv") else (x, known)
        return b.combine(fn.removeprefix("r"), *pair)
    x = b.expand(x, shape)
    match fn:
        case "add":
            return b.activation(x, "affine", 1.0, number)
        case "sub":
            return b.activation(x, "affine", 1.0, -number)
        case "rsub":
            return b.activation(x, "affine", -1.0, number)
        case "mul":
            return b.activation(x, "affine", number, 0.0)
        case "div":
            return b.activation(x, "affine", 1.0 / number, 0.0)
        case "rdiv" if number == 1.0:
            return b.activation(x, "reciprocal")
        case "rdiv":
            return b.activation(b.activation(x, "reciprocal"), "affine", number, 0.0)
    raise AssertionError(fn)


def _number(b: Builder, known: Known) -> float | None:
    """The one number a known floating-point tensor that is no parameter consists of."""
    if known.array.size == 0:
        return None
    first = known.array.reshape(-1)[0]
    if known.array.size > 1 and not np.all(known.array == first):
        return None
    b.values_of(Known(np.asarray(first)), "number")
    return float(first)


for _op_type, _fn in ARITHMETIC.items():
    _old, _new = _rules(_fn, arithmetic)
    lowers(_op_type, since=1)(_old)
    lowers(_op_type, since=7)(_new)


def _logic(b: Builder, fn: str, x: Operand, y: Operand) -> Operand:
    return b.combine(fn, x, y, dtype="bool")


for _op_type, _fn in COMPARISONS.items():
    _old, _new = _rules(_fn, _logic)
    lowers(_op_type, since=1)(_old)
    lowers(_op_type, since=7)(_new)


def _bitwise(b: Builder, fn: str, x: Operand, y: Operand) -> Operand:
    return b.combine(fn, x, y)


for _op_type, _fn in BITWISE.items():
    lowers(_op_type, since=18)(_rules(_fn, _bitwise)[1])


@lowers("BitShift", since=11)
def bit_shift(b: Builder, node: onnx_ir.Node, x: Operand, y: Operand) -> Operand:
    """x shifted by y bits to the left or to the right."""
    direction = node.attributes.get_string("direction")
    return b.combine("shift_left" if direction == "LEFT" else "shift_right", x, y)


def _power(b: Builder, fn: str, x: Operand, y: Operand) -> Operand:
    """x ^ y in the type of x. A plain number as exponent or base makes an Activation."""
    if isinstance(y, Known) and is_float(x.dtype) and not b.is_parameter(y):
        number = _number(b, y)
        if number is not None:
            return b.activation(b.expand(x, b.broadcast(x, y)), "power", number)
    if isinstance(x, Known) and is_float(x.dtype) and not b.is_parameter(x):
        number = _number(b, x)
        if number is not None:
            exponent = b.cast(y, x.dtype)
            return b.activation(b.expand(exponent, b.broadcast(x, y)), "base", number)
    if x.dtype == y.dtype:
        return b.combine("pow", x, y)
    if is_float(x.dtype):
        return b.combine("pow", x, b.cast(y, x.dtype))
    common = y.dtype if is_float(y.dtype) else "int64"
    return b.cast(b.combine("pow", b.cast(x, common), b.cast(y, common)), x.dtype)


_old, _new = _rules("pow", _power)
lowers("Pow", since=1)(_old)
lowers("Pow", since=7)(_new)


@lowers("Mod", since=10)
def mod(b: Builder, node: onnx_ir.Node, x: Operand, y: Operand) -> Operand:
    """The remainder: with the sign of y, or with ``fmod`` that of x."""
    return b.combine("fmod" if node.attributes.get_int("fmod", 0) else "mod", x, y)


@lowers("Where", since=9)
def where(b: Builder, node: onnx_ir.Node, condition: Operand, x: Operand, y: Operand) -> Operand:
    """x where the condition holds, else y."""
    if isinstance(condition, Known) and condition.array.size:
        mask = b.values_of(condition, "condition")
        if mask.all() or not mask.any():
            return b.expand(x if mask.all() else y, b.broadcast(condition, x, y))
    return b.combine("where", condition, x, y)


@lowers("Max", since=1)
def max_(b: Builder, node: onnx_ir.Node, *xs: Operand) -> Operand:
    """The largest, entry by entry."""
    return _extreme(b, "max", *xs)


@lowers("Min", since=1)
def min_(b: Builder, node: onnx_ir.Node, *xs: Operand) -> Operand:
    """The smallest, entry by entry."""
    return _extreme(b, "min", *xs)


def _extreme(b: Builder, fn: str, *xs: Operand) -> Operand:
    """Plain numbers make a Clip, everything else is compared as values."""
    bound = -math.inf if fn == "max" else math.inf
    others: list[Operand] = []
    for x in xs:
        number = None
        if isinstance(x, Known) and is_float(x.dtype) and not b.is_parameter(x):
            number = _number(b, x)
        if number is None or math.isnan(number):
            others.append(x)
        else:
            bound = max(bound, number) if fn == "max" else min(bound, number)
    shape = b.broadcast(*xs)
    result = others[0] if len(others) == 1 else b.combine(fn, *others)
    if not math.isinf(bound):
        limits = (bound, math.inf) if fn == "max" else (-math.inf, bound)
        result = b.activation(result, "clip", *limits)
    return b.expand(result, shape)


@lowers("Sum", since=1)
def sum_(b: Builder, node: onnx_ir.Node, *xs: Operand) -> Operand:
    """The sum: of values in one Combine, then of what is known, one after another."""
    values = [x for x in xs if isinstance(x, Value)]
    result: Operand = values[0] if len(values) == 1 else b.combine("add", *values)
    for x in xs:
        if isinstance(x, Known):
            result = arithmetic(b, "add", result, x)
    return result


@lowers("Mean", since=1)
def mean(b: Builder, node: onnx_ir.Node, *xs: Operand) -> Operand:
    """The mean: one Combine of values, or the sum divided by the count."""
    if all(isinstance(x, Value) for x in xs):
        return xs[0] if len(xs) == 1 else b.combine("mean", *xs)
    return b.activation(sum_(b, node, *xs), "affine", 1.0 / len(xs), 0.0)
