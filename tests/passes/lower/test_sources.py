"""Which tensors of a file are parameters, and which are constants of the code."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper, numpy_helper

import ngc.passes.lower  # noqa: F401  (registers the rules)
from ngc.passes.lower.driver import PARAMETER_MARK, lower
from tests.passes.lower.one_node import Number, one, ramp, x

IMAGE = x(1, 2, 4, 4)
KERNEL = ramp(3, 2, 3, 3)


def params(model: onnx.ModelProto) -> set[str]:
    shapes = {"x": (1, 2, 4, 4)}
    return {param.name for param in lower(onnx_ir.from_proto(model), shapes).program.params}


def convolution(bias: np.ndarray, *marked: str) -> onnx.ModelProto:
    """A Conv; torch's exporter has marked these of its initializers as parameters."""
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"])
    ends = [helper.make_tensor_value_info(n, 1, None) for n in ("x", "y")]
    ends[0].type.tensor_type.shape.CopyFrom(_shape(1, 2, 4, 4))
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    for name, array in (("w", KERNEL), ("b", bias)):
        graph.initializer.append(numpy_helper.from_array(array, name))
        info = helper.make_tensor_value_info(name, 1, array.shape)
        if name in marked:
            info.metadata_props.add(key=PARAMETER_MARK, value="PARAMETER")
        graph.value_info.append(info)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def _shape(*sizes: int) -> onnx.TensorShapeProto:
    return helper.make_tensor_type_proto(1, sizes).tensor_type.shape


ZEROS, RAMP = np.zeros(3, np.float32), ramp(3)


@pytest.mark.parametrize(
    ("bias", "marked", "found"),
    [
        pytest.param(ZEROS, ("w",), {"w"}, id="zeros that the exporter made up"),
        pytest.param(ZEROS, ("w", "b"), {"w", "b"}, id="zeros of the module"),
        pytest.param(ZEROS, (), {"w", "b"}, id="zeros of a file without marks"),
        pytest.param(RAMP, ("w",), {"w", "b"}, id="a table that the exporter computed"),
    ],
)
def test_an_initializer_of_one_number_without_mark_is_no_parameter(
    bias: np.ndarray, marked: tuple[str, ...], found: set[str]
) -> None:
    assert params(convolution(bias, *marked)) == found


@pytest.mark.parametrize(("fill", "count"), [(0.0, 1), (1.0, 1), (0.5, 2)])
def test_a_constant_node_of_zeros_or_ones_is_no_parameter(fill: float, count: int) -> None:
    case = one("Conv", IMAGE, KERNEL, Number(np.full(3, fill, np.float32))).agrees()
    assert len(case.lowered.program.params) == count
