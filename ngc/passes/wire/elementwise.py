"""Wiring of operations that work entry by entry: the neurons keep apart, each has one successor."""

from __future__ import annotations

import math

import numpy as np

from ngc.ir import program as ir
from ngc.ir.index import IndexArray
from ngc.ir.program import Ints
from ngc.ir.slots import ONE, Slots
from ngc.passes.wire.base import Wirer, connect_sets, fresh_rows, wires


def with_rank(array: np.ndarray, rank: int) -> np.ndarray:
    """The array with axes of size 1 in front."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def pointwise(
    w: Wirer, op: ir.Op, refs: tuple[str, ...], slots: Slots | None = None
) -> tuple[IndexArray, np.ndarray, np.ndarray, np.ndarray, Ints]:
    """Fresh neurons for an entry-by-entry operation, with a parameter operand or without.

    Returns the index array of the result; the operand neurons [n, operands] and new neurons [n];
    and the slots [n, k] of the parameter, where k runs over the positions it varies by, of which
    the sizes come last.
    """
    shape, rank = op.out.shape, len(op.out.shape)
    ids = [with_rank(w.index(ref).ids, rank) for ref in refs]
    together = np.broadcast_shapes(*(a.shape for a in ids))
    kernel: Ints = ()
    entries = np.full((1,) * rank, ONE, dtype=np.int64)
    if slots is not None:
        entries = IndexArray.of(with_rank(slots.numpy(), rank), shape).ids
        moving = [a for a in range(rank) if entries.shape[a] > 1]
        # An axis that only the parameter brings in makes neurons; one that the operands already
        # have as positions stays an axis of positions.
        sizes = np.broadcast_shapes(*(w.values[ref].shape for ref in refs))
        sizes = (1,) * (rank - len(sizes)) + sizes
        places = [a for a in moving if together[a] == 1 and sizes[a] > 1]
        kernel = tuple(shape[a] for a in places)
        together = tuple(
            shape[a] if a in moving and a not in places else together[a] for a in range(rank)
        )
        spread = [shape[a] if a in places else together[a] for a in range(rank)]
        order = [a for a in range(rank) if a not in places] + places
        entries = np.broadcast_to(entries, spread).transpose(order)
    count = math.prod(together)
    entries = np.broadcast_to(entries.reshape(-1, math.prod(kernel)), (count, math.prod(kernel)))
    columns = [np.broadcast_to(a, together).reshape(-1) for a in ids]
    keys = columns if slots is None else [*columns, entries[:, 0]]
    neuron_of, new, rows = fresh_rows(w, np.stack(keys, axis=1))
    # Row of each new neuron: the first element it holds.
    first = np.zeros(len(new), dtype=np.int64)
    first[(neuron_of - new[0])[::-1] if len(new) else []] = np.arange(count)[::-1]
    index = IndexArray.of(neuron_of.reshape(together), shape)
    return index, rows[:, : len(columns)], new, entries[first], kernel


@wires(ir.Activation, ir.Cast)
def unary(w: Wirer, op: ir.Activation | ir.Cast) -> IndexArray:
    index, rows, new, _, _ = pointwise(w, op, (op.x,))
    w.connect("identity", rows, new[:, None])
    return index


@wires(ir.Scale)
def scale(w: Wirer, op: ir.Scale) -> IndexArray:
    index, rows, new, entries, kernel = pointwise(w, op, (op.x,), op.factor)
    kind = {"mul": "scale", "div": "divide", "rdiv": "reciprocal"}[op.fn]
    w.connect(kind, rows, new[:, None], Slots.of(entries[:, None, None, :]), kernel)
    return index


@wires(ir.Shift)
def shift(w: Wirer, op: ir.Shift) -> IndexArray:
    index, rows, new, entries, kernel = pointwise(w, op, (op.x,), op.term)
    w.connect("negative" if op.fn == "rsub" else "identity", rows, new[:, None])
    w.attach({"add": "bias", "sub": "sub_bias", "rsub": "bias"}[op.fn], new, entries, kernel)
    return index


@wires(ir.PRelu)
def prelu(w: Wirer, op: ir.PRelu) -> IndexArray:
    index, rows, new, entries, kernel = pointwise(w, op, (op.x,), op.slope)
    w.connect("identity", rows, new[:, None])
    w.attach("slope", new, entries, kernel)
    return index


@wires(ir.BatchNorm)
def batch_norm(w: Wirer, op: ir.BatchNorm) -> IndexArray:
    rank, channels = len(op.out.shape), op.out.shape[1]
    # Channels are numbered, and the numbers travel like a parameter that differs by channel.
    numbered = Slots.contiguous((channels, *[1] * (rank - 2)), 0)
    index, rows, new, channel, kernel = pointwise(w, op, (op.x,), numbered)
    scale = op.scale.numpy()[channel]
    w.connect("norm", rows, new[:, None], Slots.of(scale[:, None, None, :]), kernel)
    for role in ("bias", "mean", "var"):
        w.attach(role, new, op.operands[role].numpy()[channel], kernel)
    return index


@wires(ir.Normalise)
def normalise(w: Wirer, op: ir.Normalise) -> IndexArray:
    index, rows, new, _, _ = pointwise(w, op, (op.x,))
    w.connect("norm", rows, new[:, None])
    if op.fn == "lrn" and op.axes[0] in index.varying:
        w.fix(new)  # neighbours along the axis count
        return index
    inner = [a for a in index.varying if a in op.axes]
    outer = [a for a in index.varying if a not in op.axes]
    if inner and outer:
        together = index.ids.transpose([*outer, *inner, *_rest(index, outer + inner)])
        w.wiring.sets.append(
            (w.op, together.reshape(-1, math.prod(index.ids.shape[a] for a in inner)))
        )
    return index


def _rest(index: IndexArray, axes: list[int]) -> list[int]:
    return [a for a in range(index.ids.ndim) if a not in axes]


@wires(ir.Softmax)
def softmax(w: Wirer, op: ir.Softmax) -> IndexArray:
    index, rows, new, _, _ = pointwise(w, op, (op.x,))
    w.connect("identity", rows, new[:, None])
    if op.axis in index.varying:
        w.fix(new)
    return index


# Kinds of the edges into a Combine, operand by operand; the last one is for all further operands.
COMBINE_EDGES = {
    "add": ("identity",),
    "mean": ("identity",),
    "sub": ("identity", "negative"),
    "mul": ("product",),
    "div": ("product", "quotient"),
    "pow": ("base", "exponent"),
    "where": ("condition", "identity"),
    "max": ("maximum",),
    "min": ("minimum",),
}


@wires(ir.Combine)
def combine(w: Wirer, op: ir.Combine) -> IndexArray:
    index, rows, new, _, _ = pointwise(w, op, op.xs)
    kinds = COMBINE_EDGES.get(op.fn, ("operand",))
    for k in range(rows.shape[1]):
        kind = kinds[min(k, len(kinds) - 1)]
        if op.fn in ("add", "sub"):
            w.connect_each(kind, rows[:, k], new)
        else:
            w.connect(kind, rows[:, k : k + 1], new[:, None])
    return index


@wires(ir.Contract)
def contract(w: Wirer, op: ir.Contract) -> IndexArray:
    """Sum over products of two activations. An output is one neuron for each way its operands'
    neurons differ; along the contraction, the neurons of the two operands are paired."""
    left, right, out = op.spec.replace("->", ",").split(",")
    a, b = w.index(op.a), w.index(op.b)
    size = dict(zip(left, a.shape)) | dict(zip(right, b.shape))
    varies = {c for c, n in (*zip(left, a.ids.shape), *zip(right, b.ids.shape)) if n > 1}
    outer = [c for c in out if c in varies]
    inner = [c for c in dict.fromkeys(left + right) if c not in out and c in varies]

    def table(index: IndexArray, letters: str) -> np.ndarray:
        own = [c for c in outer + inner if c in letters]
        rest = [k for k, c in enumerate(letters) if c not in own]
        ids = index.ids.transpose([*(letters.index(c) for c in own), *rest])
        ids = ids.reshape(ids.shape[: len(own)])
        ids = ids.reshape([ids.shape[own.index(c)] if c in own else 1 for c in outer + inner])
        ids = np.broadcast_to(ids, [size[c] for c in outer + inner])
        return ids.reshape(math.prod(size[c] for c in outer), -1)

    rows_a, rows_b = table(a, left), table(b, right)
    w.check_size(rows_a.size, "a product of activations")
    neuron_of, new, rows = fresh_rows(w, np.concatenate([rows_a, rows_b], axis=1))
    width = rows_a.shape[1]
    moving = (
        [c for c in inner if c in left and a.ids.shape[left.index(c)] > 1],
        [c for c in inner if c in right and b.ids.shape[right.index(c)] > 1],
    )
    for part, letters in ((rows[:, :width], moving[0]), (rows[:, width:], moving[1])):
        # An operand that does not vary along the contraction sends one edge.
        connect_sets(w, "product", part if letters else part[:, :1], new[:, None])
    for c in inner:
        if c in left and c in right and (c in moving[0]) != (c in moving[1]):
            # Neurons that meet positions of another one: each position is another factor.
            w.fix(a.ids if c in moving[0] else b.ids)
    if moving[0] and moving[1]:
        w.wiring.ties.append((rows[:, :width].reshape(-1), rows[:, width:].reshape(-1)))
    ids = neuron_of.reshape([size[c] for c in outer])
    sizes = [size[c] if c in outer else 1 for c in out]
    return IndexArray.of(ids.reshape(sizes), op.out.shape)
