"""Narrow models become float32 models that compute the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ngc.oracle import Oracle
from ngc.widen import is_narrow, widen_model


def narrow_model(kind: int) -> onnx.ModelProto:
    """y = x W + 0.5, all of it narrow, with a Cast in and out."""
    weight = numpy_helper.from_array(np.array([[1.5, -2], [0.25, 3]], np.float32), "w")
    weight = helper.make_tensor(
        "w", kind, [2, 2], numpy_helper.to_array(weight).reshape(-1).tolist()
    )
    half = helper.make_tensor("half", kind, [], [0.5])
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], to=kind),
        helper.make_node("MatMul", ["x16", "w"], ["p"]),
        helper.make_node("Constant", [], ["h"], value=half),
        helper.make_node("Add", ["p", "h"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])
    y = helper.make_tensor_value_info("y", kind, [1, 2])
    graph = helper.make_graph(nodes, "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_every_type_is_widened_and_the_numbers_stay(kind: int) -> None:
    proto = narrow_model(kind)
    wide = widen_model(proto)
    assert is_narrow(proto)
    assert not is_narrow(wide)
    with Oracle(wide) as oracle:
        y = oracle.run({"x": np.array([[2, 4]], np.float32)})["y"]
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, [[4.5, 8.5]])


def test_a_float32_model_is_left_alone() -> None:
    wide = widen_model(narrow_model(TensorProto.FLOAT16))
    assert widen_model(wide) is wide
