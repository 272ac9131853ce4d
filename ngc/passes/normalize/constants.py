"""Values of a graph that depend on no input, as far as they are needed before lowering."""

from __future__ import annotations

import numpy as np
import onnx_ir

# What torch's exporter notes on values that are parameters and buffers of the module.
PARAMETER_MARK = "pkg.torch.export.graph_signature.InputSpec.kind"


def constant_of(value: onnx_ir.Value | None) -> np.ndarray | None:
    """The array a value always has: an initializer, a Constant or a ConstantOfShape (some files
    keep their weights so), or what torch's exporter fills a tensor with, the CastLike of a number
    expanded to a Shape; maybe behind an Identity. Else None."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    match node.op_type:
        case "Identity":
            return constant_of(node.inputs[0])
        case "Constant":
            return _constant(node)
        case "ConstantOfShape":
            fill = node.attributes.get_tensor("value")
            array = np.zeros(1, np.float32) if fill is None else fill.numpy()
            return _filled(array.reshape(()), constant_of(node.inputs[0]))
        case "Expand":
            return _filled(constant_of(node.inputs[0]), constant_of(node.inputs[1]))
        case "CastLike":
            return _cast(constant_of(node.inputs[0]), node.inputs[1])
        case "Shape":
            return _shape(node)
    return None


def _constant(node: onnx_ir.Node) -> np.ndarray | None:
    tensor = node.attributes.get_tensor("value")
    if tensor is not None:
        return tensor.numpy()
    kinds = {"value_float": np.float32, "value_floats": np.float32}
    kinds |= {"value_int": np.int64, "value_ints": np.int64}
    found = next((name for name in kinds if name in node.attributes), None)
    return np.array(node.attributes[found].value, kinds[found]) if found else None


def _filled(array: np.ndarray | None, shape: np.ndarray | None) -> np.ndarray | None:
    if array is None or shape is None:
        return None
    return np.broadcast_to(array, np.broadcast_shapes(array.shape, tuple(int(n) for n in shape)))


def _cast(array: np.ndarray | None, like: onnx_ir.Value | None) -> np.ndarray | None:
    if array is None or like is None or like.dtype is None:
        return None
    return array.astype(like.dtype.numpy())


def _shape(node: onnx_ir.Node) -> np.ndarray | None:
    """The sizes that a Shape node asks for, if they are all known."""
    x = node.inputs[0]
    if x is None or x.shape is None:
        return None
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(x.shape))
    sizes = list(x.shape)[start:end]
    return np.array(sizes, np.int64) if all(isinstance(n, int) for n in sizes) else None
