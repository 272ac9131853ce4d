"""Which neurons each neuron of an operation must read, from the meaning of the operation alone."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from ngc.ir import program as ir
from ngc.ir.index import IndexArray
from ngc.ir.program import Ints, Ref
from ngc.passes.wire import Wiring

MAX_ENTRIES = 50_000_000

Axes = Sequence[Hashable]
Pairs = tuple[np.ndarray, np.ndarray]  # source and target neurons, every pair once
Sources = list[tuple[str, Pairs]]  # kind of the edges, and the pairs they join

COMBINE = {
    "add": ("identity",), "mean": ("identity",), "sub": ("identity", "negative"),
    "mul": ("product",), "div": ("product", "quotient"), "pow": ("base", "exponent"),
    "where": ("condition", "identity"), "max": ("maximum",), "min": ("minimum",),
}  # fmt: skip


def sources_of(wiring: Wiring, op: ir.Op) -> Sources | None:
    """The unweighted reading of an operation that works along axes, None for any other."""
    index, out = wiring.index, wiring.index[op.out.name]
    rank = len(out.shape)

    def aligned(ref: Ref) -> Axes:
        """Axes of an operand that broadcasts to the result."""
        return range(rank - len(index[ref].shape), rank)

    def each(ref: Ref) -> Pairs:
        return pairs(index[ref].ids, aligned(ref), out.ids, range(rank))

    match op:
        case ir.Activation(x=x) | ir.Cast(x=x) | ir.PRelu(x=x) | ir.Softmax(x=x):
            return [("identity", each(x))]
        case ir.Shift(x=x, fn=fn):
            return [("negative" if fn == "rsub" else "identity", each(x))]
        case ir.Scale(x=x, fn=fn):
            return [({"mul": "scale", "div": "divide", "rdiv": "reciprocal"}[fn], each(x))]
        case ir.BatchNorm(x=x) | ir.Normalise(x=x):
            return [("norm", each(x))]
        case ir.Combine(xs=xs, fn=fn):
            kinds = COMBINE.get(fn, ("operand",))
            return [(kinds[min(k, len(kinds) - 1)], each(ref)) for k, ref in enumerate(xs)]
        case ir.Contract(a=a, b=b, spec=spec):
            left, right, result = spec.replace("->", ",").split(",")
            return [
                ("product", pairs(index[ref].ids, letters, out.ids, result))
                for ref, letters in ((a, left), (b, right))
            ]
        case ir.Reduce(x=x, axes=axes, keepdims=keepdims):
            before = index[x].ids
            kept = [a for a in range(before.ndim) if keepdims or a not in axes]
            after: Axes = [f"reduced {a}" if a in axes else a for a in kept]
            kind = "reduce" if any(before.shape[a] > 1 for a in axes) else "pool"
            return [(kind, pairs(before, range(before.ndim), out.ids, after))]
        case ir.Resize(x=x, axes=axes):
            return _along(index[x], axes, out)
        case ir.Cumulate(x=x, axis=axis) | ir.TopK(x=x, axis=axis):
            return _along(index[x], (axis,), out)
        case ir.Pool(x=x):
            return [("pool", _pooled(index[x], op, out))]
        case ir.Gather(x=x, ids=ids, fn="axis", axis=axis):
            before, chooser = index[x].ids, index[ids].ids
            picked = [f"id {k}" for k in range(chooser.ndim)]
            after = [*range(axis), *picked, *range(axis + 1, before.ndim)]
            choosers, results = np.unique(chooser)[:, None], np.unique(out.ids)[None]
            return [
                ("gather", pairs(before, range(before.ndim), out.ids, after)),
                ("condition", pairs(choosers, "ab", results, "ab")),
            ]
        case ir.Scatter(x=x, ids=ids, updates=updates, axis=axis):
            other = [f"along {a}" if a == axis else a for a in range(rank)]
            return [
                ("identity", each(x)),
                ("condition", pairs(index[ids].ids, other, out.ids, range(rank))),
                ("gather", pairs(index[updates].ids, other, out.ids, range(rank))),
            ]
    return None


def _along(x: IndexArray, axes: Ints, out: IndexArray) -> Sources:
    """Along the axes every entry of the result may read every entry."""
    along = any(x.ids.shape[a] > 1 for a in axes)
    to = [f"out {a}" if a in axes else a for a in range(x.ids.ndim)]
    return [("mix" if along else "pool", pairs(x.ids, range(x.ids.ndim), out.ids, to))]


def pairs(a: np.ndarray, a_axes: Axes, b: np.ndarray, b_axes: Axes) -> Pairs:
    """Pairs of entries of two arrays that meet where axes of one name have one index."""
    names = list(dict.fromkeys([*a_axes, *b_axes]))
    spread = []
    for array, axes in ((a, list(a_axes)), (b, list(b_axes))):
        order = sorted(range(array.ndim), key=lambda k: names.index(axes[k]))
        sizes = [1] * len(names)
        for k in order:
            sizes[names.index(axes[k])] = array.shape[k]
        spread.append(array.transpose(order).reshape(sizes))
    shape = np.broadcast_shapes(*(array.shape for array in spread))
    if math.prod(shape) > MAX_ENTRIES:
        raise MemoryError
    left, right = (np.broadcast_to(array, shape).reshape(-1) for array in spread)
    return distinct(left, right)


def distinct(left: np.ndarray, right: np.ndarray) -> Pairs:
    width = int(max(left.max(initial=0), right.max(initial=0))) + 1
    keys = np.unique(right * width + left)
    return keys % width, keys // width


def _pooled(x: IndexArray, op: ir.Pool, out: IndexArray) -> Pairs:
    if all(a < 2 for a in x.varying):
        rank = len(out.shape)
        to = [0, 1, *(f"out {a}" for a in range(2, rank))]
        return pairs(x.ids, range(rank), out.ids, to)
    shape = (*x.shape[:2], *x.shape[2:])
    places = [
        window(n, m, k, s, p, d)
        for n, m, k, s, p, d in zip(
            shape[2:], out.shape[2:], op.kernel, op.strides, op.pads, op.dilations
        )
    ]
    entries = windows(shape, places)  # [batch, channel, *out, *kernel]
    if entries.size > MAX_ENTRIES:
        raise MemoryError
    taps = math.prod(op.kernel)
    entries = entries.reshape(-1, taps)
    target = np.repeat(out.full().reshape(-1), taps)
    inside = entries.reshape(-1) >= 0
    return distinct(x.full().reshape(-1)[entries.reshape(-1)[inside]], target[inside])


def window(n: int, out: int, kernel: int, stride: int, pad: int, dilation: int) -> np.ndarray:
    """[out, kernel]: entries of an axis of size n that each window meets, -1 outside."""
    entries = np.arange(out)[:, None] * stride + np.arange(kernel) * dilation - pad
    return np.where((entries >= 0) & (entries < n), entries, -1)


def spread_window(
    n: int, out: int, kernel: int, stride: int, pad: int, dilation: int
) -> np.ndarray:
    """The same of a transposed convolution: entries n that each place of the result is added from,
    from the last tap to the first, as the entries come in order."""
    ahead = np.arange(out)[:, None] + pad - np.arange(kernel)[::-1] * dilation
    entries, between = np.divmod(ahead, stride)
    return np.where((between == 0) & (entries >= 0) & (entries < n), entries, -1)


def windows(shape: Ints, places: Sequence[np.ndarray]) -> np.ndarray:
    """[batch, channel, *out, *kernel]: flat numbers of the entries of an array that windows over
    its axes after the second meet, -1 outside. ``places`` [out, kernel] for each of these axes."""
    rank = len(places)
    total = np.zeros((1,) * (2 + 2 * rank), dtype=np.int64)
    outside = np.zeros((1,) * (2 + 2 * rank), dtype=bool)
    step = math.prod(shape)
    for axis, size in enumerate(shape):
        step //= max(size, 1)
        sizes = [1] * (2 + 2 * rank)
        if axis < 2:
            sizes[axis] = size
            entries = np.arange(size).reshape(sizes)
        else:
            sizes[axis], sizes[axis + rank] = places[axis - 2].shape
            entries = places[axis - 2].reshape(sizes)
            outside = outside | (entries < 0)
        total = total + entries * step
    return np.where(outside, -1, total)
