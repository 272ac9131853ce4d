"""Activations and arithmetic: the operation each becomes, its dtype, the forms of old opsets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest

from ngc.errors import ShapeError, UnsupportedOps
from ngc.ir import program as ir
from ngc.passes.lower.base import find_rule
from ngc.passes.lower.unary import ACTIVATIONS
from tests.passes.lower.one_node import Given, ints, one, ramp, scalar, x

W = ramp(3) + 3


@pytest.mark.parametrize("op_type", sorted(ACTIVATIONS))
def test_unary_operators_are_one_activation(op_type: str) -> None:
    dtype = "int64" if op_type == "BitwiseNot" else "float32"
    opset = 24 if op_type == "Swish" else 22
    activation = one(op_type, x(2, 3, dtype=dtype), opset=opset).only(ir.Activation)
    assert activation.out == ir.Value("y0", (2, 3), dtype)
    assert activation.fn == ACTIVATIONS[op_type][0]


@pytest.mark.parametrize(
    ("op_type", "attributes", "fn", "numbers"),
    [
        ("LeakyRelu", {"alpha": 0.25}, "leaky_relu", (0.25,)),
        ("Selu", {"gamma": 2.0, "alpha": 0.5}, "selu", (0.5, 2.0)),
        ("HardSigmoid", {"beta": 0.25}, "hard_sigmoid", (pytest.approx(0.2), 0.25)),
        ("Shrink", {"bias": 1.5}, "shrink", (0.5, 1.5)),
        ("Gelu", {}, "gelu", ()),
        ("Gelu", {"approximate": "tanh"}, "gelu_tanh", ()),
        ("IsInf", {"detect_negative": 0}, "is_inf", (0.0, 1.0)),
    ],
)
def test_attributes_become_numbers(
    op_type: str, attributes: dict[str, Any], fn: str, numbers: tuple[float, ...]
) -> None:
    activation = one(op_type, x(2), **attributes).only(ir.Activation)
    assert (activation.fn, activation.a) == (fn, numbers)


@pytest.mark.parametrize(
    ("operands", "opset", "attributes", "numbers"),
    [
        ((), 6, {"min": 0.0, "max": 6.0}, (0.0, 6.0)),
        ((scalar(-1.0),), 13, {}, (-1.0, math.inf)),
        ((None, scalar(1.0)), 13, {}, (-math.inf, 1.0)),
        ((np.array(0, np.float32), np.array(6, np.float32)), 11, {}, (0.0, 6.0)),
    ],
)
def test_clip_bounds_are_structure(
    operands: tuple[Any, ...], opset: int, attributes: dict[str, Any], numbers: tuple[float, float]
) -> None:
    case = one("Clip", x(3), *operands, opset=opset, **attributes)
    assert case.only(ir.Activation).a == numbers
    assert not case.lowered.program.params


def test_clip_with_bounds_that_are_values_or_integers() -> None:
    bound = Given(np.array(0.5, np.float32))
    case = one("Clip", x(3), bound)
    assert case.only(ir.Combine).fn == "max"
    case = one("Clip", x(3, dtype="int64"), np.array(0), np.array(0))
    assert case.run()[0].tolist() == [0, 0, 0]
    assert one("Clip", x(3)).ops == []


ARITHMETIC = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
}


@pytest.mark.parametrize("op_type", sorted(ARITHMETIC))
@pytest.mark.parametrize("swapped", [False, True])
def test_arithmetic_with_a_parameter(op_type: str, swapped: bool) -> None:
    given = x(2, 3).array + 5
    case = one(op_type, *((W, Given(given)) if swapped else (Given(given), W)))
    cls = ir.Shift if op_type in ("Add", "Sub") else ir.Scale
    reverse = "r" if swapped and op_type in ("Sub", "Div") else ""
    assert case.only(cls).fn == reverse + op_type.lower()
    expected = ARITHMETIC[op_type](*((W, given) if swapped else (given, W)))
    np.testing.assert_allclose(case.run()[0], expected, rtol=1e-6)


@pytest.mark.parametrize("op_type", sorted(ARITHMETIC))
@pytest.mark.parametrize("swapped", [False, True])
def test_arithmetic_with_a_plain_number(op_type: str, swapped: bool) -> None:
    given = x(2, 3).array + 5
    two = scalar(2.0)
    case = one(op_type, *((two, Given(given)) if swapped else (Given(given), two)))
    assert set(case.mnemonics) == {"activation"}
    expected = ARITHMETIC[op_type](*((2, given) if swapped else (given, 2)))
    np.testing.assert_allclose(case.run()[0], expected, rtol=1e-6)


def test_a_number_of_higher_rank_widens_the_result() -> None:
    case = one("Mul", x(3), Given(ramp(1)))
    assert case.ops[0].out.shape == (3,)
    number = scalar(2.0).array.reshape(1, 1)
    case = one("Mul", x(3), type(scalar(0.0))(number))
    assert case.mnemonics == ["expand", "activation"]
    assert case.ops[-1].out.shape == (1, 3)


def test_a_parameter_larger_than_the_value_expands_it() -> None:
    case = one("Add", x(1, 3), ramp(4, 1))
    assert case.mnemonics == ["expand", "shift"]
    np.testing.assert_array_equal(case.run()[0], ramp(1, 3) + ramp(4, 1))


def test_integer_arithmetic_stays_integer() -> None:
    case = one("Div", Given(ints(-7, 7)), ints(2))
    assert case.mnemonics == ["constant", "combine"]
    assert case.ops[-1].out.dtype == "int64"
    assert case.run()[0].tolist() == [-3, 3]


@pytest.mark.parametrize(
    ("attributes", "expected"), [({}, [1, -1]), ({"fmod": 1}, [-2, 2])], ids=["mod", "fmod"]
)
def test_mod_has_the_sign_of_the_divisor_or_of_the_dividend(
    attributes: dict[str, int], expected: list[int]
) -> None:
    case = one("Mod", Given(ints(-5, 5)), Given(ints(3, -3)), **attributes)
    assert case.run()[0].tolist() == expected


def test_broadcasting_before_opset_7() -> None:
    given, channels = ramp(2, 3, 4), ramp(3)
    for op_type in ("Add", "Mul"):
        case = one(op_type, Given(given), channels, opset=6, broadcast=1, axis=1)
        expected = ARITHMETIC[op_type](given, channels[:, None])
        np.testing.assert_array_equal(case.run()[0], expected)
    case = one("Add", Given(given), ramp(3, 4), opset=6, broadcast=1)
    np.testing.assert_array_equal(case.run()[0], given + ramp(3, 4))
    with pytest.raises(ShapeError, match=r"shapes \[2, 3, 4\] and \[3, 4\] differ"):
        one("Add", Given(given), ramp(3, 4), opset=6)


@pytest.mark.parametrize(
    ("op_type", "fn"),
    [("Equal", "equal"), ("Less", "less"), ("LessOrEqual", "less_equal"), ("Greater", "greater")],
)
def test_comparisons_are_boolean(op_type: str, fn: str) -> None:
    combine = one(op_type, x(2, 3), x(3)).only(ir.Combine)
    assert (combine.fn, combine.out.dtype, combine.out.shape) == (fn, "bool", (2, 3))


def test_logic() -> None:
    mask = Given(np.array([True, False]))
    for op_type in ("And", "Or", "Xor"):
        assert one(op_type, mask, mask).only(ir.Combine).out.dtype == "bool"
    assert one("Not", mask).only(ir.Activation).out.dtype == "bool"


def test_powers() -> None:
    assert one("Pow", x(3), scalar(2.0)).only(ir.Activation).fn == "power"
    assert one("Pow", scalar(2.0), x(3)).only(ir.Activation).fn == "base"
    assert one("Pow", x(3), W).mnemonics == ["parameter", "combine"]
    case = one("Pow", Given(ints(2, 3)), Given(np.array([0.5, 2.0], np.float32)))
    assert case.run()[0].tolist() == [1, 9]


def test_where_with_a_fixed_mask_and_a_parameter() -> None:
    mask = np.array([True, False, True])
    case = one("Where", mask, x(2, 3), W)
    assert case.mnemonics == ["constant", "parameter", "combine"]
    np.testing.assert_array_equal(case.run()[0], np.where(mask, ramp(2, 3), W))
    assert one("Where", np.array([True]), x(3), W).ops == []


def test_extremes() -> None:
    assert one("Max", x(3), scalar(0.0)).only(ir.Activation).a == (0.0, math.inf)
    assert one("Min", x(3), x(3), x(3)).only(ir.Combine).fn == "min"
    case = one("Min", x(2, 3), W, scalar(1.0))
    np.testing.assert_array_equal(case.run()[0], np.minimum(np.minimum(ramp(2, 3), W), 1))


def test_sums_and_means_of_several() -> None:
    assert one("Sum", x(3), x(3), x(3)).only(ir.Combine).fn == "add"
    assert one("Sum", x(3), W).only(ir.Shift).fn == "add"
    assert one("Mean", x(3), x(3)).only(ir.Combine).fn == "mean"
    case = one("Mean", x(2, 3), W, x(2, 3))
    np.testing.assert_allclose(case.run()[0], (2 * ramp(2, 3) + W) / 3, rtol=1e-6)
    assert one("Sum", x(3)).ops == []


def test_prelu_slope_is_per_channel_before_opset_7() -> None:
    given, slope = ramp(1, 3, 2), np.array([2, 3, 4], np.float32)
    case = one("PRelu", Given(-given), slope, opset=6)
    assert case.only(ir.PRelu).slope.shape == (3, 1)
    np.testing.assert_array_equal(
        case.run()[0], np.where(given < 0, -given, -given * slope[:, None])
    )


def test_prelu_slope_may_be_a_value() -> None:
    case = one("PRelu", x(2, 3), x(3))
    np.testing.assert_array_equal(case.run()[0], np.where(ramp(2, 3) < 0, ramp(3), 1) * ramp(2, 3))


def test_bits() -> None:
    byte = Given(np.array([1, 6], np.uint8))
    assert one("BitShift", byte, byte, direction="LEFT").only(ir.Combine).fn == "shift_left"
    assert one("BitwiseXor", byte, byte).only(ir.Combine).out.dtype == "uint8"


def test_casts_say_what_they_lose() -> None:
    assert one("Cast", x(2), to=7).only(ir.Cast).out.dtype == "int64"
    assert one("CastLike", x(2), ints(1)).only(ir.Cast).out.dtype == "int64"
    case = one("Cast", x(2), to=10)
    assert (case.ops, case.lowered.notes) == ([], ("float16 is computed in float32",))
    with pytest.raises(UnsupportedOps, match="float8_e4m3fn cannot be part of a program"):
        one("Cast", x(2), to=17)


def test_dropout_passes_its_input_on() -> None:
    for opset, dtype in ((6, "float32"), (9, "float32"), (11, "bool"), (13, "bool")):
        case = one("Dropout", x(2), outputs=2, opset=opset)
        assert case.mnemonics == ["constant"]
        assert case.ops[0].out.dtype == dtype
    assert one("Dropout", W).lowered.program.params[0].name == "w0"
    with pytest.raises(UnsupportedOps, match="at random"):
        one("Dropout", x(2), scalar(0.5), np.array(True))


def test_every_elementwise_function_of_onnx_has_a_rule() -> None:
    """Elementwise are the operators of the math and logical families without attributes that change
    a shape; those that are not are listed."""
    others = {"Bernoulli", "CumProd", "CumSum", "Einsum", "Gemm", "MatMul", "TopK", "Det", "DFT"}
    shaped = ("Reduce", "Window", "Matrix", "Softmax", "Hardmax", "STFT", "MatMul", "Loss")
    found = []
    for schema in onnx.defs.get_all_schemas():
        family = "/defs/math/" in schema.file.replace("\\", "/") or "/logical/" in schema.file
        name = schema.name
        if schema.domain or not family or schema.since_version > 24 or schema.deprecated:
            continue
        if name not in others and not any(word in name for word in shaped):
            found.append(name)
    assert len(found) > 60
    assert [name for name in found if find_rule("", name, 24) is None] == []
