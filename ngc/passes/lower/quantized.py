"""Quantised operators, evaluated to floating point.

Weights are dequantised and become parameters derived from their initializers. Activations pass from
a quantising operator to a dequantising one as they are, held within the ends of the grid but not
rounded to it. Where something else reads a quantised tensor (an output of the network, say), it is
computed as it is, rounding included.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TypeAlias

import numpy as np
import onnx_ir

from ngc.ir import program as ir
from ngc.ir.program import Value
from ngc.ir.slots import Array
from ngc.passes.lower.base import Builder, Known, Operand, is_float, lowers, widen
from ngc.passes.lower.conv import conv
from ngc.passes.lower.linear import matmul

NOTE = (
    "quantised weights are evaluated to floating point, and activations are not rounded to the "
    "quantisation grid: outputs differ from the quantised model's by some steps of the grid"
)

# Least and greatest code of each integer type, and the type that holds it in a program.
GRIDS = {
    "uint8": (0, 255, "uint8"),
    "int8": (-128, 127, "int8"),
    "uint16": (0, 65535, "uint16"),
    "int16": (-32768, 32767, "int16"),
    "uint4": (0, 15, "uint8"),
    "int4": (-8, 7, "int8"),
    "uint2": (0, 3, "uint8"),
    "int2": (-2, 1, "int8"),
}


Grid: TypeAlias = "tuple[object, object]"


def _grid(scale: Operand, zero: Operand | None, axis: int) -> Grid:
    """What makes two grids the same. A zero point of 0 is the same as none."""
    if isinstance(zero, Known) and not zero.array.astype(np.float64).any():
        zero = None
    return _key(scale, axis), _key(zero, axis)


def _key(x: Operand | None, axis: int) -> object:
    if not isinstance(x, Known):
        return None if x is None else x.name
    array = widen(x.array)
    return Array.of(array.reshape(())) if array.size == 1 else (Array.of(array), axis)


def _spread(b: Builder, part: Operand, x: Operand, node: onnx_ir.Node, axis: int) -> Operand:
    """Scales or zero points so that they broadcast to x: one, one an axis entry, or one a block."""
    rank, block = len(x.shape), node.attributes.get_int("block_size", 0)
    if not block:
        return _column(b, part, rank, axis)
    axis = b.axis(axis, rank)
    return b.take(_plain(b, part, part.dtype), axis, np.arange(x.shape[axis]) // block)


def _quantise(
    b: Builder,
    x: Operand,
    scale: Operand | None,
    zero: Operand | None,
    dtype: str,
    grid: Grid,
) -> Value:
    """The codes of x; ``grid`` identifies scale and zero point, which broadcast to x."""
    if dtype not in GRIDS:
        raise b.refuse(f"quantising activations to {dtype} is not supported")
    low, high, held = GRIDS[dtype]
    assert isinstance(scale, Known)
    step = scale.array.astype(np.float64)
    origin = zero.array.astype(np.float64) if isinstance(zero, Known) else np.zeros(())
    real = _between(b, x, (low - origin) * step, (high - origin) * step)
    codes = b.activation(b.combine("div", x, Known(scale.array), dtype=x.dtype), "round")
    if np.any(origin):
        codes = b.combine("add", codes, Known(origin.astype(x.dtype)))
    value = b.value(b.cast(b.activation(codes, "clip", low, high), held))
    b.quantised[value.name] = (real, *grid)
    b.note(NOTE)
    return value


def _between(b: Builder, x: Operand, low: np.ndarray, high: np.ndarray) -> Value:
    if low.size == high.size == 1:
        return b.activation(x, "clip", float(low.reshape(())), float(high.reshape(())))
    bounds = (Known(np.asarray(bound, dtype=x.dtype)) for bound in (low, high))
    return b.combine("min", b.combine("max", x, next(bounds)), next(bounds))


def _unrounded(b: Builder, name: str, grid: Grid) -> Value | None:
    """The activation that a tensor of codes on this grid stands for, if it is at hand: through data
    movement and max pools as well, which do the same to codes and to what they stand for."""
    if name in b.quantised:
        real, *own = b.quantised[name]
        return real if tuple(own) == grid else None
    op = next(op for op in reversed(b.ops) if op.out.name == name)
    one_step = all(part is None or isinstance(part, Array) for part in grid)
    moves = op.is_view and not isinstance(op, ir.Pad)
    pools = isinstance(op, ir.Pool) and op.fn == "max"
    if not one_step or not (moves or pools):
        return None
    inner = [_unrounded(b, ref, grid) for ref in op.inputs]
    names = {ref: value.name for ref, value in zip(op.inputs, inner) if value is not None}
    if len(names) < len(set(op.inputs)):
        return None
    again = op.renamed(names)
    kept = {f.name: getattr(again, f.name) for f in fields(op) if f.name not in ("out", "origin")}
    dtype = next(value.dtype for value in inner if value is not None)
    result = b.emit(type(op), op.out.shape, dtype, **kept)
    b.quantised[name] = (result, *grid)
    return result


def _dequantise(
    b: Builder, x: Operand, scale: Operand | None, zero: Operand | None, grid: Grid
) -> Operand:
    """(x - zero) scale in float32, without rounding where that is possible. No scale: 1."""
    if isinstance(x, Known):
        return _weights(b, x, scale, zero)
    if scale is not None:
        real = _unrounded(b, x.name, grid)
        if real is not None:
            return real
    b.note(NOTE)
    dtype = "float32" if scale is None else scale.dtype
    result = b.cast(x, dtype)
    origin = None if zero is None else _plain(b, zero, dtype)
    if isinstance(origin, Value) or (origin is not None and origin.array.any()):
        result = b.combine("sub", result, origin)
    if scale is not None:
        number = _plain(b, scale, dtype)
        if isinstance(number, Known) and number.array.size == 1:
            return b.activation(result, "affine", float(number.array.reshape(())), 0.0)
        result = b.combine("mul", result, number)
    return result


def _plain(b: Builder, x: Operand, dtype: str) -> Operand:
    """A scale or zero point as numbers that are no parameter."""
    return b.cast(Known(widen(x.array), sources=x.sources) if isinstance(x, Known) else x, dtype)


def _weights(b: Builder, x: Known, scale: Operand | None, zero: Operand | None) -> Known:
    """A dequantised tensor as a parameter derived from what it is computed from."""
    parts = [x, *(part for part in (scale, zero) if isinstance(part, Known))]
    if len(parts) < 1 + (scale is not None) + (zero is not None):
        raise b.refuse("a constant with a scale that depends on the input")
    numbers = x.array.astype(np.float32)
    if zero is not None:
        numbers = numbers - parts[-1].array.astype(np.float32)
    if scale is not None:
        numbers = numbers * parts[1].array.astype(np.float32)
    sources = tuple(dict.fromkeys(source for part in parts for source in part.sources))
    b.note(NOTE)
    if not sources:
        return Known(numbers)
    return b.parameter(f"{sources[0]}.dequantised", numbers, derived=sources)


def named(x: Operand, node: onnx_ir.Node, position: int) -> Operand:
    """The operand, with the initializer it is as its source: int32 ones do not carry theirs, since
    most hold shapes and indices."""
    value = node.inputs[position]
    if isinstance(x, Known) and not x.sources and value is not None and value.is_initializer():
        return Known(x.array, sources=(str(value.name),))
    return x


def _read(b: Builder, x: Operand, what: str) -> Known:
    array = b.values_of(x, what)
    return Known(array, sources=x.sources if isinstance(x, Known) else ())


@lowers("QuantizeLinear", since=10)
@lowers("QuantizeLinear", domain="com.microsoft")
def quantize_linear(
    b: Builder, node: onnx_ir.Node, x: Operand, scale: Operand, zero: Operand | None = None
) -> Operand:
    """saturate(round(x / scale) + zero)."""
    axis = node.attributes.get_int("axis", 1)
    grid = _grid(scale, zero, axis)
    step = _spread(b, _read(b, scale, "scale"), x, node, axis)
    dtype = node.attributes.get_int("output_dtype", 0)
    name = onnx_ir.DataType(dtype).numpy().name if dtype else "uint8"
    name = name if zero is None else zero.dtype
    if name in GRIDS and GRIDS[name][2] != name and node.outputs[0].is_graph_output():
        raise b.refuse(f"an output of type {name} is not supported")
    origin = None if zero is None else _spread(b, _read(b, zero, "zero point"), x, node, axis)
    return _quantise(b, _real_input(b, x), step, origin, name, grid)


def _real_input(b: Builder, x: Operand) -> Operand:
    return x if is_float(x.dtype) else b.cast(x, "float32")


@lowers("DequantizeLinear", since=10, movement=True)
@lowers("DequantizeLinear", domain="com.microsoft", movement=True)
def dequantize_linear(
    b: Builder, node: onnx_ir.Node, x: Operand, scale: Operand, zero: Operand | None = None
) -> Operand:
    """(x - zero) scale."""
    axis = node.attributes.get_int("axis", 1)
    grid = _grid(scale, zero, axis)
    for part, what in ((scale, "scale"), (zero, "zero point")):
        if isinstance(part, Known):
            b.values_of(part, what)
    step = _spread(b, scale, x, node, axis)
    origin = None if zero is None else _spread(b, zero, x, node, axis)
    return _dequantise(b, named(x, node, 0), step, origin, grid)


@lowers("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(
    b: Builder, node: onnx_ir.Node, x: Operand
) -> tuple[Operand, Operand, Operand]:
    """Codes on a grid from the least to the greatest entry of x, its scale and its zero point.

    Where integer products are all that reads the codes, x itself takes their place, with scale 1
    and zero point 0: the scale cancels out of what follows.
    """
    b.note(NOTE)
    if _feeds_products_only(node):
        return x, Known(np.array(1.0, np.float32)), Known(np.array(0, np.uint8))
    value = b.value(x)
    ends = []
    for fn in ("max", "min"):
        axes = tuple(range(len(x.shape)))
        end = b.emit(ir.Reduce, (), x.dtype, x=value.name, fn=fn, axes=axes, keepdims=False)
        bounds = (0.0, math.inf) if fn == "max" else (-math.inf, 0.0)
        ends.append(b.activation(end, "clip", *bounds))
    scale = b.activation(b.combine("sub", *ends), "affine", 1.0 / 255.0, 0.0)
    least = b.activation(ends[1], "neg")
    origin = b.activation(b.combine("div", least, scale), "clip", 0.0, 255.0)
    origin = b.activation(origin, "round")
    zero = b.value(b.cast(origin, "uint8"))
    steps = b.activation(b.combine("div", value, scale), "round")
    codes = b.activation(b.combine("add", steps, origin), "clip", 0.0, 255.0)
    result = b.value(b.cast(codes, "uint8"))
    b.quantised[result.name] = (value, scale.name, zero.name)
    return result, scale, zero


def _feeds_products_only(node: onnx_ir.Node) -> bool:
    codes, _, zero = node.outputs
    if any(output.is_graph_output() for output in node.outputs):
        return False
    products = [user for user, _ in codes.uses()]
    readers = [reader for user in products for reader, _ in user.outputs[0].uses()]
    return (
        all(user.op_type in ("MatMulInteger", "ConvInteger") for user in products)
        and all(index == 0 for _, index in codes.uses())
        and all(user in products and index == 2 for user, index in zero.uses())
        and all(not user.outputs[0].is_graph_output() for user in products)
        and all(reader.op_type == "Cast" for reader in readers)
    )


def _column(b: Builder, part: Operand, rank: int, axis: int) -> Operand:
    """A scale or zero point of one entry per ``axis`` entry, shaped so that it broadcasts."""
    part = _plain(b, part, part.dtype)
    if math.prod(part.shape) == 1:
        return b.reshape(part, ())
    if len(part.shape) > 1:
        return part
    return b.reshape(part, [-1 if k == b.axis(axis, rank) else 1 for k in range(rank)])


@lowers("MatMulInteger", since=10)
def matmul_integer(
    b: Builder,
    node: onnx_ir.Node,
    x: Operand,
    w: Operand,
    x_zero: Operand | None = None,
    w_zero: Operand | None = None,
) -> Operand:
    """(x - x_zero) (w - w_zero), computed in floating point."""
    real_x, passed = _product_operand(b, x, x_zero, -2)
    real_w, _ = _product_operand(b, w, w_zero, -1)
    product = matmul(b, node, real_x, real_w)
    return product if passed else b.cast(product, "int32")


@lowers("ConvInteger", since=10)
def conv_integer(
    b: Builder,
    node: onnx_ir.Node,
    x: Operand,
    w: Operand,
    x_zero: Operand | None = None,
    w_zero: Operand | None = None,
) -> Operand:
    """The convolution of x - x_zero with w - w_zero, computed in floating point."""
    real_x, passed = _product_operand(b, x, x_zero, 1)
    real_w, _ = _product_operand(b, w, w_zero, 0)
    product = conv(b, node, real_x, real_w)
    return product if passed else b.cast(product, "int32")


def _product_operand(
    b: Builder, x: Operand, zero: Operand | None, axis: int
) -> tuple[Operand, bool]:
    """An operand without its zero point, and whether it is an activation passed on unrounded."""
    if isinstance(x, Value) and is_float(x.dtype):
        return x, True
    origin = None if zero is None else _column(b, zero, len(x.shape), axis)
    return _dequantise(b, x, None, origin, (None, None)), False


def dequantised(b: Builder, x: Operand, scale: Operand, zero: Operand | None, axis: int) -> Operand:
    """A dequantised operand, its scales and zero points one or one per ``axis`` entry."""
    rank = len(x.shape)
    origin = None if zero is None else _column(b, zero, rank, axis)
    return _dequantise(b, x, _column(b, scale, rank, axis), origin, _grid(scale, zero, axis))


def dequantised_bias(
    b: Builder, bias: Operand, x_scale: Operand, w_scale: Operand, alpha: float = 1.0
) -> Operand:
    """A bias of integers: their scale is the product of those of the operands, alpha included."""
    first, second = _read(b, x_scale, "x scale"), _read(b, w_scale, "w scale")
    step = np.float32(alpha) * first.array.reshape(-1) * second.array.reshape(-1)
    sources = (*first.sources, *second.sources)
    return _dequantise(b, bias, Known(step, sources=sources), None, (None, None))


def requantised(b: Builder, y: Operand, scale: Operand, zero: Operand | None, axis: int) -> Value:
    """The codes of y, its scales and zero points one or one per ``axis`` entry."""
    step = _column(b, _read(b, scale, "y scale"), len(y.shape), axis)
    grid = _grid(scale, zero, axis)
    if zero is None:
        return _quantise(b, y, step, None, "uint8", grid)
    origin = _column(b, _read(b, zero, "y zero point"), len(y.shape), axis)
    return _quantise(b, y, step, origin, zero.dtype, grid)


@lowers("QLinearMatMul", since=10)
def qlinear_matmul(
    b: Builder,
    node: onnx_ir.Node,
    x: Operand,
    x_scale: Operand,
    x_zero: Operand,
    w: Operand,
    w_scale: Operand,
    w_zero: Operand,
    y_scale: Operand,
    y_zero: Operand,
) -> Operand:
    """The product of the dequantised operands, quantised. Scales of x per row, of w per column."""
    left, right = dequantised(b, x, x_scale, x_zero, -2), dequantised(b, w, w_scale, w_zero, -1)
    return requantised(b, matmul(b, node, left, right), y_scale, y_zero, -2)


@lowers("QLinearConv", since=10)
def qlinear_conv(
    b: Builder,
    node: onnx_ir.Node,
    x: Operand,
    x_scale: Operand,
    x_zero: Operand,
    w: Operand,
    w_scale: Operand,
    w_zero: Operand,
    y_scale: Operand,
    y_zero: Operand,
    bias: Operand | None = None,
) -> Operand:
    """The convolution of the dequantised operands, quantised. The bias has the scale x_scale
    w_scale and zero point 0; scales of w are per output channel."""
    operands = [dequantised(b, x, x_scale, x_zero, 1), dequantised(b, w, w_scale, w_zero, 0)]
    if bias is not None:
        codes = named(bias, node, 8)
        operands.append(dequantised_bias(b, codes, x_scale, w_scale))
    return requantised(b, conv(b, node, *operands), y_scale, y_zero, 1)
