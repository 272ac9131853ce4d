"""Models of opset 6 run in onnxruntime as models of opset 7."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ngc.oracle import Oracle
from ngc.upgrade import upgrade_model

SLOPE = np.array([0.5, 0.25], np.float32)


def prelu(opset: int) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", 1, [1, 2, 3])
    y = helper.make_tensor_value_info("y", 1, [1, 2, 3])
    slope = numpy_helper.from_array(SLOPE, "slope")
    node = helper.make_node("PRelu", ["x", "slope"], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], [slope])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def test_a_slope_per_channel_stays_one_per_channel() -> None:
    x = np.arange(-3, 3, dtype=np.float32).reshape(1, 2, 3)
    with Oracle(prelu(6)) as oracle:
        y = oracle.run({"x": x})["y"]
    np.testing.assert_array_equal(y, np.where(x < 0, SLOPE[:, None] * x, x))


def test_a_newer_model_is_left_alone() -> None:
    proto = prelu(7)
    assert upgrade_model(proto) is proto
