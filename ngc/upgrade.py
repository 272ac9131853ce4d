"""Models of opset 6 as opset 7, for onnxruntime: it implements most operators from opset 7 on.

Opset 7 changed how operands broadcast; onnx converts all but the slope of PRelu, which was one
number per channel (axis 1) and broadcasts from the last axis since.
"""

from __future__ import annotations

import onnx
from onnx import helper, version_converter

from ngc.errors import ModelError

FIRST = 7


def upgrade_model(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model in an opset that onnxruntime runs; the same object where it is in one."""
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), FIRST)
    if opset >= FIRST:
        return proto
    try:
        result = version_converter.convert_version(proto, FIRST)
    except RuntimeError as error:
        line = (str(error).splitlines() or [""])[0]
        raise ModelError(f"onnx cannot convert opset {opset} to {FIRST} ({line})") from None
    _spread_slopes(result)
    return result


def _spread_slopes(proto: onnx.ModelProto) -> None:
    """Slopes [channels] of PRelu as [channels, 1, ...], one axis for each position axis of x."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    for k in reversed(range(len(proto.graph.node))):
        node = proto.graph.node[k]
        if node.op_type != "PRelu" or shapes.get(node.input[1]) in ((1,), ()):
            continue
        spread = f"{node.output[0]}.slope"
        axes = list(range(1, ranks.get(node.input[0], 2) - 1))
        if axes:
            unsqueeze = helper.make_node("Unsqueeze", [node.input[1]], [spread], axes=axes)
            node.input[1] = spread
            proto.graph.node.insert(k, unsqueeze)
