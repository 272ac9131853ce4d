"""Checks of single ONNX tensors, before anything of their size is allocated."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ngc.budget import Budget
from ngc.errors import ModelError, ShapeError

# Bits per entry where a type has no whole bytes; all others go by their numpy type.
PACKED_BITS = {
    name: bits
    for name, bits in (("UINT4", 4), ("INT4", 4), ("FLOAT4E2M1", 4), ("UINT2", 2), ("INT2", 2))
    if name in TensorProto.DataType.keys()  # noqa: SIM118 - an enum wrapper, not a dict
}
DATA_FIELDS = (
    "float_data",
    "int32_data",
    "string_data",
    "int64_data",
    "double_data",
    "uint64_data",
)


def type_name(data_type: int, where: str) -> str:
    """Name of an element type; refuses numbers that name none."""
    try:
        name: str = TensorProto.DataType.Name(data_type)
    except ValueError:
        name = "UNDEFINED"
    if name == "UNDEFINED":
        raise ModelError(f"{data_type} is not an element type", where=where)
    return name


def bits_of(data_type: int, where: str) -> int:
    """Bits per entry as stored."""
    name = type_name(data_type, where)
    if name in PACKED_BITS:
        return PACKED_BITS[name]
    if name.startswith("FLOAT6"):  # newer than every opset ngc reads
        raise ModelError(f"element type {name} cannot be read", where=where)
    try:
        return 8 * helper.tensor_dtype_to_np_dtype(data_type).itemsize
    except (KeyError, TypeError, ValueError):
        raise ModelError(f"element type {name} cannot be read", where=where) from None


def num_bytes(tensor: TensorProto, where: str) -> int:
    """Length of the tensor's data as raw bytes."""
    return -(-math.prod(tensor.dims) * bits_of(tensor.data_type, where) // 8)


def check_tensor(tensor: TensorProto, where: str, budget: Budget) -> int:
    """Refuse a tensor whose data are not what its type and dims say. Returns its entry count."""
    name = type_name(tensor.data_type, where)
    if any(n < 0 for n in tensor.dims):
        raise ShapeError(f"dims {list(tensor.dims)} are negative", where=where)
    if len(tensor.dims) > 64:
        raise ShapeError(f"{len(tensor.dims)} axes are more than numpy can hold", where=where)
    count = budget.afford(tensor.dims, where=where)
    if tensor.HasField("segment"):
        raise ModelError("tensors in segments are not supported", where=where)
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ModelError("its data are in another file, which is not at hand", where=where)
    filled = [f for f in DATA_FIELDS if len(getattr(tensor, f))]
    if tensor.HasField("raw_data") and (filled or tensor.data_type == TensorProto.STRING):
        if len(tensor.raw_data):
            raise ModelError("it has raw data and typed data", where=where)
        tensor.ClearField("raw_data")
    if tensor.HasField("raw_data"):
        found, expected, unit = len(tensor.raw_data), num_bytes(tensor, where), "bytes"
    else:
        field = helper.tensor_dtype_to_field(tensor.data_type)
        if filled not in ([], [field]):
            raise ModelError(f"{name} data stand in {', '.join(filled)}", where=where)
        found, expected, unit = len(getattr(tensor, field)), _typed_length(name, count), "entries"
    if found != expected:
        dims = list(tensor.dims)
        raise ModelError(f"{name} of dims {dims} needs {expected} {unit}, has {found}", where=where)
    _check_range(tensor, name, where)
    return count


def _typed_length(name: str, count: int) -> int:
    """Entries of the typed data field for ``count`` entries of the tensor."""
    if name.startswith("COMPLEX"):
        return 2 * count
    return -(-count * PACKED_BITS.get(name, 8) // 8)


def _check_range(tensor: TensorProto, name: str, where: str) -> None:
    """Typed entries narrower than their field must fit their type."""
    bounds = {
        "UINT8": (0, 255), "INT8": (-128, 127), "UINT16": (0, 65535), "INT16": (-32768, 32767),
        "BOOL": (0, 1), "FLOAT16": (0, 65535), "BFLOAT16": (0, 65535),
    }.get(name, (-128, 255))  # fmt: skip
    if name in ("INT32", "FLOAT", "DOUBLE") or not len(tensor.int32_data):
        return
    data = np.asarray(tensor.int32_data)
    if data.min() < bounds[0] or data.max() > bounds[1]:
        raise ModelError(f"entries do not fit {name}", where=where)


def densify(sparse: onnx.SparseTensorProto, where: str, budget: Budget) -> TensorProto:
    """The dense tensor that a sparse one stands for, under the name of its values."""
    dims = tuple(sparse.dims)
    if any(n < 0 for n in dims):
        raise ShapeError(f"dims {list(dims)} are negative", where=where)
    count = budget.afford(dims, where=where, what="a sparse tensor")
    check_tensor(sparse.values, where, budget)
    check_tensor(sparse.indices, where, budget)
    if sparse.indices.data_type != TensorProto.INT64 or len(sparse.values.dims) != 1:
        raise ModelError("a sparse tensor needs a row of values and int64 indices", where=where)
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    if indices.shape == (len(values), len(dims)) and indices.ndim == 2:
        if ((indices < 0) | (indices >= np.array(dims, dtype=np.int64))).any():
            raise ModelError("indices are out of range", where=where)
        flat = np.ravel_multi_index(tuple(indices.T), dims) if len(values) else indices[:, 0]
    elif indices.shape == values.shape:
        flat = indices
    else:
        raise ModelError(f"indices of shape {list(indices.shape)} do not fit", where=where)
    if len(flat) and (flat.min() < 0 or flat.max() >= count):
        raise ModelError("indices are out of range", where=where)
    dense = np.zeros(count, dtype=values.dtype)
    dense[flat] = values
    return numpy_helper.from_array(dense.reshape(dims), sparse.values.name)
