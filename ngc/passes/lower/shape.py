"""Reshape, Transpose, Slice and their kin: data movement that keeps or repeats whole axes.

Known tensors move like values, so that the slots of a parameter stay beside its entries. What picks
entries by index arrays is in ``indexing.py``, what fills borders in ``pad.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir

from ngc.ir.program import Ints
from ngc.passes.lower.base import Builder, Operand, lowers


@lowers("Reshape", since=1, movement=True)
def reshape_1(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """The target shape is an attribute."""
    return b.reshape(x, _copied(b, x.shape, node.attributes.get_ints("shape", ())))


@lowers("Reshape", since=5, movement=True)
def reshape(b: Builder, node: onnx_ir.Node, x: Operand, shape: Operand) -> Operand:
    """0 copies the size of x, or with allowzero means 0; one -1 takes what is left."""
    target = b.ints_of(shape, "shape")
    if node.attributes.get_int("allowzero", 0):
        return b.reshape(x, target)
    return b.reshape(x, _copied(b, x.shape, target))


def _copied(b: Builder, old: Ints, new: Sequence[int]) -> Ints:
    if any(size == 0 and axis >= len(old) for axis, size in enumerate(new)):
        raise b.misshapen(f"shape {list(new)} copies an axis that {list(old)} does not have")
    return tuple(old[axis] if size == 0 else size for axis, size in enumerate(new))


@lowers("Transpose", since=1, movement=True)
def transpose(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """Axis k of the result is axis perm[k]; axes reversed by default."""
    return b.transpose(x, node.attributes.get_ints("perm", tuple(reversed(range(len(x.shape))))))


@lowers("Flatten", since=1, movement=True)
def flatten(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """Two axes: everything before ``axis`` and everything from it on."""
    axis, rank = node.attributes.get_int("axis", 1), len(x.shape)
    if not -rank <= axis <= rank:
        raise b.misshapen(f"axis {axis} does not exist in a tensor of rank {rank}")
    axis = axis + rank if axis < 0 else axis
    return b.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@lowers("Squeeze", since=1, movement=True)
def squeeze_1(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """The axes are an attribute."""
    return _squeeze(b, x, node.attributes.get_ints("axes"))


@lowers("Squeeze", since=13, movement=True)
def squeeze(b: Builder, node: onnx_ir.Node, x: Operand, axes: Operand | None = None) -> Operand:
    """Drop the given axes of size 1, or all of them."""
    return _squeeze(b, x, None if axes is None else b.ints_of(axes, "axes"))


def _squeeze(b: Builder, x: Operand, axes: Sequence[int] | None) -> Operand:
    if axes is None:
        return b.reshape(x, [n for n in x.shape if n != 1])
    dropped = {b.axis(axis, len(x.shape)) for axis in axes}
    if any(x.shape[axis] != 1 for axis in dropped):
        raise b.misshapen(f"axes {list(axes)} of {list(x.shape)} are not all of size 1")
    return b.reshape(x, [n for axis, n in enumerate(x.shape) if axis not in dropped])


@lowers("Unsqueeze", since=1, movement=True)
def unsqueeze_1(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """The axes are an attribute."""
    return unsqueezed(b, x, node.attributes.get_ints("axes", ()))


@lowers("Unsqueeze", since=13, movement=True)
def unsqueeze(b: Builder, node: onnx_ir.Node, x: Operand, axes: Operand) -> Operand:
    """New axes of size 1, numbered in the result."""
    return unsqueezed(b, x, b.ints_of(axes, "axes"))


def unsqueezed(b: Builder, x: Operand, axes: Sequence[int]) -> Operand:
    """x with new axes of size 1, numbered in the result."""
    rank = len(x.shape) + len(axes)
    new = {b.axis(axis, rank) for axis in axes}
    if len(new) != len(axes):
        raise b.misshapen(f"axes {list(axes)} name an axis twice")
    old = iter(x.shape)
    return b.reshape(x, [1 if axis in new else next(old) for axis in range(rank)])


@lowers("Slice", since=1, movement=True)
def slice_1(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """Bounds and axes are attributes."""
    starts, ends = node.attributes.get_ints("starts", ()), node.attributes.get_ints("ends", ())
    axes = node.attributes.get_ints("axes", tuple(range(len(starts))))
    return _slice(b, x, starts, ends, axes, (1,) * len(starts))


@lowers("Slice", since=10, movement=True)
def slice_(
    b: Builder,
    node: onnx_ir.Node,
    x: Operand,
    starts: Operand,
    ends: Operand,
    axes: Operand | None = None,
    steps: Operand | None = None,
) -> Operand:
    """x[start:end:step] on the given axes; bounds are clamped as Python clamps them."""
    begins, stops = b.ints_of(starts, "starts"), b.ints_of(ends, "ends")
    chosen = tuple(range(len(begins))) if axes is None else b.ints_of(axes, "axes")
    strides = (1,) * len(begins) if steps is None else b.ints_of(steps, "steps")
    return _slice(b, x, begins, stops, chosen, strides)


def _slice(
    b: Builder,
    x: Operand,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int],
    steps: Sequence[int],
) -> Operand:
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise b.misshapen("starts, ends, axes and steps differ in length")
    if 0 in steps:
        raise b.misshapen("a step is 0")
    begins, strides, sizes = [0] * len(x.shape), [1] * len(x.shape), list(x.shape)
    for start, end, axis, step in zip(starts, ends, axes, steps):
        axis = b.axis(axis, len(x.shape))
        picked = range(*slice(start, end, step).indices(x.shape[axis]))
        begins[axis], strides[axis], sizes[axis] = picked.start, step, len(picked)
    return b.slice(x, begins, strides, sizes)


def part(b: Builder, x: Operand, axis: int, start: int, size: int) -> Operand:
    """``size`` entries along one axis."""
    rank = len(x.shape)
    starts = [start if k == axis else 0 for k in range(rank)]
    return b.slice(x, starts, [1] * rank, [size if k == axis else n for k, n in enumerate(x.shape)])


@lowers("Split", since=1, movement=True)
def split_1(
    b: Builder, node: onnx_ir.Node, x: Operand, sizes: Operand | None = None
) -> tuple[Operand, ...]:
    """Sizes are an attribute (in opset 1 an input was possible too), or all equal."""
    axis = b.axis(node.attributes.get_int("axis", 0), len(x.shape))
    given = node.attributes.get_ints("split") if sizes is None else b.ints_of(sizes, "split")
    return parts(b, x, axis, given or equal_sizes(x.shape[axis], len(node.outputs)))


@lowers("Split", since=13, movement=True)
def split(
    b: Builder, node: onnx_ir.Node, x: Operand, sizes: Operand | None = None
) -> tuple[Operand, ...]:
    """Sizes are an input, or equal but for a smaller last one."""
    axis = b.axis(node.attributes.get_int("axis", 0), len(x.shape))
    if sizes is not None:
        return parts(b, x, axis, b.ints_of(sizes, "split"))
    count = node.attributes.get_int("num_outputs", len(node.outputs))
    return parts(b, x, axis, equal_sizes(x.shape[axis], count))


def equal_sizes(size: int, count: int) -> Ints:
    """``count`` sizes of which only the last may be smaller (Split-18)."""
    chunk = -(-size // count)
    return tuple(max(0, min(chunk, size - k * chunk)) for k in range(count))


def parts(b: Builder, x: Operand, axis: int, sizes: Sequence[int]) -> tuple[Operand, ...]:
    """x cut along an axis into pieces of these sizes."""
    if sum(sizes) != x.shape[axis] or any(n < 0 for n in sizes):
        raise b.misshapen(f"sizes {list(sizes)} do not add up to axis {axis} of {list(x.shape)}")
    starts = np.cumsum([0, *sizes])
    return tuple(part(b, x, axis, int(start), size) for start, size in zip(starts, sizes))


@lowers("Concat", since=1, movement=True)
def concat(b: Builder, node: onnx_ir.Node, *xs: Operand) -> Operand:
    """Operands one after another along an axis (1 by default before opset 4)."""
    if not xs:
        raise b.misshapen("Concat of nothing")
    return b.concat(xs, node.attributes.get_int("axis", 1))


@lowers("Expand", since=8, movement=True)
def expand(b: Builder, node: onnx_ir.Node, x: Operand, shape: Operand) -> Operand:
    """Broadcast x and the given shape with each other."""
    target = b.ints_of(shape, "shape")
    try:
        return b.expand(x, np.broadcast_shapes(x.shape, target))
    except ValueError:
        raise b.misshapen(f"cannot expand {list(x.shape)} to {list(target)}") from None


@lowers("Tile", since=1, movement=True)
def tile_1(b: Builder, node: onnx_ir.Node, x: Operand, tiles: Operand, axis: Operand) -> Operand:
    """One axis, repeated."""
    (count,), (chosen,) = b.ints_of(tiles, "tiles"), b.ints_of(axis, "axis")
    chosen = b.axis(chosen, len(x.shape))
    return _tile(b, x, [count if k == chosen else 1 for k in range(len(x.shape))])


@lowers("Tile", since=6, movement=True)
def tile(b: Builder, node: onnx_ir.Node, x: Operand, repeats: Operand) -> Operand:
    """x repeated ``repeats[k]`` times along axis k."""
    return _tile(b, x, b.ints_of(repeats, "repeats"))


def _tile(b: Builder, x: Operand, repeats: Sequence[int]) -> Operand:
    if len(repeats) != len(x.shape) or any(r < 0 for r in repeats):
        raise b.misshapen(f"repeats {list(repeats)} do not fit {list(x.shape)}")
    if all(r == 1 for r in repeats):
        return x
    # [n] -> [1, n] -> [r, n] -> [r n], on every axis that repeats.
    split_shape: list[int] = []
    grown: list[int] = []
    for size, count in zip(x.shape, repeats):
        split_shape += [1, size] if count != 1 else [size]
        grown += [count, size] if count != 1 else [size]
    total = [size * count for size, count in zip(x.shape, repeats)]
    return b.reshape(b.expand(b.reshape(x, split_shape), grown), total)


@lowers("DepthToSpace", since=1, movement=True)
def depth_to_space(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """[n, c r r, h, w] -> [n, c, h r, w r]; DCR: r r leads in the channel axis, CRD: c does."""
    r = node.attributes.get_int("blocksize")
    n, depth, h, w = x.shape
    c = depth // (r * r)
    if node.attributes.get_string("mode", "DCR") == "DCR":
        split_x, perm = b.reshape(x, (n, r, r, c, h, w)), (0, 3, 4, 1, 5, 2)
    else:
        split_x, perm = b.reshape(x, (n, c, r, r, h, w)), (0, 1, 4, 2, 5, 3)
    return b.reshape(b.transpose(split_x, perm), (n, c, h * r, w * r))


@lowers("SpaceToDepth", since=1, movement=True)
def space_to_depth(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """[n, c, h r, w r] -> [n, r r c, h, w], or [n, c r r, h, w] in mode CRD (opset 28)."""
    r = node.attributes.get_int("blocksize")
    n, c, h, w = x.shape
    blocks = b.reshape(x, (n, c, h // r, r, w // r, r))
    crd = node.attributes.get_string("mode", "DCR") == "CRD"
    perm = (0, 1, 3, 5, 2, 4) if crd else (0, 3, 5, 1, 2, 4)
    return b.reshape(b.transpose(blocks, perm), (n, r * r * c, h // r, w // r))


@lowers("Identity", since=1, movement=True)
def identity(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """The operand itself, be it a tensor, a sequence or nothing."""
    return x
