"""Conv and ConvTranspose. A weight that is an activation makes a Contract over patches."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir

from ngc.ir import program as ir
from ngc.ir.program import Ints, Value
from ngc.passes.lower.base import Builder, Known, Operand, is_float, lowers
from ngc.passes.lower.linear import BATCH_LETTERS, contract
from ngc.passes.lower.windows import Window, counts, halves, window


@lowers("Conv", since=1)
def conv(
    b: Builder, node: onnx_ir.Node, x: Operand, w: Operand, bias: Operand | None = None
) -> Operand:
    """x [n, c, *space], w [o, c / groups, *kernel], bias [o]: a Shift of its own."""
    groups = _groups(b, node, x, w)
    if w.shape[1] * groups != x.shape[1] or w.shape[0] % groups:
        raise b.misshapen(f"w {list(w.shape)}, {groups} groups, {x.shape[1]} channels")
    field = window(b, node, x.shape[2:], w.shape[2:])
    shape = (x.shape[0], w.shape[0], *counts(b, field, x.shape[2:]))
    if isinstance(w, Known) and is_float(w.dtype):
        value = b.value(x)
        y = b.emit(
            ir.Convolution,
            shape,
            value.dtype,
            x=value.name,
            weight=b.slots(w),
            strides=field.strides,
            pads=field.pads,
            dilations=field.dilations,
            groups=groups,
        )
    else:
        y = _by_patches(b, x, w, field, groups, shape)
    return _biased(b, y, bias)


@lowers("ConvTranspose", since=1)
def conv_transpose(
    b: Builder, node: onnx_ir.Node, x: Operand, w: Operand, bias: Operand | None = None
) -> Operand:
    """x [n, c, *space], w [c, o / groups, *kernel], bias [o]."""
    groups = _groups(b, node, x, w)
    if w.shape[0] != x.shape[1] or w.shape[0] % groups:
        raise b.misshapen(f"w {list(w.shape)}, {groups} groups, {x.shape[1]} channels")
    field = _transposed_window(b, node, x.shape[2:], w.shape[2:])
    rank = field.rank
    space = tuple(
        (size - 1) * field.strides[k] + field.spans[k] - field.pads[k] - field.pads[rank + k]
        for k, size in enumerate(x.shape[2:])
    )
    if any(size < 0 for size in space):
        raise b.misshapen(f"pads {list(field.pads)} crop more than there is")
    shape = (x.shape[0], w.shape[1] * groups, *space)
    if not (isinstance(w, Known) and is_float(w.dtype)):
        return _biased(b, _transposed_by_patches(b, x, w, field, groups, shape), bias)
    if rank > 3:
        raise b.refuse(f"{rank} spatial axes; 1 to 3 compile")
    value = b.value(x)
    y = b.emit(
        ir.ConvolutionTranspose,
        shape,
        value.dtype,
        x=value.name,
        weight=b.slots(w),
        strides=field.strides,
        pads=field.pads,
        dilations=field.dilations,
        groups=groups,
    )
    return _biased(b, y, bias)


def _groups(b: Builder, node: onnx_ir.Node, x: Operand, w: Operand) -> int:
    """The number of groups, once x, w and kernel_shape agree on the rank."""
    kernel = tuple(node.attributes.get_ints("kernel_shape", w.shape[2:]))
    if len(x.shape) < 3 or len(w.shape) != len(x.shape) or kernel != w.shape[2:]:
        raise b.misshapen(
            f"x {list(x.shape)}, w {list(w.shape)}, kernel_shape {list(kernel)} do not fit together"
        )
    groups = node.attributes.get_int("group", 1)
    if groups < 1:
        raise b.misshapen(f"{groups} groups")
    return groups


def _biased(b: Builder, y: Value, bias: Operand | None) -> Operand:
    """y [n, o, *space] + bias [o]."""
    if bias is None:
        return y
    if bias.shape != (y.shape[1],):
        raise b.misshapen(f"bias {list(bias.shape)} for {y.shape[1]} channels")
    column = b.reshape(bias, (1, y.shape[1], *(1 for _ in y.shape[2:])))
    if isinstance(column, Known) and is_float(column.dtype):
        return b.shift(y, column)
    return b.combine("add", y, column)


def _transposed_window(b: Builder, node: onnx_ir.Node, space: Ints, kernel: Ints) -> Window:
    """The window of a ConvTranspose: ``pads`` crop the full result, negative ends extend it."""
    read, rank = node.attributes, len(space)
    extra = tuple(read.get_ints("output_padding", (0,) * rank))
    mode = read.get_string("auto_pad", "NOTSET") or "NOTSET"
    field = window(b, node, space, kernel)
    full = [(n - 1) * s + span for n, s, span in zip(space, field.strides, field.spans)]
    target = tuple(read.get_ints("output_shape", ()))[-rank:]
    if not target and mode.startswith("SAME"):
        # onnxruntime never extends the full result up to this size.
        target = tuple(
            min(size * stride, n + e)
            for size, stride, n, e in zip(space, field.strides, full, extra)
        )
    if len(extra) != rank or len(target) not in (0, rank):
        raise b.misshapen(f"output_padding {list(extra)}, output_shape {list(target)}")
    if not target:
        begins = field.pads[:rank]
        ends = tuple(p - e for p, e in zip(field.pads[rank:], extra))
        return Window(kernel, field.strides, field.dilations, begins + ends)
    excess = [max(0, n + e - t) for n, e, t in zip(full, extra, target)]
    begins = halves(excess, more_at_end=mode == "SAME_UPPER")[:rank]
    ends = tuple(n - p - t for n, p, t in zip(full, begins, target))
    return Window(kernel, field.strides, field.dilations, begins + ends)


def _by_patches(
    b: Builder, x: Operand, w: Operand, field: Window, groups: int, shape: Ints
) -> Value:
    """The convolution as a contraction of two activations: x [n, c, *space] is spread out into
    [n, g, c / g, out, tap, out, tap, ...], w [o, c / g, *kernel] cut into [g, o / g, ...]."""
    rank, out = field.rank, shape[2:]
    x = b.pad(x, (0, 0, *field.pads[:rank], 0, 0, *field.pads[rank:]))
    for k in range(rank):
        places = (
            np.arange(out[k])[:, None] * field.strides[k]
            + np.arange(field.kernel[k]) * field.dilations[k]
        )
        x = b.take(x, 2 + k, places.reshape(-1))
    pairs = [n for pair in zip(out, field.kernel) for n in pair]
    x = b.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *pairs))
    w = b.reshape(w, (groups, w.shape[0] // groups, *w.shape[1:]))
    places_, taps = BATCH_LETTERS[:rank], BATCH_LETTERS[rank : 2 * rank]
    spread = "".join(p + t for p, t in zip(places_, taps))
    along = "".join(places_)
    n, g, c, o = BATCH_LETTERS[2 * rank : 2 * rank + 4]
    spec = f"{n}{g}{c}{spread},{g}{o}{c}{''.join(taps)}->{n}{g}{o}{along}"
    y = b.reshape(contract(b, x, w, spec), shape)
    assert isinstance(y, Value)
    return y


def _transposed_by_patches(
    b: Builder, x: Operand, w: Operand, field: Window, groups: int, shape: Ints
) -> Value:
    """The same as a convolution with the kernel reversed, over x with zeros between entries."""
    rank = field.rank
    for k, stride in enumerate(field.strides):
        axis, size = 2 + k, x.shape[2 + k]
        x = b.reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
        widths = [0] * (2 * len(x.shape))
        widths[len(x.shape) + axis + 1] = stride - 1
        x = b.pad(x, widths)
        x = b.reshape(x, (*x.shape[:axis], size * stride, *x.shape[axis + 2 :]))
    # The zeros after the last entry count as pads already there.
    begins = tuple(span - 1 - p for span, p in zip(field.spans, field.pads[:rank]))
    ends = tuple(
        span - 1 - p - (stride - 1)
        for span, p, stride in zip(field.spans, field.pads[rank:], field.strides)
    )
    c, o, *kernel = w.shape
    starts = (0, 0, *(n - 1 for n in kernel))
    w = b.slice(w, starts, (1, 1, *(-1 for _ in kernel)), w.shape)
    w = b.reshape(w, (groups, c // groups, o, *kernel))
    w = b.transpose(w, (0, 2, 1, *range(3, 3 + rank)))
    w = b.reshape(w, (groups * o, c // groups, *kernel))
    ones = (1,) * rank
    reverse = Window(field.kernel, ones, field.dilations, begins + ends)
    assert math.prod(counts(b, reverse, x.shape[2:])) == math.prod(shape[2:])
    return _by_patches(b, x, w, reverse, groups, shape)
