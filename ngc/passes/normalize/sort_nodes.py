"""Nodes in any order -> nodes after those they read."""

from __future__ import annotations

import onnx_ir

from ngc.errors import ModelError


def sort_nodes(model: onnx_ir.Model) -> onnx_ir.Model:
    """The model with its nodes in order; the same object where they are already."""
    if _is_sorted(model.graph):
        return model
    # onnx_ir clones only graphs that are in order.
    result = onnx_ir.from_proto(onnx_ir.to_proto(model))
    try:
        result.graph.sort()
    except ValueError:
        raise ModelError("nodes wait for each other in a cycle") from None
    return result


def _is_sorted(graph: onnx_ir.Graph) -> bool:
    """Whether each node of the main graph, with what its graphs read, comes after its producers."""
    position = {node: k for k, node in enumerate(graph)}
    for k, node in enumerate(graph):
        for inner in (node, *_nodes_inside(node)):
            for value in inner.inputs:
                producer = value.producer() if value is not None else None
                if producer is not None and position.get(producer, -1) >= k:
                    return False
    return True


def _nodes_inside(node: onnx_ir.Node) -> list[onnx_ir.Node]:
    found = []
    for attribute in node.attributes.values():
        if attribute.type == onnx_ir.AttributeType.GRAPH:
            found += list(attribute.as_graph().all_nodes())
    return found
