"""Tensors out of nothing but attributes and shapes: Constant, Shape, Range and their kin.

None of them is learned, except a floating-point Constant of more than one entry: some exporters
keep weights there. One that is all zeros or all ones is taken for the constant of the code that it
nearly always is (torch's legacy exporter writes group normalisation with such ones).
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir

from ngc.passes.lower.base import Builder, Known, Operand, is_float, lowers, widen


@lowers("Constant", since=1, movement=True)
def constant(b: Builder, node: onnx_ir.Node) -> Operand:
    """The tensor of whichever value attribute the node has."""
    array = _constant(b, node)
    uniform = array.size > 0 and array.flat[0] in (0, 1) and bool((array == array.flat[0]).all())
    if is_float(str(widen(array).dtype)) and array.size > 1 and not uniform:
        return b.parameter(node.outputs[0].name or node.name or "constant", array)
    return Known(widen(array))


def _constant(b: Builder, node: onnx_ir.Node) -> np.ndarray:
    read = node.attributes
    match next((name for name in read if name.startswith(("value", "sparse_value"))), ""):
        case "value":
            return read.get_tensor("value").numpy()
        case "value_float":
            return np.array(read.get_float("value_float"), dtype=np.float32)
        case "value_floats":
            return np.array(read.get_floats("value_floats"), dtype=np.float32)
        case "value_int":
            return np.array(read.get_int("value_int"), dtype=np.int64)
        case "value_ints":
            return np.array(read.get_ints("value_ints"), dtype=np.int64)
        case "value_string":
            return np.array(read.get_string("value_string"), dtype=object)
        case "value_strings":
            return np.array(read.get_strings("value_strings"), dtype=object)
        case "sparse_value":
            return dense(onnx_ir.to_proto(node).attribute[0].sparse_tensor)
    raise b.misshapen("it has no value")


def dense(sparse: object) -> np.ndarray:
    """A SparseTensorProto entry by entry: its indices are flat, or one coordinate tuple a row."""
    from onnx import SparseTensorProto, numpy_helper

    assert isinstance(sparse, SparseTensorProto)
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    result = np.zeros(tuple(sparse.dims), dtype=values.dtype)
    if indices.ndim == 2:
        result[tuple(indices.T)] = values
    else:
        result.reshape(-1)[indices] = values
    return result


@lowers("ConstantOfShape", since=9, movement=True)
def constant_of_shape(b: Builder, node: onnx_ir.Node, shape: Operand) -> Operand:
    """One value (0 by default) everywhere."""
    tensor = node.attributes.get_tensor("value")
    value = np.zeros(1, np.float32) if tensor is None else widen(tensor.numpy())
    target = b.ints_of(shape, "shape")
    if any(n < 0 for n in target):
        raise b.misshapen(f"shape {list(target)} has a negative size")
    b.afford(target)
    array = np.broadcast_to(value.reshape(-1)[0], target)
    # Files are made small by filling weights with one number. 0, 1 and the bounds of masks are no
    # such number.
    stands_for_weight = value.flat[0] not in (0, 1) and abs(value.flat[0]) < 100
    if is_float(str(array.dtype)) and array.size > 1 and stands_for_weight:
        return b.parameter(node.outputs[0].name or "constant", array)
    return Known(array)


@lowers("Shape", since=1)
def shape(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """The shape, or since opset 15 a slice of it."""
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end")
    return Known(np.array(x.shape[start:end], dtype=np.int64))


@lowers("Size", since=1)
def size(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """How many entries there are."""
    return Known(np.array(math.prod(x.shape), dtype=np.int64))


@lowers("Range", since=11, movement=True)
def range_(b: Builder, node: onnx_ir.Node, *bounds: Operand) -> Operand:
    """start, start + delta, ... before limit."""
    names = ("start", "limit", "delta")
    start, limit, delta = (b.values_of(x, name).reshape(()) for x, name in zip(bounds, names))
    count = max(0, math.ceil((limit - start) / delta))
    b.afford((count,))
    return Known((start + np.arange(count) * delta).astype(start.dtype))


@lowers("EyeLike", since=9, movement=True)
def eye_like(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """Ones on the k-th diagonal of a matrix as large as x."""
    to = node.attributes.get_int("dtype")
    dtype = np.dtype(x.dtype) if to is None else onnx_ir.DataType(to).numpy()
    rows, columns = x.shape
    return Known(widen(np.eye(rows, columns, node.attributes.get_int("k", 0), dtype=dtype)))
