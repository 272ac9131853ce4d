"""Calls of model-local functions: no recursion, and no more nodes once inlined than affordable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from ngc.budget import Budget
from ngc.errors import ModelError

FunctionId = tuple[str, str, str]  # domain, name, overload


def check_calls(proto: onnx.ModelProto, budget: Budget) -> None:
    """Refuse functions that call themselves, and those that inlining would blow up."""
    functions: dict[FunctionId, onnx.FunctionProto] = {}
    for function in proto.functions:
        key = (function.domain, function.name, function.overload)
        if key in functions:
            raise ModelError("it is defined twice", where=f"function {function.name}")
        functions[key] = function
    sizes: dict[FunctionId, int] = {}

    def size_of(nodes: Iterable[onnx.NodeProto], callers: tuple[FunctionId, ...]) -> int:
        total = 0
        for node in _all_nodes(nodes):
            key = (node.domain, node.op_type, node.overload)
            total += size_of_function(key, callers) if key in functions else 1
            budget.afford_nodes(total, what="the model with its functions inlined")
        return total

    def size_of_function(key: FunctionId, callers: tuple[FunctionId, ...]) -> int:
        if key in callers:
            raise ModelError("it calls itself", where=f"function {key[1]}")
        if key not in sizes:
            sizes[key] = size_of(functions[key].node, (*callers, key))
        return sizes[key]

    size_of(proto.graph.node, ())
    for key in functions:
        size_of_function(key, ())


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from _all_nodes(graph.node)
