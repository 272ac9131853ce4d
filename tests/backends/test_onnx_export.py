"""Skeletons hold no weights, and filling them gives the network back to the last bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from ngc.backends.onnx_export import fill_skeleton, fixed_parameters, make_skeleton
from ngc.errors import LiftError, ModelError
from ngc.ir.program import Param
from ngc.oracle import Oracle

Arrays = dict[str, np.ndarray]


def params_of(arrays: Arrays) -> list[Param]:
    return [Param(name, array.shape, str(array.dtype), 2) for name, array in arrays.items()]


def skeleton_of(proto: onnx.ModelProto, arrays: Arrays) -> onnx.ModelProto:
    skeleton = make_skeleton(proto, params_of(arrays), arrays)
    return onnx.ModelProto.FromString(skeleton.SerializeToString())


def outputs(proto: onnx.ModelProto) -> dict[str, bytes]:
    x = np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 4)
    with Oracle(proto) as oracle:
        return {name: array.tobytes() for name, array in oracle.run({"x": x}).items()}


def model(text: str, weights: Arrays, ir_version: int = 8) -> onnx.ModelProto:
    graph = parser.parse_graph(text)
    graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in weights.items())
    opset = helper.make_opsetid("", 17 if ir_version > 3 else 9)
    return helper.make_model(graph, opset_imports=[opset], ir_version=ir_version)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


GEMM = "g (float[1,4] x) => (float[1,3] y) { y = Gemm(x, w, b) }"


def test_a_skeleton_is_small_and_filling_restores_the_data() -> None:
    weights = {"w": random(4, 3000), "b": random(3000)}
    proto = model(GEMM.replace("[1,3]", "[1,3000]"), weights)
    skeleton = skeleton_of(proto, weights)
    assert skeleton.ByteSize() < 500
    filled = fill_skeleton(skeleton, weights)
    assert filled.SerializeToString() == proto.SerializeToString()


def test_typed_data_come_back_with_the_same_values() -> None:
    weights = {"w": random(4, 3)}
    proto = model(GEMM.replace(", b", ""), {})
    proto.graph.initializer.append(
        helper.make_tensor("w", TensorProto.FLOAT, [4, 3], weights["w"].reshape(-1).tolist())
    )
    filled = fill_skeleton(skeleton_of(proto, weights), weights)
    np.testing.assert_array_equal(numpy_helper.to_array(filled.graph.initializer[0]), weights["w"])


def test_other_weights_are_written() -> None:
    weights = {"w": random(4, 3), "b": random(3)}
    other = {"w": random(4, 3, seed=1), "b": random(3, seed=2)}
    filled = fill_skeleton(skeleton_of(model(GEMM, weights), weights), other)
    assert outputs(filled) == outputs(model(GEMM, other))


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float64"])
def test_stored_types_stay(dtype: str) -> None:
    weights = {"w": random(4, 3).astype(dtype)}
    proto = model(
        "g (float[1,4] x) => (float[1,3] y) { v = Cast<to = 1>(w) y = MatMul(x, v) }", weights
    )
    filled = fill_skeleton(skeleton_of(proto, weights), weights)
    assert filled.SerializeToString() == proto.SerializeToString()


def test_a_value_in_a_constant_node_is_a_parameter_like_any_other() -> None:
    weights = {"w": random(4, 3)}
    node = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weights["w"]))
    proto = model("g (float[1,4] x) => (float[1,3] y) { y = MatMul(x, w) }", {})
    proto.graph.node.insert(0, node)
    skeleton = skeleton_of(proto, weights)
    assert not skeleton.graph.node[0].attribute[0].t.raw_data
    assert fill_skeleton(skeleton, weights).SerializeToString() == proto.SerializeToString()


FILLED = """g (float[1,4] x, int64[2] shape) => (float[1,3] y) {
    w = ConstantOfShape<value = float[1] {0.02}>(shape)
    y = MatMul(x, w)
}"""


@pytest.mark.parametrize("ir_version", [3, 8])
def test_a_computed_parameter_keeps_its_nodes_until_it_changes(ir_version: int) -> None:
    proto = model(FILLED, {"shape": np.array([4, 3])}, ir_version)
    if ir_version > 3:
        del proto.graph.input[1]
    original = {"w": np.full((4, 3), 0.02, np.float32)}
    skeleton = skeleton_of(proto, original)

    same = fill_skeleton(skeleton, original)
    assert [node.op_type for node in same.graph.node] == ["ConstantOfShape", "MatMul"]
    assert same.SerializeToString() == proto.SerializeToString()

    changed = {"w": random(4, 3)}
    other = fill_skeleton(skeleton, changed)
    assert [node.op_type for node in other.graph.node] == ["MatMul"]
    assert [tensor.name for tensor in other.graph.initializer] == ["w"]
    assert [value.name for value in other.graph.input] == (["x", "w"] if ir_version == 3 else ["x"])
    expected = model("g (float[1,4] x) => (float[1,3] y) { y = MatMul(x, w) }", changed)
    assert outputs(other) == outputs(expected)


QUANTISED = """g (float[1,4] x) => (float[1,3] y, float[4,3] z) {
    w = DequantizeLinear(q, s)
    z = Add(w, b)
    y = MatMul(x, w)
}"""


def test_quantised_weights_stay_quantised_until_they_change() -> None:
    q = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    proto = model(QUANTISED, {"q": q, "s": np.float32(0.1), "b": random(4, 3)})
    original = {"w": q * np.float32(0.1), "b": random(4, 3)}
    skeleton = skeleton_of(proto, original)
    assert outputs(fill_skeleton(skeleton, original)) == outputs(proto)
    other = fill_skeleton(skeleton, {**original, "w": random(4, 3)})
    assert sorted(tensor.name for tensor in other.graph.initializer) == ["b", "w"]


def test_a_computed_half_precision_parameter_is_written_in_half_precision() -> None:
    proto = model(
        "g (float[1,4] x) => (float[1,3] y) { v = Mul(w, w) u = Cast<to = 1>(v) y = MatMul(x, u) }",
        {"w": random(4, 3).astype(np.float16)},
    )
    original = {"v": random(4, 3)}
    other = fill_skeleton(skeleton_of(proto, original), {"v": random(4, 3, seed=1)})
    (tensor,) = other.graph.initializer
    assert (tensor.name, tensor.data_type) == ("v", TensorProto.FLOAT16)


def test_a_computed_parameter_outlives_a_change_of_its_source() -> None:
    """w is read as it is and doubled; only w changes: the doubled one keeps its own value."""
    text = "g (float[1,4] x) => (float[1,3] y) { d = Add(w, w) p = Add(w, d) y = MatMul(x, p) }"
    weights = {"w": random(4, 3)}
    doubled = weights["w"] + weights["w"]
    skeleton = skeleton_of(model(text, weights), {**weights, "d": doubled})
    other = fill_skeleton(skeleton, {"w": random(4, 3, seed=1), "d": doubled})
    values = {t.name: numpy_helper.to_array(t) for t in other.graph.initializer}
    np.testing.assert_array_equal(values["d"], doubled)
    np.testing.assert_array_equal(values["w"], random(4, 3, seed=1))


def test_one_output_of_several_is_replaced() -> None:
    text = """g (float[1,4] x) => (float[1,3] y) {
        a, b = Split<axis = 0>(w)
        c = MatMul(x, a)
        r = ReduceSum(b)
        y = Add(c, r)
    }"""
    proto = model(text, {"w": random(8, 3)})
    original = {"a": random(8, 3)[:4]}
    other = fill_skeleton(skeleton_of(proto, original), {"a": random(4, 3, seed=1)})
    assert [node.op_type for node in other.graph.node] == ["Split", "MatMul", "ReduceSum", "Add"]
    assert sorted(tensor.name for tensor in other.graph.initializer) == ["a", "w"]
    outputs(other)


def test_a_parameter_without_a_tensor_cannot_change() -> None:
    weights = {"w": random(4, 3), "b": random(3)}
    skeleton = skeleton_of(model(GEMM, weights), {**weights, "w.dequantised": random(2)})
    assert fixed_parameters(skeleton) == {"w.dequantised"}
    fill_skeleton(skeleton, {**weights, "w.dequantised": random(2)})
    with pytest.raises(LiftError, match=r"w\.dequantised: its value has changed"):
        fill_skeleton(skeleton, {**weights, "w.dequantised": random(2, seed=1)})


def test_missing_and_misshapen_values_are_named() -> None:
    weights = {"w": random(4, 3), "b": random(3)}
    skeleton = skeleton_of(model(GEMM, weights), weights)
    with pytest.raises(LiftError, match="no value for b"):
        fill_skeleton(skeleton, {"w": weights["w"]})
    with pytest.raises(LiftError, match=r"b: a value of shape \[1\], the model has \[3\]"):
        fill_skeleton(skeleton, {"w": weights["w"], "b": random(1)})
    with pytest.raises(ModelError, match="no skeleton"):
        fill_skeleton(model(GEMM, weights), weights)


def test_weights_inside_a_branch_are_parameters_too() -> None:
    then = parser.parse_graph("t () => (float[1,3] t) { t = MatMul(x, w) }")
    then.initializer.append(numpy_helper.from_array(random(4, 3), "w"))
    otherwise = parser.parse_graph("e () => (float[1,3] e) { e = Identity(k) }")
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=otherwise)
    proto = model(
        "g (float[1,4] x) => (float[1,3] y) { }", {"c": np.array(True), "k": random(1, 3)}
    )
    proto.graph.node.append(node)
    skeleton = skeleton_of(proto, {"w": random(4, 3)})
    filled = fill_skeleton(skeleton, {"w": random(4, 3, seed=1)})
    expected = model(GEMM.replace(", b", ""), {"w": random(4, 3, seed=1)})
    assert outputs(filled) == outputs(expected)
