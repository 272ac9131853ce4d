"""Resize and Upsample: one interpolation matrix [out, in] per resized axis, computed here.

Every mode of ONNX is linear and works axis by axis: nearest, linear and cubic, with or without
antialiasing. Formulas are those of the operator page of Resize (opset 19); coordinates are computed
in float32, as onnxruntime does, because rounding to the nearest entry turns on their last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir

from ngc.ir import program as ir
from ngc.ir.program import Ints, Value
from ngc.ir.slots import Array
from ngc.passes.lower.base import Builder, Known, Operand, is_float, lowers

ONE_HALF = np.float32(0.5)
AMBIGUOUS = "cropping means one thing to the standard and another to onnxruntime"


@dataclass(frozen=True)
class Rule:
    """How entries of the result come from entries of the input: the attributes of a node."""

    mode: str
    coordinates: str
    nearest: str
    cubic_a: float
    exclude_outside: bool
    antialias: bool


@dataclass(frozen=True)
class Axis:
    """One axis to be resized. ``scale`` is the one asked for, which ``out / size`` only is up to
    rounding; ``start`` and ``end`` bound the region to crop, as fractions."""

    axis: int
    size: int
    out: int
    scale: np.float32
    start: np.float32
    end: np.float32


@lowers("Upsample", since=1)
def upsample_1(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """Two scales, of the last two axes."""
    names = ("height_scale", "width_scale")
    scales = [float(node.attributes.get_float(name, 1.0) or 1.0) for name in names]
    return _old(b, node, x, (1.0, 1.0, *scales))


@lowers("Upsample", since=7)
def upsample_7(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """A scale per axis, as an attribute."""
    return _old(b, node, x, node.attributes.get_floats("scales", ()) or ())


@lowers("Upsample", since=9)
@lowers("Resize", since=10)
def resize_10(b: Builder, node: onnx_ir.Node, x: Operand, scales: Operand) -> Operand:
    """A scale per axis, as an input."""
    return _old(b, node, x, b.values_of(scales, "scales").reshape(-1).tolist())


def _old(b: Builder, node: onnx_ir.Node, x: Operand, scales: Sequence[float]) -> Operand:
    """Before opset 11: coordinates are divided by the scale; nearest rounds down, or up where the
    axis shrinks (what onnxruntime computes: the standard did not say)."""
    mode = node.attributes.get_string("mode", "nearest") or "nearest"
    rule = Rule(mode.replace("bilinear", "linear"), "asymmetric", "simple", -0.75, False, False)
    return _resized(b, x, rule, _scaled_axes(b, x.shape, range(len(x.shape)), scales, None))


@lowers("Resize", since=11)
def resize(
    b: Builder,
    node: onnx_ir.Node,
    x: Operand,
    roi: Operand | None = None,
    scales: Operand | None = None,
    sizes: Operand | None = None,
) -> Operand:
    """Scales or sizes, of the axes given (all by default); roi only for tf_crop_and_resize."""
    read, rank = node.attributes, len(x.shape)
    chosen = [b.axis(axis, rank) for axis in read.get_ints("axes", tuple(range(rank)))]
    rule = Rule(
        mode=read.get_string("mode", "nearest") or "nearest",
        coordinates=read.get_string("coordinate_transformation_mode", "half_pixel") or "",
        nearest=read.get_string("nearest_mode", "round_prefer_floor") or "",
        cubic_a=read.get_float("cubic_coeff_a", -0.75),
        exclude_outside=bool(read.get_int("exclude_outside", 0)),
        antialias=bool(read.get_int("antialias", 0)),
    )
    crop = None
    if rule.coordinates == "tf_crop_and_resize":
        crop = b.values_of(roi, "roi").astype(np.float32).reshape(-1)
        if len(crop) != 2 * len(chosen):
            raise b.misshapen(f"roi has {len(crop)} entries for {len(chosen)} axes")
    if sizes is not None and len(targets := b.ints_of(sizes, "sizes")):
        axes = _sized_axes(b, node, x.shape, chosen, targets, crop)
    elif scales is not None:
        factors = b.values_of(scales, "scales").reshape(-1).tolist()
        axes = _scaled_axes(b, x.shape, chosen, factors, crop)
    else:
        raise b.misshapen("it has neither scales nor sizes")
    return _resized(b, x, rule, axes, read.get_float("extrapolation_value", 0.0))


def _regions(count: int, crop: np.ndarray | None) -> list[tuple[np.float32, np.float32]]:
    if crop is None:
        return [(np.float32(0), np.float32(1))] * count
    return list(zip(crop[:count], crop[count:]))


def _scaled_axes(
    b: Builder, shape: Ints, axes: Sequence[int], scales: Sequence[float], crop: np.ndarray | None
) -> list[Axis]:
    if len(scales) != len(axes) or any(not (0 < s < math.inf) for s in scales):
        raise b.misshapen(f"scales {list(scales)} for {len(axes)} axes")
    found = []
    for axis, given, (start, end) in zip(axes, scales, _regions(len(axes), crop)):
        scale = np.float32(given)
        out = math.floor(np.float32(shape[axis]) * scale)
        if out != math.floor(np.float32(shape[axis]) * (end - start) * scale):
            raise b.refuse(f"{AMBIGUOUS} where scales are given", hint="sizes")
        found.append(Axis(axis, shape[axis], out, scale, start, end))
    return found


def _sized_axes(
    b: Builder,
    node: onnx_ir.Node,
    shape: Ints,
    axes: Sequence[int],
    sizes: Sequence[int],
    crop: np.ndarray | None,
) -> list[Axis]:
    if len(sizes) != len(axes) or any(n < 0 for n in sizes) or any(not shape[a] for a in axes):
        raise b.misshapen(f"sizes {list(sizes)} for {len(axes)} axes of {list(shape)}")
    ratios = [np.float32(n) / np.float32(shape[axis]) for axis, n in zip(axes, sizes)]
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch") or "stretch"
    if policy != "stretch":
        if policy not in ("not_larger", "not_smaller"):
            raise b.misshapen(f"keep_aspect_ratio_policy {policy!r}")
        common = min(ratios) if policy == "not_larger" else max(ratios)
        ratios = [common] * len(axes)
        sizes = [math.floor(common * np.float32(shape[axis]) + ONE_HALF) for axis in axes]
    regions = _regions(len(axes), crop)
    return [
        Axis(axis, shape[axis], size, ratio, *region)
        for axis, size, ratio, region in zip(axes, sizes, ratios, regions)
    ]


def _resized(
    b: Builder, x: Operand, rule: Rule, axes: Sequence[Axis], outside: float = 0.0
) -> Operand:
    """x with every axis resized; ``outside`` fills what lies outside it when it is cropped."""
    if rule.mode not in ("nearest", "linear", "cubic"):
        raise b.misshapen(f"mode {rule.mode!r}")
    cropping = rule.coordinates == "tf_crop_and_resize"
    if any(a.scale == 1 and (a.start, a.end) != (0, 1) for a in axes):
        raise b.refuse(f"{AMBIGUOUS} along an axis of scale 1")
    axes = [a for a in axes if a.out != a.size or a.scale != 1]
    if not axes:
        return x
    shape = list(x.shape)
    for a in axes:
        shape[a.axis] = a.out
    if any(n == 0 for n in x.shape):
        raise b.misshapen(f"x {list(x.shape)} is empty")
    b.afford(shape)
    matrices, inside = [], np.ones((1,) * len(shape), dtype=bool)
    for a in axes:
        b.allocate((a.out, a.size))
        places = original(b, a, rule)
        matrix = interpolation(b, places, a, rule)
        if cropping:
            within = (places >= 0) & (places <= a.size - 1)
            matrix = matrix * within[:, None]
            inside = inside & within.reshape([-1 if k == a.axis else 1 for k in range(len(shape))])
        matrices.append(Array.of(matrix.astype(np.float32)))
    numbers = tuple(a.axis for a in axes)
    real = x if is_float(x.dtype) or rule.mode == "nearest" else b.cast(x, "float32")
    value = b.value(real)
    fields = {"x": value.name, "axes": numbers, "matrices": tuple(matrices)}
    y: Value = b.emit(ir.Resize, shape, value.dtype, **fields)
    if outside and not inside.all():
        y = b.combine("where", Known(inside), y, Known(np.asarray(outside, dtype=y.dtype)))
    return b.cast(y, x.dtype)


def original(b: Builder, a: Axis, rule: Rule) -> np.ndarray:
    """Coordinate [out] in the input of each entry of the result, float32."""
    place, size, out = np.arange(a.out, dtype=np.float32), np.float32(a.size), np.float32(a.out)
    match rule.coordinates:
        case "asymmetric":
            return place / a.scale
        case "half_pixel":
            return (place + ONE_HALF) / a.scale - ONE_HALF
        case "pytorch_half_pixel":
            return (place + ONE_HALF) / a.scale - ONE_HALF if a.out > 1 else np.zeros_like(place)
        case "half_pixel_symmetric":
            # The part of the last entry that rounding the output size down cut off.
            offset = size / 2 * (1 - out / (size * a.scale))
            return offset + (place + ONE_HALF) / a.scale - ONE_HALF
        case "tf_half_pixel_for_nn":
            return (place + ONE_HALF) / a.scale
        case "align_corners":
            return place * (size - 1) / (out - 1) if a.out > 1 else np.zeros_like(place)
        case "tf_crop_and_resize" if a.out > 1:
            span = place * (a.end - a.start) * (size - 1) / (out - 1)
            return a.start * (size - 1) + span
        case "tf_crop_and_resize":
            return np.full_like(place, ONE_HALF * (a.start + a.end) * (size - 1))
    raise b.misshapen(f"coordinate_transformation_mode {rule.coordinates!r}")


def interpolation(b: Builder, places: np.ndarray, a: Axis, rule: Rule) -> np.ndarray:
    """The matrix [out, size] that interpolates at these places; edges repeat outside."""
    matrix = np.zeros((a.out, a.size))
    rows = np.arange(a.out)
    if rule.mode == "nearest":
        nearest = _nearest(b, places, rule.nearest, bool(a.scale < 1))
        matrix[rows, nearest.clip(0, a.size - 1)] = 1
        return matrix
    reach, kernel = (1, _tent) if rule.mode == "linear" else (2, _cubic(rule.cubic_a))
    # Antialiasing widens the kernel by as much as the axis shrinks.
    shrink = min(1.0, float(a.scale)) if rule.antialias else 1.0
    width = math.ceil(reach / shrink)
    base = np.floor(places.astype(np.float64)).astype(np.int64)
    taps = base[:, None] + np.arange(1 - width, width + 1)  # [out, taps]
    b.allocate(taps.shape)
    weights = kernel(np.abs(taps - places[:, None].astype(np.float64)) * shrink)
    outside = (taps < 0) | (taps >= a.size)
    if rule.exclude_outside:
        weights = np.where(outside, 0, weights)
    if rule.exclude_outside or rule.antialias:
        weights = weights / weights.sum(1, keepdims=True)
    np.add.at(matrix, (rows[:, None], taps.clip(0, a.size - 1)), weights)
    return matrix


def _nearest(b: Builder, places: np.ndarray, mode: str, shrinks: bool) -> np.ndarray:
    match mode:
        case "floor":
            rounded = np.floor(places)
        case "ceil":
            rounded = np.ceil(places)
        case "simple":
            rounded = np.ceil(places) if shrinks else np.floor(places)
        case "round_prefer_floor":
            rounded = np.ceil(places - ONE_HALF)
        case "round_prefer_ceil":
            rounded = np.floor(places + ONE_HALF)
        case _:
            raise b.misshapen(f"nearest_mode {mode!r}")
    return rounded.astype(np.int64)


def _tent(distance: np.ndarray) -> np.ndarray:
    return np.clip(1 - distance, 0, None)


def _cubic(a: float) -> Callable[[np.ndarray], np.ndarray]:
    """Keys' kernel: R. G. Keys, Cubic convolution interpolation, 1981, with free parameter a."""

    def kernel(d: np.ndarray) -> np.ndarray:
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))

    return kernel
