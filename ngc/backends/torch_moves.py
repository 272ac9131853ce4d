"""Kernels of sources, data movement and picking by index."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ngc.backends.torch_kernels import Function, Kernel, Values, executes, number, reader
from ngc.ir import program as ir
from ngc.ir import views
from ngc.ir.slots import Slots


@executes(ir.Input)
def input_(op: ir.Input, values: Values) -> Function:
    return lambda x: x


@executes(ir.Parameter)
def parameter(op: ir.Parameter, values: Values) -> Function:
    return lambda data: data


@executes(ir.Constant)
def constant(op: ir.Constant, values: Values) -> Kernel:
    return Kernel(lambda data: data, (op.data.numpy(),))


@executes(ir.Reshape)
def reshape(op: ir.Reshape, values: Values) -> Function:
    shape = op.out.shape
    return lambda x: x.reshape(shape)


@executes(ir.Transpose)
def transpose(op: ir.Transpose, values: Values) -> Function:
    perm = op.perm
    return lambda x: x.permute(perm)


@executes(ir.Slice)
def slice_(op: ir.Slice, values: Values) -> Function:
    # torch has no negative steps: the same entries are read forwards, then flipped.
    shape = op.out.shape
    flipped = [k for k, (step, size) in enumerate(zip(op.steps, shape)) if step < 0 and size]
    starts = tuple(
        start + step * (size - 1) if k in flipped else start
        for k, (start, step, size) in enumerate(zip(op.starts, op.steps, shape))
    )
    where = views.slices(starts, tuple(abs(step) for step in op.steps), shape)
    if flipped:
        return lambda x: x[where].flip(flipped)
    return lambda x: x[where]


@executes(ir.Expand)
def expand(op: ir.Expand, values: Values) -> Function:
    shape = op.out.shape
    return lambda x: x.expand(shape)


@executes(ir.Take)
def take(op: ir.Take, values: Values) -> Function | Kernel:
    index, axis = op.index.numpy().astype(np.int64), op.axis
    first, steps = int(index[0]) if index.size else 0, np.diff(index)
    if index.size and (steps > 0).all() and len(set(steps.tolist())) <= 1:
        step = int(steps[0]) if steps.size else 1
        where = (*(slice(None),) * axis, slice(first, int(index[-1]) + 1, step))
        return lambda x: x[where]
    return Kernel(lambda x, index: x.index_select(axis, index), (index,))


@executes(ir.Select)
def select(op: ir.Select, values: Values) -> Kernel:
    # The same as reading slots from a vector, strided patterns included.
    length = math.prod(values[op.x].shape)
    read = reader(Slots.of(op.index.numpy().astype(np.int64)), length)
    shape, pick = op.out.shape, read.function
    return Kernel(lambda x, *index: pick(x.reshape(-1), *index).reshape(shape), read.constants)


@executes(ir.Concat)
def concat(op: ir.Concat, values: Values) -> Function | Kernel:
    axis = op.axis
    if not op.xs:  # all parts were empty
        return Kernel(lambda empty: empty, (np.zeros(op.out.shape, np.float32),))
    return lambda *xs: torch.cat(xs, axis)


@executes(ir.Pad)
def pad(op: ir.Pad, values: Values) -> Function:
    rank = len(op.out.shape)
    pads, value = last_first(op.pads[:rank], op.pads[rank:]), number(op.value, op.out.dtype)
    return lambda x: functional.pad(x, pads, value=value)


def last_first(begins: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Pads in torch's order: begin and end of the last axis first. Leading zeros are dropped."""
    pads = [p for pair in zip(reversed(begins), reversed(ends), strict=True) for p in pair]
    while len(pads) > 2 and pads[-1] == pads[-2] == 0:
        pads = pads[:-2]
    return pads


@executes(ir.Cast)
def cast(op: ir.Cast, values: Values) -> Function:
    if op.out.dtype == "bool":
        return lambda x: x != 0
    return lambda x: x  # the executor gives every result the dtype of out


# --- picking by ids that are activations -------------------------------------------------------


def _wrapped(ids: Tensor, size: int) -> Tensor:
    """Negative ids count from the end."""
    ids = ids.long()
    return torch.where(ids < 0, ids + size, ids)


@executes(ir.Embedding)
def embedding(op: ir.Embedding, values: Values) -> Function:
    shape, num_rows = op.out.shape, op.weight.shape[0]

    def run(ids: Tensor, weight: Tensor) -> Tensor:
        return weight.index_select(0, _wrapped(ids, num_rows).reshape(-1)).reshape(shape)

    return run


@executes(ir.Gather)
def gather(op: ir.Gather, values: Values) -> Function | Kernel:
    shape, axis, size = op.out.shape, op.axis, values[op.x].shape
    match op.fn:
        case "axis":
            return lambda x, ids: x.index_select(
                axis, _wrapped(ids, size[axis]).reshape(-1)
            ).reshape(shape)
        case "elements":
            return lambda x, ids: torch.gather(x, axis, _wrapped(ids, size[axis]))
        case "nd":
            return _gather_nd(op, values)
    raise AssertionError(f"gather has no {op.fn}")


# What torch calls the functions of Scatter that take into account what is there.
REDUCTIONS = {"add": "sum", "max": "amax", "min": "amin"}


@executes(ir.Scatter)
def scatter(op: ir.Scatter, values: Values) -> Function:
    axis, size = op.axis, op.out.shape[op.axis]
    if op.fn == "write":
        return lambda x, ids, updates: x.scatter(axis, _wrapped(ids, size), updates)
    if op.fn == "mul":
        return lambda x, ids, updates: _multiplied(x, axis, _wrapped(ids, size), updates)
    fn = REDUCTIONS[op.fn]
    return lambda x, ids, updates: x.scatter_reduce(axis, _wrapped(ids, size), updates, fn)


def _multiplied(x: Tensor, axis: int, ids: Tensor, updates: Tensor) -> Tensor:
    """Entry after entry along the axis: the gradient of torch's product looks at its values, which
    a stack of networks does not allow."""
    for one, factor in zip(ids.split(1, axis), updates.split(1, axis)):
        x = x.scatter(axis, one, x.gather(axis, one) * factor)
    return x


def _gather_nd(op: ir.Gather, values: Values) -> Kernel:
    """x [*batch, *picked, *rest], ids [*batch, *many, len(picked)]."""
    size, ids_shape, num_batch = values[op.x].shape, values[op.ids].shape, op.axis
    batch, picked = size[:num_batch], size[num_batch : num_batch + ids_shape[-1]]
    rest = size[num_batch + len(picked) :]
    steps = np.array([math.prod(picked[k + 1 :]) for k in range(len(picked))], dtype=np.int64)
    start = np.arange(math.prod(batch), dtype=np.int64) * math.prod(picked)
    start = start.reshape(batch + (1,) * (len(ids_shape) - 1 - num_batch))
    limits = np.array(picked, dtype=np.int64)
    rows = (math.prod(batch) * math.prod(picked), *rest)
    shape = op.out.shape

    def run(x: Tensor, ids: Tensor, steps: Tensor, start: Tensor, limits: Tensor) -> Tensor:
        ids = ids.long()
        ids = torch.where(ids < 0, ids + limits, ids)
        flat = (ids * steps).sum(-1) + start
        return x.reshape(rows).index_select(0, flat.reshape(-1)).reshape(shape)

    return Kernel(run, (steps, start, limits))
