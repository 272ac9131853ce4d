"""Pools: which windows there are and what they count."""

from __future__ import annotations

from typing import Any

import pytest

from ngc.errors import ShapeError, UnsupportedOps
from ngc.ir import program as ir
from tests.passes.lower.one_node import given, one

# spatial size, attributes, opset since when all operators have them
WINDOWS: list[tuple[tuple[int, ...], dict[str, Any], int]] = [
    ((7,), {"kernel_shape": [3]}, 7),
    ((7, 6), {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1]}, 7),
    ((7, 6), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, 7),
    ((7, 6), {"kernel_shape": [2, 3], "strides": [1, 2], "auto_pad": "SAME_LOWER"}, 7),
    ((7, 6), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "VALID"}, 7),
    ((7, 6), {"kernel_shape": [3, 2], "strides": [3, 4], "ceil_mode": 1}, 18),
    ((5, 5), {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1] * 4, "ceil_mode": 1}, 18),
    ((2, 2), {"kernel_shape": [1, 1], "strides": [2, 2], "pads": [0] * 4, "ceil_mode": 1}, 18),
    ((9, 8), {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [1, 0, 1, 1]}, 19),
    ((4, 5, 6), {"kernel_shape": [2, 3, 2], "strides": [2, 1, 3], "pads": [0, 1, 1] * 2}, 7),
]


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize(("space", "attributes", "since"), WINDOWS)
def test_windows(
    op_type: str, space: tuple[int, ...], attributes: dict[str, Any], since: int
) -> None:
    for opset in (since, 22):
        case = one(op_type, given(2, 3, *space), opset=opset, **attributes).agrees()
        assert case.only(ir.Pool).kernel == tuple(attributes["kernel_shape"])


@pytest.mark.parametrize("ceil", [0, 1])
def test_average_pool_may_count_its_pads(ceil: int) -> None:
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 0, 1]}
    case = one(
        "AveragePool",
        given(1, 2, 6, 7),
        opset=19,
        count_include_pad=1,
        ceil_mode=ceil,
        **attributes,
    )
    assert case.agrees().only(ir.Pool).count_pads


@pytest.mark.parametrize("order", [1, 2, 3])
def test_lp_pool_of_any_order(order: int) -> None:
    case = one("LpPool", given(1, 2, 6), opset=22, kernel_shape=[2], p=order).agrees()
    assert case.only(ir.Pool).p == order


GLOBAL: list[tuple[str, dict[str, Any], str]] = [
    ("GlobalAveragePool", {}, "mean"),
    ("GlobalMaxPool", {}, "max"),
    ("GlobalLpPool", {}, "l2"),
    ("GlobalLpPool", {"p": 1}, "l1"),
]


@pytest.mark.parametrize(("op_type", "attributes", "fn"), GLOBAL)
def test_global_pools_are_reductions(op_type: str, attributes: dict[str, Any], fn: str) -> None:
    op = one(op_type, given(2, 3, 4, 5), **attributes).agrees().only(ir.Reduce)
    assert (op.fn, op.axes, op.keepdims) == (fn, (2, 3), True)


def test_global_lp_pool_of_order_3_is_a_pool() -> None:
    assert one("GlobalLpPool", given(2, 3, 4, 5), p=3).agrees().only(ir.Pool).kernel == (4, 5)


def test_indices_of_a_max_pool_are_refused_where_they_are_used() -> None:
    with pytest.raises(UnsupportedOps, match="Indices is used"):
        one("MaxPool", given(1, 1, 4), outputs=2, kernel_shape=[2])


@pytest.mark.parametrize(
    "attributes", [{"kernel_shape": [3], "dilations": [2]}, {"kernel_shape": [1], "strides": [3]}]
)
def test_ambiguous_auto_pad_is_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedOps, match="one thing to the standard"):
        one("MaxPool", given(1, 1, 9), auto_pad="SAME_UPPER", **attributes)


@pytest.mark.parametrize("op_type", ["MaxUnpool", "MaxRoiPool"])
def test_pools_without_a_rule_are_refused(op_type: str) -> None:
    with pytest.raises(UnsupportedOps, match=f"{op_type} .* is not supported"):
        one(op_type, given(1, 1, 4, 4), given(1, 5), pooled_shape=[2, 2], kernel_shape=[2, 2])


def test_what_does_not_fit_is_an_error() -> None:
    with pytest.raises(ShapeError, match="a window of 5 entries does not fit 4"):
        one("MaxPool", given(1, 1, 4), kernel_shape=[5])
    with pytest.raises(ShapeError, match="no space"):
        one("AveragePool", given(3, 4), kernel_shape=[1])
