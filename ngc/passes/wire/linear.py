"""Wiring of the weighted operations: linear, convolutions, embedding.

Which neuron holds an output follows from which axis is contracted (DESIGN, "One idea"): an axis of
neurons gives fresh neurons and a dense block; an axis of positions keeps the neurons apart and puts
the whole positional operator on each edge; a merge of both puts the positions into the kernel.
"""

from __future__ import annotations

import math

import numpy as np

from ngc.ir import program as ir
from ngc.ir.index import IndexArray, rows_of
from ngc.ir.program import Ints
from ngc.ir.slots import Slots
from ngc.passes.wire.base import UnevenRows, Wirer, grouped_by_neuron, window_rows, wires

PADDING = -1  # in the place of a neuron: nothing is there


@wires(ir.Linear)
def linear(w: Wirer, op: ir.Linear) -> IndexArray:
    left, right, out = op.spec.replace("->", ",").split(",")
    x = w.index(op.x)
    size = dict(zip(left, x.shape)) | dict(zip(right, op.weight.shape))
    varies = {letter for letter, n in zip(left, x.ids.shape) if n > 1}
    contracted = [c for c in left if c not in out]
    shared = [c for c in left if c in right and c in out]
    free = [c for c in left if c not in right and c in varies]
    new = [c for c in right if c not in left]
    groups = [c for c in shared if c in varies]
    places = [c for c in shared if c not in varies]  # positions with weights of their own
    taps = math.prod(size[c] for c in contracted)

    if taps > 1 and not varies & set(contracted) and (free or groups):
        return _positional(w, op, left, right, out, free, groups, places, new, contracted, size)

    rows = rows_of(
        x.spread([left.index(c) for c in contracted]),
        [left.index(c) for c in free],
        [left.index(c) for c in groups + contracted],
    )
    distinct, inverse = _distinct(rows)
    weight = op.weight.transpose(tuple(right.index(c) for c in groups + new + contracted + places))
    num_groups, num_new = (math.prod(size[c] for c in cs) for cs in (groups, new))
    num_places = math.prod(size[c] for c in places)
    weight = weight.reshape((num_groups, num_new, taps, num_places))
    rows = distinct.reshape(len(distinct), num_groups, taps)
    sizes = tuple(size[c] for c in places)
    neurons = dense(w, "linear", rows, weight, sizes, _kernel_of_repeats(w, op.x))
    letters = free + groups + new
    ids = neurons[inverse].reshape([size[c] for c in letters])
    return _arranged(ids, letters, out, op.out.shape)


def _distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows in order of first appearance, and which of them each row is."""
    if len(rows) == 1:
        return rows, np.zeros(1, dtype=np.int64)
    distinct, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return distinct[order], rank[inverse.reshape(-1)]


def _arranged(ids: np.ndarray, letters: list[str], out: str, shape: Ints) -> IndexArray:
    """Axes named by letters, put where the result has them; size 1 elsewhere."""
    order = sorted(range(len(letters)), key=lambda k: out.index(letters[k]))
    moved = ids.transpose(order)
    sizes = [1] * len(out)
    for k, n in zip(order, moved.shape):
        sizes[out.index(letters[k])] = n
    return IndexArray.of(moved.reshape(sizes), shape)


def _positional(
    w: Wirer,
    op: ir.Linear,
    left: str,
    right: str,
    out: str,
    free: list[str],
    groups: list[str],
    places: list[str],
    new: list[str],
    contracted: list[str],
    size: dict[str, int],
) -> IndexArray:
    """Mixing of positions: each neuron keeps to itself, its edge carries the operator."""
    x = w.index(op.x)
    ids = rows_of(x.ids, [], [left.index(c) for c in free + groups]).reshape(-1)
    outer = math.prod(size[c] for c in places + new)
    inner = math.prod(size[c] for c in contracted)
    weight = op.weight.transpose(tuple(right.index(c) for c in groups + places + new + contracted))
    weight = weight.reshape((math.prod(size[c] for c in groups), outer * inner))
    num_free = math.prod(size[c] for c in free)
    weight = weight.expand((num_free, *weight.shape)).reshape((len(ids), 1, 1, outer * inner))
    neurons = w.fresh(len(ids))
    w.connect("positional", ids[:, None], neurons[:, None], weight, (outer, inner))
    letters = free + groups
    return _arranged(neurons.reshape([size[c] for c in letters]), letters, out, op.out.shape)


def dense(
    w: Wirer,
    kind: str,
    rows: np.ndarray,
    weight: Slots,
    places: Ints,
    repeats: Ints | None = None,
) -> np.ndarray:
    """Fresh neurons [r, g * n] that read rows of neurons [r, g, k] by weights [g, n, k, p]."""
    num_rows, num_groups, _ = rows.shape
    neurons = w.fresh(num_rows * num_groups * weight.shape[1])
    neurons = neurons.reshape(num_rows, num_groups, -1)
    connect_rows(w, kind, rows, neurons, weight, places, repeats)
    return neurons.reshape(num_rows, -1)


def connect_rows(
    w: Wirer,
    kind: str,
    rows: np.ndarray,
    neurons: np.ndarray,
    weight: Slots,
    places: Ints,
    repeats: Ints | None = None,
) -> None:
    """Edges from rows [r, g, k] to neurons [r, g, n] by weights [g, n, k, p].

    Weights are shared by the r rows. Places k that lie on one neuron join into the kernel of one
    edge, before the p taps of each; ``repeats`` and ``places`` are the sizes of the axes of both.
    """
    num_rows, num_groups, taps = rows.shape
    dst = neurons.reshape(num_rows * num_groups, -1)
    try:
        parts = grouped_by_neuron(rows.reshape(num_rows * num_groups, taps))
    except UnevenRows:
        for k in range(num_rows * num_groups):
            r, g = divmod(k, num_groups)
            one = weight.slice((g, 0, 0, 0), (1,) * 4, (1, *weight.shape[1:]))
            parts = grouped_by_neuron(rows[r, g][None])
            _join(w, kind, dst[k : k + 1], one, parts, 1, places, repeats)
    else:
        _join(w, kind, dst, weight, parts, num_rows, places, repeats)


def _join(
    w: Wirer,
    kind: str,
    dst: np.ndarray,
    weight: Slots,
    parts: list[tuple[np.ndarray, np.ndarray]],
    num_rows: int,
    places: Ints,
    repeats: Ints | None,
) -> None:
    num_groups, num_new, _, num_places = weight.shape
    for src, order in parts:
        i, m = order.shape[1:]
        if (order == order[0]).all():
            slots = weight.along(2, order[0])  # [g, n, i, m, p]
        else:
            per_group = order.reshape(num_rows, num_groups, i * m)
            if (per_group != per_group[0]).any():
                numbers = np.stack([_by_group(weight, row) for row in per_group])
                slots = Slots.of(numbers.reshape(num_rows * num_groups, num_new, i, m * num_places))
            else:
                slots = Slots.of(_by_group(weight, per_group[0]))
                slots = slots.reshape((num_groups, num_new, i, m * num_places))
        sizes = repeats if repeats is not None and math.prod(repeats) == m else (m,)
        kernel = (*sizes, *places) if m > 1 else places
        shape = (num_groups, num_new, i, m * num_places)
        if slots.shape[0] == num_groups:
            slots = slots.reshape(shape)
            if num_rows > 1:
                slots = slots.expand((num_rows, *shape)).reshape(
                    (num_rows * num_groups, *shape[1:])
                )
        w.connect(kind if m == 1 else f"{kind}_positions", src, dst, slots, kernel)


def _by_group(weight: Slots, places: np.ndarray) -> np.ndarray:
    """weight [g, n, k, p] taken at places [g, q] along k: [g, n, q, p]."""
    return np.take_along_axis(weight.numpy(), places[:, None, :, None], axis=2)


def _kernel_of_repeats(w: Wirer, ref: str) -> Ints | None:
    """Sizes of the position axes that a flatten merged into the axis of ``ref``, if one did."""
    producers = {op.out.name: op for op in w.wiring.program.ops}
    op = producers[ref]
    while op.is_view and len(op.inputs) == 1:
        before = w.index(op.inputs[0])
        after = w.index(op.out.name)
        if before.ids.size < after.ids.size:
            return tuple(
                n for n, m in zip(before.shape[1:], before.ids.shape[1:]) if m == 1 and n > 1
            )
        op = producers[op.inputs[0]]
    return None


@wires(ir.Convolution)
def convolution(w: Wirer, op: ir.Convolution) -> IndexArray:
    x = w.index(op.x)
    o, c_per_group, *kernel = op.weight.shape
    g, taps = op.groups, math.prod(kernel)
    weight = op.weight.reshape((g, o // g, c_per_group, taps))
    if not any(axis != 1 for axis in x.varying):
        rows = x.spread([1]).reshape(1, g, c_per_group)
        neurons = _convolved(w, "convolution", rows, weight, tuple(kernel))
        return IndexArray.of(neurons.reshape(1, o, *[1] * len(kernel)), op.out.shape)
    if 1 not in x.varying and taps == g == 1 and op.out.shape[2:] == x.shape[2:]:
        # A 1x1 convolution over an axis of positions while another axis carries the neurons.
        ids = x.ids.reshape(-1)
        slots = weight.reshape((1, 1, 1, o * c_per_group)).expand((len(ids), 1, 1, o * c_per_group))
        neurons = w.fresh(len(ids))
        w.connect("positional", ids[:, None], neurons[:, None], slots, (o, c_per_group))
        return IndexArray(op.out.shape, neurons.reshape(x.ids.shape))
    return _windows(w, op, x.full(), weight, tuple(kernel), op.strides, op.pads, op.dilations)


def _convolved(w: Wirer, kind: str, rows: np.ndarray, weight: Slots, kernel: Ints) -> np.ndarray:
    """Dense blocks whose edges carry the taps; weight [g, n, c, taps]."""
    num_rows, g, _ = rows.shape
    if (np.diff(np.sort(rows.reshape(num_rows * g, -1), axis=1), axis=1) == 0).any():
        return dense(w, kind, rows, weight, kernel)
    n = weight.shape[1]
    neurons = w.fresh(num_rows * g * n)
    slots = weight
    if num_rows > 1:
        slots = slots.expand((num_rows, *slots.shape)).reshape((num_rows * g, *slots.shape[1:]))
    w.connect(kind, rows.reshape(num_rows * g, -1), neurons.reshape(num_rows * g, n), slots, kernel)
    return neurons.reshape(num_rows, g * n)


def _windows(
    w: Wirer,
    op: ir.Convolution | ir.ConvolutionTranspose,
    ids: np.ndarray,
    weight: Slots,
    kernel: Ints,
    strides: Ints,
    pads: Ints,
    dilations: Ints,
) -> IndexArray:
    """Convolution over neurons that differ by position: each output position has neurons of its
    own, with the same weights. weight [g, n, c / g, taps], ids [batch, c, *space]."""
    rank, g, n = len(kernel), weight.shape[0], weight.shape[1]
    out_space = op.out.shape[2:]
    total = math.prod(out_space) * ids.shape[0] * ids.shape[1] * math.prod(kernel)
    w.check_size(total, "a convolution over neurons that differ by position")
    if (ids == ids[:1]).all():
        ids = ids[:1]
    widths = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:])]
    padded = np.pad(ids, widths, constant_values=PADDING)
    rows = np.stack(
        [
            window_rows(np.ascontiguousarray(one), out_space, kernel, strides, dilations)
            for one in padded
        ]
    )
    taps = ids.shape[1] // g * math.prod(kernel)
    distinct, inverse = _distinct(rows.reshape(-1, g * taps))
    neurons = w.fresh(len(distinct) * g * n).reshape(len(distinct), g, n)
    merged = weight.reshape((g, n, taps, 1))
    # Windows over the border read less; all channels, and so all groups, alike.
    patterns, pattern = np.unique(distinct[:, :taps] >= 0, axis=0, return_inverse=True)
    for k, inside in enumerate(patterns):
        picked, kept = np.flatnonzero(pattern.reshape(-1) == k), np.flatnonzero(inside)
        if len(kept):
            some = distinct[picked].reshape(-1, g, taps)[:, :, kept]
            connect_rows(w, op.mnemonic, some, neurons[picked], merged.along(2, kept), ())
    found = neurons[inverse].reshape(len(padded), *out_space, g * n)
    return IndexArray.of(np.moveaxis(found, -1, 1), op.out.shape)


@wires(ir.ConvolutionTranspose)
def convolution_transpose(w: Wirer, op: ir.ConvolutionTranspose) -> IndexArray:
    x = w.index(op.x)
    c, o_per_group, *kernel = op.weight.shape
    g, taps = op.groups, math.prod(kernel)
    weight = op.weight.reshape((g, c // g, o_per_group, taps)).transpose((0, 2, 1, 3))
    if not any(axis != 1 for axis in x.varying):
        rows = x.spread([1]).reshape(1, g, c // g)
        neurons = _convolved(w, "convolution_transpose", rows, weight, tuple(kernel))
        return IndexArray.of(neurons.reshape(1, g * o_per_group, *[1] * len(kernel)), op.out.shape)
    # The same as a convolution with the kernel reversed, over the input with zeros between.
    rank = len(kernel)
    spread = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], op.strides)]
    ids = np.full((*x.shape[:2], *spread), PADDING, dtype=np.int64)
    ids[(slice(None), slice(None), *(slice(None, None, s) for s in op.strides))] = x.full()
    reach = [d * (k - 1) for d, k in zip(op.dilations, kernel)]
    before = [r - p for r, p in zip(reach, op.pads[:rank])]
    after = [r - p for r, p in zip(reach, op.pads[rank:])]
    crop = [slice(max(0, -b), n - max(0, -a)) for b, a, n in zip(before, after, spread)]
    ids = ids[(slice(None), slice(None), *crop)]
    pads = tuple(max(0, v) for v in (*before, *after))
    reverse = np.arange(taps)[::-1]
    return _windows(
        w, op, ids, weight.along(3, reverse), tuple(kernel), (1,) * rank, pads, op.dilations
    )


@wires(ir.Embedding)
def embedding(w: Wirer, op: ir.Embedding) -> IndexArray:
    """One-hot neurons, one per row of the table, and a dense block from them."""
    ids = w.index(op.ids)
    vocabulary, *rest = op.weight.shape
    width = math.prod(rest)
    sources = ids.ids.reshape(-1)
    distinct, inverse = np.unique(sources, return_inverse=True)
    tokens = w.fresh(len(distinct) * vocabulary, "token").reshape(len(distinct), vocabulary)
    w.connect("token", distinct[:, None], tokens)
    w.fix(tokens)
    weight = op.weight.reshape((1, vocabulary, width, 1)).transpose((0, 2, 1, 3))
    weight = weight.expand((len(distinct), width, vocabulary, 1))
    neurons = w.fresh(len(distinct) * width)
    w.connect("embedding", tokens, neurons.reshape(len(distinct), width), weight)
    found = neurons.reshape(len(distinct), width)[inverse.reshape(-1)]
    return IndexArray.of(found.reshape(*ids.ids.shape, *rest), op.out.shape)
