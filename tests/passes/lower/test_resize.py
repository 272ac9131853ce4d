"""Resize and Upsample: matrices, and agreement with onnxruntime in every mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ngc.errors import BudgetError, ShapeError, UnsupportedOps
from ngc.ir import program as ir
from tests.passes.lower.one_node import Case, Given, given, ints, one

NONE = np.zeros(0, np.float32)


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def resized(
    x: Given,
    *,
    scales: Any = None,
    sizes: Any = None,
    roi: Any = None,
    opset: int = 19,
    **rest: Any,
) -> Case:
    operands = [roi, scales, sizes]
    while operands[-1] is None:
        operands.pop()
    return one("Resize", x, *operands, opset=opset, **rest)


def test_matrices_are_those_of_the_definition() -> None:
    op = resized(given(1, 1, 2), scales=floats(1, 1, 2), mode="linear").only(ir.Resize)
    assert op.axes == (2,)
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    np.testing.assert_array_equal(op.matrices[0].numpy(), expected)


def test_nothing_to_resize_is_nothing() -> None:
    assert resized(given(1, 2, 3), scales=floats(1, 1, 1)).ops == []


COORDINATES = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]
TARGETS: list[dict[str, Any]] = [
    {"scales": floats(1, 1, 0.6, 2.5)},
    {"scales": floats(1, 1, 2, 1)},
    {"sizes": ints(1, 2, 3, 9)},
    {"sizes": ints(1, 2, 8, 1)},
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("coordinates", [*COORDINATES, "half_pixel_symmetric"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_modes_and_coordinates(target: dict[str, Any], coordinates: str, mode: str) -> None:
    attributes = {"coordinate_transformation_mode": coordinates, "mode": mode}
    resized(given(1, 2, 5, 4), **target, **attributes).agrees(1e-4)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_rounding_to_the_nearest(coordinates: str, nearest: str) -> None:
    attributes = {"coordinate_transformation_mode": coordinates, "nearest_mode": nearest}
    for scale in (0.5, 0.6, 1.5, 2, 2.7):
        case = resized(given(1, 1, 7, 1), scales=floats(1, 1, scale, 1), **attributes).agrees()
        matrix = case.only(ir.Resize).matrices[0].numpy()
        np.testing.assert_array_equal(matrix.sum(1), np.ones(len(matrix)))


@pytest.mark.parametrize("outside", [0, 1])
@pytest.mark.parametrize("a", [-0.5, -0.75])
def test_cubic_coefficients(outside: int, a: float) -> None:
    options = {"mode": "cubic", "cubic_coeff_a": a, "exclude_outside": outside}
    resized(given(1, 1, 4, 5), scales=floats(1, 1, 1.8, 0.7), **options).agrees(1e-4)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("outside", [0, 1])
def test_antialiasing_widens_the_kernel(mode: str, outside: int) -> None:
    options = {"mode": mode, "antialias": 1, "exclude_outside": outside}
    resized(given(1, 1, 9, 8), scales=floats(1, 1, 0.4, 1.5), **options).agrees(1e-4)


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_axes_and_the_ratio_of_their_sizes(policy: str) -> None:
    options = {"axes": [3, 2], "keep_aspect_ratio_policy": policy, "mode": "linear"}
    resized(given(1, 1, 4, 6), sizes=ints(7, 8), **options).agrees(1e-4)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("value", [0.0, 3.5])
def test_cropping_fills_what_lies_outside(mode: str, value: float) -> None:
    case = resized(
        given(1, 1, 5, 4),
        roi=floats(0, 0, -0.2, 0.4, 1, 1, 0.8, 1.3),
        sizes=ints(1, 1, 7, 6),
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=value,
    ).agrees(1e-4)
    assert ("combine" in case.mnemonics) == (value != 0)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scale", [2.0, 1.5])
def test_old_forms(mode: str, scale: float) -> None:
    x, factors = given(1, 2, 3, 4), [1.0, 1.0, scale, 2.0]
    one("Upsample", x, opset=7, mode=mode, scales=factors).agrees(1e-4)
    one("Upsample", x, floats(*factors), opset=9, mode=mode).agrees(1e-4)
    for shrink in (1.0, 0.6, 0.5):
        scaled = floats(1, 1, scale * shrink, shrink)
        one("Resize", x, scaled, opset=10, mode=mode).agrees(1e-4)
    resized(x, roi=NONE, scales=floats(*factors), opset=11, mode=mode).agrees(1e-4)
    resized(x, roi=NONE, scales=NONE, sizes=ints(1, 2, 5, 7), opset=12, mode=mode).agrees(1e-4)
    half = "tf_half_pixel_for_nn"
    resized(
        x, roi=NONE, scales=floats(*factors), opset=11, coordinate_transformation_mode=half
    ).agrees()


def test_upsample_of_opset_6_takes_two_scales() -> None:
    case = one("Upsample", given(1, 1, 2, 2), opset=6, height_scale=2.0, width_scale=3.0)
    assert case.only(ir.Resize).out.shape == (1, 1, 4, 6)


def test_integers_are_truncated_unless_they_are_only_moved() -> None:
    x = Given(np.array([[[0, 10]]], np.uint8))
    linear = resized(x, sizes=ints(1, 1, 3), mode="linear")
    np.testing.assert_array_equal(linear.run()[0], [[[0, 5, 10]]])
    assert resized(x, sizes=ints(1, 1, 4)).mnemonics == ["resize"]


CROP = {"coordinate_transformation_mode": "tf_crop_and_resize"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"roi": floats(0, 0, 0, 1, 1, 0.5), "scales": floats(1, 1, 2), **CROP}, "scales are given"),
    ({"roi": floats(0, 0, 0, 1, 1, 0.5), "sizes": ints(1, 1, 4), **CROP}, "an axis of scale 1"),
    ({"sizes": Given(ints(1, 1, 2))}, "sizes depends on the input"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_is_ambiguous_or_dynamic_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedOps, match=message):
        resized(given(1, 1, 4), **options)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"scales": floats(1, 2)}, "for 3 axes"),
    ({"scales": floats(1, 1, -2)}, "for 3 axes"),
    ({"sizes": ints(1, 2)}, "for 3 axes"),
    ({"sizes": ints(1, 1, -1)}, "for 3 axes"),
    ({"scales": floats(1, 1, 2), "mode": "best"}, "mode 'best'"),
    ({"scales": floats(1, 1, 2), "nearest_mode": "up"}, "nearest_mode 'up'"),
    ({"scales": floats(1, 1, 2), "coordinate_transformation_mode": "x"}, "transformation_mode 'x'"),
    ({"scales": floats(1, 1, 2), "roi": floats(0, 1), **CROP}, "roi has 2 entries for 3 axes"),
    ({"scales": NONE}, "for 3 axes"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_what_does_not_fit_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        resized(given(1, 1, 4), **options)


def test_absurd_sizes_are_over_the_budget() -> None:
    with pytest.raises(BudgetError):
        resized(given(1, 1, 4), sizes=ints(1, 1, 2**40))
