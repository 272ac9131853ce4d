"""Nodes are put in order, functions become nodes; a model that needs neither comes back as is."""

from __future__ import annotations

import onnx_ir
import pytest
from onnx import parser

from ngc.errors import ModelError
from ngc.passes.normalize.inline_functions import inline_functions
from ngc.passes.normalize.sort_nodes import sort_nodes

PLAIN = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) { %s }'
CALL = '<ir_version: 8, opset_import: ["": 17, "f": 1]> g (float[2] x) => (float[2] y) { %s } %s'


def parse(text: str) -> onnx_ir.Model:
    return onnx_ir.from_proto(parser.parse_model(text))


def ops(model: onnx_ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_nodes_are_sorted() -> None:
    model = parse(PLAIN % "y = Neg(z) z = Relu(x)")
    assert ops(sort_nodes(model)) == ["Relu", "Neg"]
    assert ops(model) == ["Neg", "Relu"]


def test_a_sorted_model_is_left_alone() -> None:
    model = parse(PLAIN % "z = Relu(x) y = Neg(z)")
    assert sort_nodes(model) is model
    assert inline_functions(model) is model


def test_a_cycle_is_refused() -> None:
    with pytest.raises(ModelError, match="cycle"):
        sort_nodes(parse(PLAIN % "z = Add(x, y) y = Neg(z)"))


def test_functions_inside_functions_become_nodes() -> None:
    functions = """
        <domain: "f", opset_import: ["": 17, "f": 1]>
        Twice (a) => (b) { c = f.Once(a) b = f.Once(c) }
        <domain: "f", opset_import: ["": 17]> Once (a) => (b) { b = Relu(a) }
    """
    model = parse(CALL % ("y = f.Twice(x)", functions))
    inlined = inline_functions(model)
    assert ops(inlined) == ["Relu", "Relu"]
    assert not inlined.functions
    assert ops(model) == ["Twice"]


def test_a_function_of_another_opset_is_refused() -> None:
    function = '<domain: "f", opset_import: ["": 11]> Once (a) => (b) { b = Relu(a) }'
    with pytest.raises(ModelError, match="cannot be inlined"):
        inline_functions(parse(CALL % ("y = f.Once(x)", function)))
