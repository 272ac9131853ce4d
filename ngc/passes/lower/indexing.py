"""Gather, Scatter and what else picks entries by indices.

Known indices are data movement; indices that depend on the input read a table (Embedding) or
another activation (Gather).
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir

from ngc.ir import program as ir
from ngc.ir.program import Ints, Value
from ngc.ir.slots import row_major
from ngc.passes.lower.base import Builder, Known, Operand, lowers

# More entries written to one place than this are not unrolled.
MAX_ROUNDS = 64


@lowers("Gather", since=1, movement=True)
def gather(b: Builder, node: onnx_ir.Node, x: Operand, ids: Operand) -> Operand:
    """out[..., *i, ...] = x[..., ids[*i], ...] along ``axis``."""
    axis = b.axis(node.attributes.get_int("axis", 0), len(x.shape))
    shape = (*x.shape[:axis], *ids.shape, *x.shape[axis + 1 :])
    if isinstance(ids, Known):
        index = b.values_of(ids, "indices")
        return b.reshape(pick(b, x, axis, index.reshape(-1)), shape)
    if b.is_parameter(x):
        return embedding(b, x, ids, axis)
    source = b.value(x)
    return b.emit(ir.Gather, shape, x.dtype, x=source.name, ids=ids.name, fn="axis", axis=axis)


def pick(b: Builder, x: Operand, axis: int, index: np.ndarray) -> Operand:
    """Entries along one axis: a slice where they lie at even distances, else a take."""
    size, rank = x.shape[axis], len(x.shape)
    if index.size and (index.min() < -size or index.max() >= size):
        raise b.misshapen(f"index out of range for axis {axis} of {list(x.shape)}")
    index = np.where(index < 0, index + size, index).astype(np.int64)
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    if len(index) == 0 or step == 0 or np.any(np.diff(index) != step):
        return b.take(x, axis, index)
    starts, steps, sizes = [0] * rank, [1] * rank, list(x.shape)
    starts[axis], steps[axis], sizes[axis] = int(index[0]), step, len(index)
    return b.slice(x, starts, steps, sizes)


def embedding(b: Builder, table: Known, ids: Value, axis: int) -> Operand:
    """Rows of a parameter along any axis of it: the axis goes first, and back where it was."""
    rank, lead = len(table.shape), len(ids.shape)
    first = b.transpose(table, (axis, *(k for k in range(rank) if k != axis)))
    assert isinstance(first, Known)
    shape = (*ids.shape, *first.shape[1:])
    rows = b.emit(ir.Embedding, shape, table.dtype, ids=ids.name, weight=b.slots(first))
    before = range(lead, lead + axis)
    return b.transpose(rows, (*before, *range(lead), *range(lead + axis, lead + rank - 1)))


@lowers("GatherElements", since=11, movement=True)
def gather_elements(b: Builder, node: onnx_ir.Node, x: Operand, ids: Operand) -> Operand:
    """out[i, j, ...] = x[ids[i, j, ...], j, ...] for axis 0."""
    axis = b.axis(node.attributes.get_int("axis", 0), len(x.shape))
    if isinstance(ids, Known):
        return b.select(x, elements(b, x.shape, b.values_of(ids, "indices"), axis))
    source = b.value(x)
    return b.emit(
        ir.Gather, ids.shape, x.dtype, x=source.name, ids=ids.name, fn="elements", axis=axis
    )


def elements(b: Builder, shape: Ints, index: np.ndarray, axis: int) -> np.ndarray:
    """Flat places in a tensor of this shape: at ``index`` along ``axis``, in place elsewhere."""
    if index.ndim != len(shape):
        raise b.misshapen(f"indices {list(index.shape)} do not fit {list(shape)}")
    along = _checked(b, index, shape[axis])
    strides = row_major(shape)
    flat = along * strides[axis]
    for k, size in enumerate(index.shape):
        if k != axis:
            if size > shape[k]:
                raise b.misshapen(f"indices {list(index.shape)} do not fit {list(shape)}")
            place = np.arange(size) * strides[k]
            flat = flat + place.reshape([-1 if j == k else 1 for j in range(index.ndim)])
    return flat


def _checked(b: Builder, index: np.ndarray, size: int) -> np.ndarray:
    if index.size and (index.min() < -size or index.max() >= size):
        raise b.misshapen(f"an index lies outside an axis of size {size}")
    return np.where(index < 0, index + size, index).astype(np.int64)


@lowers("GatherND", since=11, movement=True)
def gather_nd(b: Builder, node: onnx_ir.Node, x: Operand, ids: Operand) -> Operand:
    """The last axis of the indices holds coordinates in x, after ``batch_dims`` shared axes."""
    batch, depth = node.attributes.get_int("batch_dims", 0), ids.shape[-1]
    if isinstance(ids, Known):
        return b.select(x, places(b, x.shape, b.values_of(ids, "indices"), batch))
    if b.is_parameter(x) and depth == 1 and batch == 0:
        rows = b.reshape(ids, ids.shape[:-1])
        assert isinstance(rows, Value)
        return embedding(b, x, rows, 0)
    source = b.value(x)
    shape = (*ids.shape[:-1], *x.shape[batch + depth :])
    return b.emit(ir.Gather, shape, x.dtype, x=source.name, ids=ids.name, fn="nd", axis=batch)


def places(b: Builder, shape: Ints, index: np.ndarray, batch: int = 0) -> np.ndarray:
    """Flat places [*index.shape[:-1], *rest] that coordinate tuples pick in a tensor."""
    depth, strides = index.shape[-1], row_major(shape)
    if batch + depth > len(shape) or index.shape[:batch] != shape[:batch]:
        raise b.misshapen(f"indices {list(index.shape)} do not fit {list(shape)}")
    flat = np.zeros(index.shape[:-1], dtype=np.int64)
    for k in range(depth):
        flat = flat + _checked(b, index[..., k], shape[batch + k]) * strides[batch + k]
    for k in range(batch):
        flat = flat + (np.arange(shape[k]) * strides[k]).reshape(
            [-1 if j == k else 1 for j in range(flat.ndim)]
        )
    rest = shape[batch + depth :]
    within = np.arange(math.prod(rest)).reshape(rest)
    return flat.reshape(flat.shape + (1,) * len(rest)) + within


@lowers("Scatter", since=9, movement=True)
@lowers("ScatterElements", since=11, movement=True)
def scatter_elements(
    b: Builder, node: onnx_ir.Node, x: Operand, ids: Operand, updates: Operand
) -> Operand:
    """x with out[ids[i, j, ...], j, ...] = updates[i, j, ...] for axis 0."""
    axis = b.axis(node.attributes.get_int("axis", 0), len(x.shape))
    if isinstance(ids, Value):
        return _scatter_by_data(b, node, x, ids, updates, axis)
    return _scatter(b, node, x, ids, updates, elements(b, x.shape, _indices(b, ids), axis))


def _scatter_by_data(
    b: Builder, node: onnx_ir.Node, x: Operand, ids: Value, updates: Operand, axis: int
) -> Operand:
    """Indices that are activations. Where they cover only the first entries along other axes, the
    rest of x stays as it is."""
    covered = tuple(x.shape[a] if a == axis else n for a, n in enumerate(ids.shape))
    if updates.shape != ids.shape or len(covered) != len(x.shape):
        raise b.misshapen(f"updates {list(updates.shape)}, indices {list(ids.shape)}")
    if any(n > m for n, m in zip(covered, x.shape)):
        raise b.misshapen(f"indices {list(ids.shape)} do not fit {list(x.shape)}")
    reduction = node.attributes.get_string("reduction", "none")
    if reduction != "none":
        _neutral(b, reduction, x.dtype)  # refuses what is no reduction
    rank = len(x.shape)
    part = b.value(b.slice(x, (0,) * rank, (1,) * rank, covered))
    written = b.emit(
        ir.Scatter, covered, x.dtype, x=part.name, ids=ids.name, updates=b.value(updates).name,
        fn="write" if reduction == "none" else reduction, axis=axis,
    )  # fmt: skip
    if covered == x.shape:
        return written
    place, size = np.arange(math.prod(x.shape)).reshape(x.shape), math.prod(x.shape)
    place[tuple(slice(n) for n in covered)] = size + np.arange(math.prod(covered)).reshape(covered)
    flat = [b.reshape(value, (math.prod(value.shape),)) for value in (x, written)]
    return b.select(b.concat(flat, 0), place)


@lowers("ScatterND", since=11, movement=True)
def scatter_nd(
    b: Builder, node: onnx_ir.Node, x: Operand, ids: Operand, updates: Operand
) -> Operand:
    """x with updates written where the coordinates in the last axis of the indices say."""
    return _scatter(b, node, x, ids, updates, places(b, x.shape, _indices(b, ids)))


def _indices(b: Builder, ids: Operand) -> np.ndarray:
    return b.values_of(ids, "indices")


def _scatter(
    b: Builder, node: onnx_ir.Node, x: Operand, ids: Operand, updates: Operand, index: np.ndarray
) -> Operand:
    """Write updates to the flat places ``index``, the last one of equal places last."""
    if index.shape != updates.shape:
        raise b.misshapen(f"updates {list(updates.shape)} do not fit {list(index.shape)}")
    size, reduction = math.prod(x.shape), node.attributes.get_string("reduction", "none")
    flat = b.reshape(updates, (index.size,))
    if reduction == "none":
        source = np.arange(size)
        source[index.reshape(-1)] = size + np.arange(index.size)
        both = b.concat([b.reshape(x, (size,)), flat], 0)
        return b.select(both, source.reshape(x.shape))
    if isinstance(x, Known) and isinstance(updates, Known):
        return b.evaluate(node, (x, ids, updates))[0]
    neutral = _neutral(b, reduction, x.dtype)
    # Each round brings one update to each place and what changes nothing to the others.
    for source in _rounds(b, index.reshape(-1), size):
        update = b.select(b.concat([flat, Known(neutral)], 0), source.reshape(x.shape))
        x = b.combine(reduction, x, update)
    return x


def _neutral(b: Builder, reduction: str, dtype: str) -> np.ndarray:
    kind = np.dtype(dtype)
    limits = (-np.inf, np.inf) if kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    values = {"add": 0, "mul": 1, "max": limits[0], "min": limits[1]}
    if reduction not in values:
        raise b.refuse(f"reduction {reduction!r} is not one of none, {', '.join(values)}")
    return np.array([values[reduction]], dtype=kind)


def _rounds(b: Builder, index: np.ndarray, size: int) -> list[np.ndarray]:
    """Per round, which update each place gets; ``len(index)`` where it gets none."""
    order = np.argsort(index, kind="stable")
    ranked = index[order]
    first = np.searchsorted(ranked, ranked, side="left")
    turn = np.empty(len(index), dtype=np.int64)  # how many earlier updates go to the same place
    turn[order] = np.arange(len(index)) - first
    count = int(turn.max(initial=-1)) + 1
    if count > MAX_ROUNDS:
        raise b.refuse(f"{count} updates go to one place, more than {MAX_ROUNDS}")
    rounds = [np.full(size, len(index), dtype=np.int64) for _ in range(count)]
    for k, source in enumerate(rounds):
        chosen = np.flatnonzero(turn == k)
        source[index[chosen]] = chosen
    return rounds


@lowers("Compress", since=9, movement=True)
def compress(b: Builder, node: onnx_ir.Node, x: Operand, condition: Operand) -> Operand:
    """Entries, along an axis or of the flattened tensor, where the condition holds."""
    chosen = np.flatnonzero(b.values_of(condition, "condition"))
    if "axis" in node.attributes:
        return pick(b, x, b.axis(node.attributes.get_int("axis"), len(x.shape)), chosen)
    return pick(b, b.reshape(x, (math.prod(x.shape),)), 0, chosen)


@lowers("ReverseSequence", since=10, movement=True)
def reverse_sequence(b: Builder, node: onnx_ir.Node, x: Operand, lengths: Operand) -> Operand:
    """The first lengths[k] steps of batch entry k in reversed order."""
    time = b.axis(node.attributes.get_int("time_axis", 0), len(x.shape))
    batch = b.axis(node.attributes.get_int("batch_axis", 1), len(x.shape))
    length = b.values_of(lengths, "sequence_lens").reshape(-1)
    if len(length) != x.shape[batch] or (length.size and length.max() > x.shape[time]):
        raise b.misshapen(f"sequence_lens {length.tolist()} do not fit {list(x.shape)}")
    step = np.arange(x.shape[time])
    # [batch, time]: the step each step takes its values from.
    source = np.where(step < length[:, None], length[:, None] - 1 - step, step)
    rows = source if batch < time else source.T
    shape = [n if k in (time, batch) else 1 for k, n in enumerate(x.shape)]
    index = np.broadcast_to(rows.reshape(shape), x.shape)
    return b.select(x, elements(b, x.shape, index, time))


@lowers("Trilu", since=14)
def trilu(b: Builder, node: onnx_ir.Node, x: Operand, k: Operand | None = None) -> Operand:
    """The upper or lower triangle of the last two axes, zeros elsewhere."""
    offset = 0 if k is None else b.ints_of(k, "k")[0]
    rows, columns = x.shape[-2:]
    if node.attributes.get_int("upper", 1):
        keep = ~np.tri(rows, columns, offset - 1, dtype=bool)
    else:
        keep = np.tri(rows, columns, offset, dtype=bool)
    return b.combine("where", Known(keep), x, Known(np.zeros((), dtype=x.dtype)), dtype=x.dtype)


@lowers("OneHot", since=9)
def one_hot(
    b: Builder, node: onnx_ir.Node, ids: Operand, depth: Operand, values: Operand
) -> Operand:
    """values[1] where the new axis counts to the index, values[0] elsewhere; negative indices count
    from the end, others outside the axis are nowhere."""
    count = b.ints_of(depth, "depth")[0]
    rank = len(ids.shape) + 1
    axis = b.axis(node.attributes.get_int("axis", -1), rank)
    index = b.cast(ids, "int64")
    index = b.reshape(index, (*ids.shape[:axis], 1, *ids.shape[axis:]))
    along = np.arange(count).reshape([-1 if k == axis else 1 for k in range(rank)])
    hit = b.combine(
        "or",
        b.combine("equal", index, Known(along), dtype="bool"),
        b.combine("equal", index, Known(along - count), dtype="bool"),
    )
    off, on = (_entry(b, values, k) for k in (0, 1))
    return b.combine("where", hit, on, off, dtype=values.dtype)


def _entry(b: Builder, x: Operand, k: int) -> Operand:
    """One entry of a vector, as a scalar; of a known vector as a plain number."""
    if isinstance(x, Known):
        x = Known(b.values_of(x, "values"))
    return b.reshape(b.slice(x, (k,), (1,), (1,)), ())
