"""Pad in its modes, CenterCropPad, and Col2Im, the sum of overlapping blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir

from ngc.ir import program as ir
from ngc.ir.slots import ONE, ZERO, Slots
from ngc.passes.lower.base import Builder, Operand, lowers


@lowers("Pad", since=1, movement=True)
def pad_1(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """Pads and value are attributes; in opset 1 the pads are called paddings."""
    pads = node.attributes.get_ints("pads", node.attributes.get_ints("paddings", ()))
    return _pad(b, node, x, pads, node.attributes.get_float("value", 0.0))


@lowers("Pad", since=11, movement=True)
def pad(
    b: Builder,
    node: onnx_ir.Node,
    x: Operand,
    pads: Operand,
    value: Operand | None = None,
    axes: Operand | None = None,
) -> Operand:
    """Pads: all begins, then all ends, of the axes given (all by default)."""
    given, rank = b.ints_of(pads, "pads"), len(x.shape)
    fill = 0.0 if value is None else float(b.values_of(value, "constant_value").reshape(-1)[0])
    if axes is None:
        return _pad(b, node, x, given, fill)
    chosen = [b.axis(axis, rank) for axis in b.ints_of(axes, "axes")]
    widths = [0] * (2 * rank)
    for axis, begin, end in zip(chosen, given[: len(chosen)], given[len(chosen) :], strict=True):
        widths[axis], widths[rank + axis] = begin, end
    return _pad(b, node, x, widths, fill)


def _pad(b: Builder, node: onnx_ir.Node, x: Operand, pads: Sequence[int], fill: float) -> Operand:
    rank, mode = len(x.shape), node.attributes.get_string("mode", "constant")
    if len(pads) != 2 * rank:
        raise b.misshapen(f"{len(pads)} pads for a tensor of rank {rank}")
    if mode == "constant":
        return b.pad(x, pads, fill)
    for axis, (begin, end) in enumerate(zip(pads[:rank], pads[rank:])):
        if begin or end:
            x = b.take(x, axis, border(b, x.shape[axis], begin, end, mode))
    return x


def border(b: Builder, size: int, begin: int, end: int, mode: str) -> np.ndarray:
    """Which entry of an axis stands at each place of the padded axis."""
    if size == 0 or size + begin + end < 0:
        raise b.misshapen(f"pads {begin}, {end} do not fit an axis of size {size}")
    place = np.arange(-begin, size + end)
    match mode:
        case "edge":
            return place.clip(0, size - 1)
        case "wrap":
            return place % size
        case "reflect":
            period = max(2 * (size - 1), 1)
            return size - 1 - np.abs(place % period - (size - 1))
    raise b.refuse(f"mode {mode!r} is not one of constant, edge, reflect, wrap")


@lowers("CenterCropPad", since=18, movement=True)
def center_crop_pad(b: Builder, node: onnx_ir.Node, x: Operand, shape: Operand) -> Operand:
    """Cropped or zero-padded around the middle; the odd entry goes at the end."""
    rank, target = len(x.shape), b.ints_of(shape, "shape")
    axes = [b.axis(axis, rank) for axis in node.attributes.get_ints("axes", tuple(range(rank)))]
    pads = [0] * (2 * rank)
    for axis, size in zip(axes, target, strict=True):
        excess = size - x.shape[axis]
        first = excess // 2 if excess >= 0 else -(-excess // 2)
        pads[axis], pads[rank + axis] = first, excess - first
    return b.pad(x, pads)


@lowers("Col2Im", since=18)
def col2im(b: Builder, node: onnx_ir.Node, x: Operand, image: Operand, block: Operand) -> Operand:
    """x [n, c prod(block), blocks] -> [n, c, *image]: overlapping blocks add up. It is a transposed
    convolution whose weights are 0 and 1: input channel (c, k) writes to entry k of the block."""
    size, kernel = b.ints_of(image, "image_shape"), b.ints_of(block, "block_shape")
    rank = len(size)
    pads = tuple(node.attributes.get_ints("pads", (0,) * (2 * rank)))
    strides = tuple(node.attributes.get_ints("strides", (1,) * rank))
    dilations = tuple(node.attributes.get_ints("dilations", (1,) * rank))
    counts = [
        (size[k] + pads[k] + pads[rank + k] - dilations[k] * (kernel[k] - 1) - 1) // strides[k] + 1
        for k in range(rank)
    ]
    taps = math.prod(kernel)
    channels = x.shape[1] // taps
    blocks = b.value(b.reshape(x, (x.shape[0], channels * taps, *counts)))
    one_hot = np.where(np.eye(taps, dtype=bool), ONE, ZERO)
    weight = np.tile(one_hot, (channels, 1)).reshape(channels * taps, 1, *kernel)
    return b.emit(
        ir.ConvolutionTranspose,
        (x.shape[0], channels, *size),
        x.dtype,
        x=blocks.name,
        weight=Slots.of(weight),
        strides=strides,
        # The crop at the end drops what the strides leave over, so that out has the image's size.
        pads=pads[:rank]
        + tuple(
            (counts[k] - 1) * strides[k] + dilations[k] * (kernel[k] - 1) + 1 - pads[k] - size[k]
            for k in range(rank)
        ),
        dilations=dilations,
        groups=channels,
    )
