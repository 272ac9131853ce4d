"""Wiring of operations over axes: along positions neurons keep apart, along neurons they meet."""

from __future__ import annotations

import math

import numpy as np

from ngc.ir import program as ir
from ngc.ir.index import IndexArray
from ngc.passes.wire.base import Wirer, connect_sets, fresh_rows, window_rows, wires


def mix(w: Wirer, op: ir.Op, ref: str, axes: list[int], kind: str, per_entry: bool) -> np.ndarray:
    """Fresh neurons that read all neurons of ``ref`` along ``axes``.

    Returns their ids with the rank of the operand: along ``axes`` one neuron for all entries, or
    with ``per_entry`` one for each entry of the result.
    """
    x = w.index(ref)
    inner = [a for a in axes if x.ids.shape[a] > 1]
    outer = [a for a in range(x.ids.ndim) if a not in inner]
    sizes = [x.ids.shape[a] for a in outer]
    rows = x.ids.transpose([*outer, *inner]).reshape(math.prod(sizes), -1)
    if not per_entry:
        neuron_of, new, distinct = fresh_rows(w, rows)
        connect_sets(w, kind, distinct, new[:, None])
        ids = neuron_of.reshape(sizes)
        return np.expand_dims(ids, tuple(inner)) if inner else ids
    wide = [op.out.shape[a] for a in inner]
    count = math.prod(wide)
    w.check_size(rows.size * count, f"{op.mnemonic} along an axis of neurons")
    neurons = w.fresh(len(rows) * count).reshape(len(rows), count)
    connect_sets(w, kind, rows, neurons)
    ids = neurons.reshape([*sizes, *wide])
    return ids.transpose(np.argsort([*outer, *inner]))


@wires(ir.Reduce)
def reduce(w: Wirer, op: ir.Reduce) -> IndexArray:
    x = w.index(op.x)
    along = [a for a in op.axes if a in x.varying]
    ids = mix(w, op, op.x, list(op.axes), "reduce" if along else "pool", per_entry=False)
    if along and op.fn.startswith("arg"):
        w.fix(x.ids)  # the result counts places along the axis
    if not op.keepdims:
        ids = ids.reshape([n for a, n in enumerate(ids.shape) if a not in op.axes])
    return IndexArray.of(ids, op.out.shape)


@wires(ir.Cumulate)
def cumulate(w: Wirer, op: ir.Cumulate) -> IndexArray:
    return _ordered(w, op, op.x, [op.axis])


@wires(ir.TopK)
def topk(w: Wirer, op: ir.TopK) -> IndexArray:
    return _ordered(w, op, op.x, [op.axis])


@wires(ir.Resize)
def resize(w: Wirer, op: ir.Resize) -> IndexArray:
    return _ordered(w, op, op.x, list(op.axes))


def _ordered(w: Wirer, op: ir.Op, ref: str, axes: list[int]) -> IndexArray:
    """Operations for which the order along the axis counts."""
    x = w.index(ref)
    if any(a in x.varying for a in axes):
        ids = mix(w, op, ref, axes, "mix", per_entry=True)
        w.fix(x.ids, ids)
        return IndexArray.of(ids, op.out.shape)
    return IndexArray.of(mix(w, op, ref, [], "pool", per_entry=False), op.out.shape)


@wires(ir.Pool)
def pool(w: Wirer, op: ir.Pool) -> IndexArray:
    x = w.index(op.x)
    if all(a < 2 for a in x.varying):
        return IndexArray.of(mix(w, op, op.x, [], "pool", per_entry=False), op.out.shape)
    # Neurons that differ by position: one for each window.
    rank = len(op.kernel)
    ids = x.full()
    ids = ids[:1] if (ids == ids[:1]).all() else ids
    out = op.out.shape[2:]
    w.check_size(
        math.prod(out) * ids.shape[0] * ids.shape[1] * math.prod(op.kernel),
        "pooling over neurons that differ by position",
    )
    pads = [(0, 0), (0, 0)]
    for a in range(rank):
        reach = (out[a] - 1) * op.strides[a] + (op.kernel[a] - 1) * op.dilations[a] + 1
        pads.append((op.pads[a], max(0, reach - op.pads[a] - x.shape[2 + a])))
    padded = np.pad(ids, pads, constant_values=-1)
    windows = np.stack(
        [
            window_rows(np.ascontiguousarray(i), out, op.kernel, op.strides, op.dilations)
            for i in padded
        ]
    )
    rows = windows.reshape(-1, math.prod(op.kernel))
    # Padding is no neuron: let it repeat one of the window's own.
    rows = np.where(rows < 0, rows.max(axis=1, keepdims=True), rows)
    neuron_of, new, distinct = fresh_rows(w, np.sort(rows, axis=1))
    connect_sets(w, "pool", distinct, new[:, None])
    w.fix(ids, new)
    found = neuron_of.reshape(len(padded), *out, ids.shape[1])
    return IndexArray.of(np.moveaxis(found, -1, 1), op.out.shape)


@wires(ir.Gather)
def gather(w: Wirer, op: ir.Gather) -> IndexArray:
    """Picking by data: the result reads what it may pick from, and the index."""
    x, ids = w.index(op.x), w.index(op.ids)
    chooser = np.unique(ids.ids)
    if op.fn == "axis":
        picked = mix(w, op, op.x, [op.axis], "gather", per_entry=False)
        sizes = [*picked.shape[: op.axis], *[1] * ids.ids.ndim, *picked.shape[op.axis + 1 :]]
        found = picked.reshape(sizes)
    elif op.fn == "elements" and op.axis not in x.varying:
        found = mix(w, op, op.x, [], "gather", per_entry=False)
        if any(n > o for n, o in zip(found.shape, op.out.shape)):
            raise w.refuse("picking elements from part of the neurons")
    else:
        found = mix(w, op, op.x, list(range(x.ids.ndim)), "gather", per_entry=False)
        found = found.reshape((1,) * len(op.out.shape))
    if set(x.varying) & {op.axis} or op.fn != "axis":
        w.fix(x.ids)
    new = np.unique(found)
    w.connect("condition", np.repeat(chooser[None], len(new), axis=0), new[:, None])
    return IndexArray.of(found, op.out.shape)


@wires(ir.Scatter)
def scatter(w: Wirer, op: ir.Scatter) -> IndexArray:
    """Writing by data: a result reads what was there, what may be written there, and the index.
    Along an axis of neurons each entry is one of its own, whoever brings them."""
    axis = op.axis
    parts = [w.index(ref).ids for ref in (op.x, op.ids, op.updates)]
    by_entry = any(part.shape[axis] > 1 for part in parts)
    size = op.out.shape[axis] if by_entry else 1
    along = [np.moveaxis(part, axis, -1) for part in parts]
    outer = np.broadcast_shapes(*(part.shape[:-1] for part in along))
    count = math.prod(outer)
    w.check_size(count * size * sum(part.shape[-1] for part in along), "writing by data")
    before, ids, updates = (
        np.broadcast_to(part, (*outer, part.shape[-1])).reshape(count, -1) for part in along
    )
    before = np.broadcast_to(before, (count, size))
    if by_entry:
        found = new = w.fresh(count * size).reshape(count, size)
        w.fix(*parts, new)
    else:
        found, new, rows = fresh_rows(w, np.concatenate([before, ids, updates], axis=1))
        new = new[:, None]
        before, ids, updates = rows[:, :1], rows[:, 1:2], rows[:, 2:]
    w.connect_each("identity", before.reshape(-1), new.reshape(-1))
    connect_sets(w, "condition", ids, new)
    connect_sets(w, "gather", updates, new)
    found = np.moveaxis(found.reshape(*outer, size), -1, axis)
    return IndexArray.of(found, op.out.shape)
