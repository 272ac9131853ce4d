"""Values of a graph that depend on no input, as far as they are needed before lowering."""

from __future__ import annotations

import numpy as np
import onnx_ir


def constant_of(value: onnx_ir.Value | None) -> np.ndarray | None:
    """The array a value always has: an initializer, a Constant or a ConstantOfShape (some files
    keep their weights so), maybe behind an Identity; else None."""
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
            tensor = node.attributes.get_tensor("value")
            return None if tensor is None else tensor.numpy()
        case "ConstantOfShape":
            shape = constant_of(node.inputs[0])
            if shape is None:
                return None
            fill = node.attributes.get_tensor("value")
            array = np.zeros(1, np.float32) if fill is None else fill.numpy()
            return np.broadcast_to(array.reshape(()), tuple(int(n) for n in shape))
    return None
