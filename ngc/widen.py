"""float16 and bfloat16 models as float32: onnxruntime has few kernels for the narrow types.

Every float16 or bfloat16 value is a float32 value, so widening changes no weight; it only drops the
rounding between operators, as the neural program does.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)

# Integer attributes that name an element type.
TYPE_ATTRIBUTES = {"to", "dtype", "output_dtype", "stash_type", "softmax_precision"}


def is_narrow(proto: onnx.ModelProto) -> bool:
    """Whether an input, an initializer or a node attribute is float16 or bfloat16."""
    return _is_narrow(proto.graph) or any(_are_narrow(f.node) for f in proto.functions)


def _is_narrow(graph: onnx.GraphProto) -> bool:
    tensors = (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer))
    if any(tensor.data_type in NARROW for tensor in tensors):
        return True
    if any(v.type.tensor_type.elem_type in NARROW for v in (*graph.input, *graph.output)):
        return True
    return _are_narrow(graph.node)


def _are_narrow(nodes: Iterable[onnx.NodeProto]) -> bool:
    return any(
        (a.name in TYPE_ATTRIBUTES and a.i in NARROW)
        or (a.HasField("t") and a.t.data_type in NARROW)
        or (a.HasField("g") and _is_narrow(a.g))
        for node in nodes
        for a in node.attribute
    )


def widen_model(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every narrow tensor, type and Cast target is float32; a model without any
    is returned as it is."""
    if not is_narrow(proto):
        return proto
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    _widen_graph(result.graph)
    for function in result.functions:
        _widen_nodes(function.node)
        _widen_attributes(function.attribute_proto)
        for value in function.value_info:
            _widen_type(value.type)
    return result


def _widen_graph(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for sparse in graph.sparse_initializer:
        _widen_tensor(sparse.values)
    for value in (*graph.input, *graph.output, *graph.value_info):
        _widen_type(value.type)
    _widen_nodes(graph.node)


def _widen_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        _widen_attributes(node.attribute)


def _widen_attributes(attributes: Iterable[onnx.AttributeProto]) -> None:
    for attribute in attributes:
        if attribute.name in TYPE_ATTRIBUTES and attribute.i in NARROW:
            attribute.i = TensorProto.FLOAT
        if attribute.HasField("t"):
            _widen_tensor(attribute.t)
        for tensor in attribute.tensors:
            _widen_tensor(tensor)
        if attribute.HasField("tp"):
            _widen_type(attribute.tp)
        if attribute.HasField("g"):
            _widen_graph(attribute.g)
        for graph in attribute.graphs:
            _widen_graph(graph)


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in NARROW:
        array = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _widen_type(kind: onnx.TypeProto) -> None:
    match kind.WhichOneof("value"):
        case "tensor_type":
            if kind.tensor_type.elem_type in NARROW:
                kind.tensor_type.elem_type = TensorProto.FLOAT
        case "sequence_type":
            _widen_type(kind.sequence_type.elem_type)
        case "optional_type":
            _widen_type(kind.optional_type.elem_type)
