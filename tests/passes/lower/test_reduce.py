"""Reductions, running sums, sorting and softmax, in the forms of every opset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ngc.errors import ShapeError, UnsupportedOps
from ngc.ir import program as ir
from ngc.passes.lower.reduce import REDUCTIONS
from tests.passes.lower.one_node import Given, given, ints, noise, one

POSITIVE = Given(np.abs(noise(2, 3, 4)) + 0.5)


@pytest.mark.parametrize("op_type", REDUCTIONS)
@pytest.mark.parametrize("opset", [7, 11, 13, 18, 20])
def test_axes_as_attribute_and_as_input(op_type: str, opset: int) -> None:
    fn, since = REDUCTIONS[op_type]
    if opset >= since:
        case = one(op_type, POSITIVE, ints(2, 0), opset=opset, keepdims=0)
    else:
        case = one(op_type, POSITIVE, opset=opset, axes=[0, 2], keepdims=0)
    op = case.agrees().only(ir.Reduce)
    assert (op.fn, op.axes, op.keepdims, op.out.shape) == (fn, (0, 2), False, (3,))


@pytest.mark.parametrize("op_type", REDUCTIONS)
def test_no_axes_are_all_of_them_or_none(op_type: str) -> None:
    assert one(op_type, POSITIVE).agrees().only(ir.Reduce).axes == (0, 1, 2)
    assert one(op_type, POSITIVE, ints()).agrees().only(ir.Reduce).axes == (0, 1, 2)
    case = one(op_type, POSITIVE, ints(), noop_with_empty_axes=1).agrees()
    assert "reduce" not in case.mnemonics


def test_axes_that_depend_on_the_input_are_refused() -> None:
    with pytest.raises(UnsupportedOps, match="axes depends on the input"):
        one("ReduceSum", given(2, 3), Given(ints(1)))


def test_negative_axes_count_from_the_end() -> None:
    assert one("ReduceMax", given(2, 3, 4), opset=11, axes=[-1]).agrees().ops[0].out.shape == (
        *(2, 3),
        1,
    )


TIES = Given(np.array([[1, 3, 3], [2, 2, 0]], np.float32))


@pytest.mark.parametrize("op_type", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("axis", [0, -1])
def test_arguments(op_type: str, last: int, axis: int) -> None:
    case = one(op_type, TIES, opset=13, axis=axis, select_last_index=last, keepdims=0).agrees()
    assert case.only(ir.Reduce).fn == f"{op_type.lower()}{'_last' if last else ''}"


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_running_sums(exclusive: int, reverse: int) -> None:
    options = {"exclusive": exclusive, "reverse": reverse}
    op = one("CumSum", given(2, 3), np.array(-1), **options).agrees().only(ir.Cumulate)
    assert (op.axis, op.exclusive, op.reverse) == (1, bool(exclusive), bool(reverse))


def test_running_products() -> None:
    case = one("CumProd", given(2, 3), np.array(1), opset=26)
    np.testing.assert_allclose(case.run()[0], np.cumprod(noise(2, 3, seed=1), 1), rtol=1e-6)


TOP: list[tuple[int, tuple[Any, ...], dict[str, Any], bool]] = [
    (7, (), {"k": 2}, True),
    (10, (ints(2),), {"axis": 1}, True),
    (11, (ints(2),), {"axis": 1, "largest": 0}, False),
    (21, (ints(2),), {"axis": 0, "sorted": 1}, True),
]


@pytest.mark.parametrize(("opset", "operands", "attributes", "largest"), TOP)
def test_top_k(
    opset: int, operands: tuple[Any, ...], attributes: dict[str, Any], largest: bool
) -> None:
    x = Given(np.array([[1, 3, 3, 0], [2, 2, 0, 5]], np.float32))
    case = one("TopK", x, *operands, opset=opset, outputs=2, **attributes).agrees()
    assert [(op.result, op.largest) for op in case.ops if isinstance(op, ir.TopK)] == [
        ("values", largest),
        ("indices", largest),
    ]


SOFTMAXES = ["Softmax", "LogSoftmax", "Hardmax"]


@pytest.mark.parametrize("op_type", SOFTMAXES)
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_softmax_since_opset_13_is_along_one_axis(op_type: str, axis: int) -> None:
    op = one(op_type, given(2, 3, 4), opset=13, axis=axis).agrees().only(ir.Softmax)
    assert op.axis == axis % 3


@pytest.mark.parametrize("op_type", SOFTMAXES)
@pytest.mark.parametrize("opset", [7, 11])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_before_opset_13_is_over_all_axes_from_one_on(
    op_type: str, opset: int, axis: int
) -> None:
    case = one(op_type, given(2, 3, 4), opset=opset, axis=axis).agrees()
    assert case.mnemonics == (["softmax"] if axis == 2 else ["reshape", "softmax", "reshape"])


def test_trailing_axes_of_size_1_need_no_reshape_in_softmax() -> None:
    assert one("Softmax", given(2, 3, 1, 1), opset=9).agrees().only(ir.Softmax).axis == 1


BAD: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("ReduceSum", (given(2, 3), ints(2)), {}, "axis 2 does not exist"),
    ("ArgMax", (given(2, 0),), {"axis": 1}, "no entries along axis 1"),
    ("TopK", (given(2, 3), ints(4)), {"outputs": 2}, "4 entries along axis 1"),
    ("Softmax", (given(),), {}, "axis -1 does not exist|a scalar has none"),
]


@pytest.mark.parametrize(("op_type", "operands", "attributes", "message"), BAD)
def test_what_does_not_fit_is_an_error(
    op_type: str, operands: tuple[Any, ...], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        one(op_type, *operands, **attributes)


def test_an_operator_without_a_rule_is_refused() -> None:
    with pytest.raises(UnsupportedOps, match=r"Det .* is not supported"):
        one("Det", given(2, 2))
