"""Quantised operators in floating point: no rounding between them, exact codes where they show."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ngc.errors import UnsupportedOps
from ngc.ir import program as ir
from ngc.passes.lower.quantized import NOTE
from tests.passes.lower.one_node import Case, Given, build, one, ramp

SCALE = np.array(0.5, np.float32)
ZERO = np.array(3, np.uint8)
X = np.array([[-9.0, -1.2, 0.3], [0.8, 4.1, 500.0]], np.float32)
RNG = np.random.default_rng(0)


def chain(*steps: tuple[str, list[str], dict[str, Any]], **weights: np.ndarray) -> Case:
    """Nodes one after another, from input x to output y; each reads its predecessor first."""
    nodes, last = [], "x"
    for k, (op_type, operands, attributes) in enumerate(steps):
        out = "y" if k == len(steps) - 1 else f"h{k}"
        nodes.append(helper.make_node(op_type, [last, *operands], [out], **attributes))
        last = out
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    return build(nodes, {"x": X}, constants, ["y"])


QUANTIZE = ("QuantizeLinear", ["s", "z"], {})
DEQUANTIZE = ("DequantizeLinear", ["s", "z"], {})


def test_a_pair_only_holds_the_activation_within_the_grid() -> None:
    case = chain(QUANTIZE, DEQUANTIZE, s=SCALE, z=ZERO)
    clip = case.only(ir.Activation)
    assert (clip.fn, clip.a) == ("clip", (-1.5, 126.0))
    assert case.lowered.notes == (NOTE,)
    np.testing.assert_array_equal(case.run()[0], X.clip(-1.5, 126))


def test_data_movement_and_max_pools_between_a_pair_do_not_round() -> None:
    case = chain(QUANTIZE, ("Transpose", [], {}), DEQUANTIZE, s=SCALE, z=ZERO)
    assert case.mnemonics == ["activation", "transpose"]
    np.testing.assert_array_equal(case.run()[0], X.clip(-1.5, 126).T)


def test_a_pair_of_different_grids_reads_the_codes() -> None:
    other = ("DequantizeLinear", ["t", "z"], {})
    case = chain(QUANTIZE, other, s=SCALE, z=ZERO, t=np.array(2.0, np.float32))
    codes = (np.rint(X / 0.5) + 3).clip(0, 255)
    np.testing.assert_array_equal(case.run()[0], (codes - 3) * 2)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16"])
def test_codes_that_are_an_output_are_exact(dtype: str) -> None:
    case = one("QuantizeLinear", Given(X), SCALE, np.array(3, dtype))
    limits = np.iinfo(dtype)
    (codes,) = case.run()
    assert codes.dtype == dtype
    np.testing.assert_array_equal(codes, (np.rint(X * 2) + 3).clip(limits.min, limits.max))


def test_grids_may_differ_along_an_axis() -> None:
    scales, zeros = np.array([0.5, 2.0], np.float32), np.array([0, 100], np.uint8)
    (codes,) = one("QuantizeLinear", Given(X), scales, zeros, axis=0).run()
    expected = (np.rint(X / scales[:, None]) + zeros[:, None]).clip(0, 255)
    np.testing.assert_array_equal(codes, expected)
    (back,) = one("DequantizeLinear", Given(codes), scales, zeros, axis=0).run()
    np.testing.assert_array_equal(back, (expected - zeros[:, None]) * scales[:, None])


def test_dequantised_weights_are_parameters_derived_from_their_initializers() -> None:
    codes = RNG.integers(-128, 127, (3, 4)).astype(np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    scale = np.array([1, 2, 3, 4], np.float32)
    constants = [numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(scale, "scale")]
    case = build(nodes, {"x": X}, constants, ["y"])
    (param,) = case.lowered.program.params
    assert (param.name, param.derived) == ("codes.dequantised", ("codes", "scale"))
    np.testing.assert_array_equal(case.lowered.arrays[param.name], codes * scale)


def reference(op_type: str, operands: list[np.ndarray]) -> np.ndarray:
    names = [f"x{k}" for k in range(len(operands))]
    kinds = [helper.np_dtype_to_tensor_dtype(a.dtype) for a in operands]
    inputs = [
        helper.make_tensor_value_info(n, kind, a.shape)
        for n, kind, a in zip(names, kinds, operands)
    ]
    end = helper.make_value_info("y", onnx.TypeProto())
    node = helper.make_node(op_type, names, ["y"])
    graph = helper.make_graph([node], "one", inputs, [end])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return ReferenceEvaluator(model).run(None, dict(zip(names, operands)))[0]


def integer_weights() -> tuple[np.ndarray, np.ndarray]:
    return RNG.integers(0, 255, (3, 4)).astype(np.uint8), np.array(120, np.uint8)


def test_integer_products_of_integer_inputs_are_exact() -> None:
    codes = RNG.integers(0, 255, (2, 3)).astype(np.uint8)
    weight, zero = integer_weights()
    case = one("MatMulInteger", Given(codes), weight, np.array(7, np.uint8), zero)
    expected = (codes.astype(np.int32) - 7) @ (weight.astype(np.int32) - 120)
    (result,) = case.run()
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, expected)
    assert case.lowered.program.params[0].derived == ("w1", "w3")


def test_dynamic_quantisation_cancels_out() -> None:
    """DynamicQuantizeLinear, MatMulInteger, Cast, Mul: what onnxruntime's quantiser writes."""
    weight, zero = integer_weights()
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["codes", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["codes", "w", "zero", "w_zero"], ["product"]),
        helper.make_node("Cast", ["product"], ["float"], to=1),
        helper.make_node("Mul", ["scale", "w_scale"], ["both"]),
        helper.make_node("Mul", ["float", "both"], ["y"]),
    ]
    weights = {"w": weight, "w_zero": zero, "w_scale": np.array([0.1], np.float32)}
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    case = build(nodes, {"x": X}, constants, ["y"])
    assert case.mnemonics == ["linear", "scale"]
    expected = X @ ((weight.astype(np.float32) - 120) * np.float32(0.1))
    np.testing.assert_allclose(case.run()[0], expected, rtol=1e-5)


def test_dynamic_codes_that_are_outputs_are_exact() -> None:
    given = np.array([0, 2, -3, -2.5, 1.34, 0.5], np.float32)  # the operator's own example
    codes, scale, zero = one("DynamicQuantizeLinear", Given(given), outputs=3).run()
    assert codes.tolist() == [153, 255, 0, 26, 221, 179]
    assert (scale, zero) == (pytest.approx(0.0196078438), 153)


def test_qlinear_matmul_is_within_a_step_of_the_integer_operator() -> None:
    codes = RNG.integers(0, 255, (2, 3)).astype(np.uint8)
    weight, zero = integer_weights()
    x_scale, w_scale, y_scale = (np.array(s, np.float32) for s in (0.02, 0.01, 0.05))
    operands = [codes, x_scale, np.array(128, np.uint8), weight, w_scale, zero, y_scale, ZERO + 100]
    case = one("QLinearMatMul", Given(codes), *operands[1:])
    (result,) = case.run()
    assert result.dtype == np.uint8
    expected = reference("QLinearMatMul", operands)
    assert np.abs(result.astype(int) - expected.astype(int)).max() <= 1
    assert case.lowered.program.params[0].derived == ("w3", "w4", "w5")


def test_chained_qlinear_operators_pass_activations_unrounded() -> None:
    weight = RNG.integers(0, 255, (3, 3)).astype(np.uint8)
    small = np.array(0.01, np.float32)
    product = ("QLinearMatMul", ["s", "z", "w", "t", "z", "s", "z"], {})
    case = chain(QUANTIZE, product, product, DEQUANTIZE, s=SCALE, z=ZERO, w=weight, t=small)
    assert case.mnemonics == ["activation", "linear", "activation", "linear", "activation"]
    factor = (weight.astype(np.float32) - 3) * small
    expected = X.clip(-1.5, 126)
    for _ in range(2):
        expected = (expected @ factor).clip(-1.5, 126)
    np.testing.assert_allclose(case.run()[0], expected, rtol=1e-5)


def test_grids_of_floating_point_numbers_are_refused() -> None:
    with pytest.raises(UnsupportedOps, match="quantising activations to float8_e4m3fn"):
        one("QuantizeLinear", Given(ramp(3)), SCALE, output_dtype=onnx.TensorProto.FLOAT8E4M3FN)


def microsoft(
    op_type: str, given: np.ndarray, operands: list[np.ndarray], **attributes: Any
) -> Case:
    """A node of com.microsoft on an input and initializers w1, w2, ..."""
    names = [f"w{k}" for k in range(1, len(operands) + 1)]
    constants = [numpy_helper.from_array(a, name) for a, name in zip(operands, names)]
    node = helper.make_node(
        op_type, ["x", *names], ["y"], domain="com.microsoft", name="node", **attributes
    )
    return build([node], {"x": given}, constants, ["y"], domains={"com.microsoft": 1})


def codes_of(real: np.ndarray, scale: float, zero: int) -> np.ndarray:
    return (np.rint(real / scale) + zero).clip(0, 255)


def test_operators_of_onnxruntime_compute_between_their_grids() -> None:
    half, tenth = SCALE, np.array(0.1, np.float32)
    given, other = (RNG.integers(0, 60, (2, 3)).astype(np.uint8) for _ in range(2))
    real = (given.astype(np.float32) - 3) * 0.5
    case = microsoft("QLinearAdd", given, [half, ZERO, other, tenth, ZERO, half, ZERO])
    expected = codes_of(real + (other.astype(np.float32) - 3) * np.float32(0.1), 0.5, 3)
    assert np.abs(case.run()[0] - expected).max() <= 1
    case = microsoft("QLinearSigmoid", given, [half, ZERO, tenth, ZERO])
    assert np.abs(case.run()[0] - codes_of(1 / (1 + np.exp(-real)), 0.1, 3)).max() <= 1


def test_qgemm_has_a_bias_on_the_grid_of_the_product() -> None:
    given, weight = (RNG.integers(0, 9, shape).astype(np.uint8) for shape in ((2, 3), (4, 3)))
    bias = np.array([1000, -50, 3, 0], np.int32)
    operands = [SCALE, ZERO, weight, SCALE, ZERO, bias]
    case = microsoft("QGemm", given, operands, transB=1, alpha=2.0)
    expected = (given.astype(np.float32) - 3) @ (weight.astype(np.float32) - 3).T
    np.testing.assert_allclose(case.run()[0], 2 * 0.25 * (expected + bias), rtol=1e-6)
    assert case.lowered.program.params[1].derived == ("w6", "w1", "w4")
