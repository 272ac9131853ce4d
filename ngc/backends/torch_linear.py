"""Kernels of contractions, convolutions, pools and resampling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ngc.backends.torch_kernels import Function, Kernel, Values, executes, is_floating, refuse
from ngc.backends.torch_moves import last_first
from ngc.ir import program as ir
from ngc.ir.program import Ints

# --- contractions ------------------------------------------------------------------------------


@executes(ir.Linear)
def linear(op: ir.Linear, values: Values) -> Function:
    return contraction(op.spec)


@executes(ir.Contract)
def contract(op: ir.Contract, values: Values) -> Function:
    return contraction(op.spec)


def contraction(spec: str) -> Function:
    """einsum of two tensors; plain matrix products directly, which is quicker."""
    left, right, out = spec.replace("->", ",").split(",")
    if len(left) >= 2 and len(right) == 2 and out[:-1] == left[:-1]:
        if right == out[-1] + left[-1]:
            return functional.linear
        if right == left[-1] + out[-1]:
            return lambda a, b: functional.linear(a, b.mT)
    lead = left[:-2]
    if lead == right[:-2] == out[:-2] and len(left) == len(right) == len(out) >= 2:
        if out[-2:] == left[-2] + right[-1] and left[-1] == right[-2]:
            return torch.matmul
        if out[-2:] == left[-2] + right[-2] and left[-1] == right[-1]:
            return lambda a, b: torch.matmul(a, b.mT)
    return lambda a, b: torch.einsum(spec, a, b)


# --- windows -----------------------------------------------------------------------------------


def taps(x: Tensor, out: Ints, kernel: Ints, strides: Ints, dilations: Ints) -> Iterator[Tensor]:
    """For each entry of the window in row-major order, what it meets: [*lead, *out].

    The windows run over the last axes of x, which is padded already.
    """
    for place in itertools.product(*(range(k) for k in kernel)):
        where: tuple[Any, ...] = tuple(
            slice(tap * d, tap * d + (n - 1) * s + 1, s)
            for tap, d, n, s in zip(place, dilations, out, strides)
        )
        yield x[(..., *where)]


def overhang(size: Ints, op: ir.Convolution | ir.Pool, kernel: Ints) -> Ints:
    """Pads at the ends so that the last window just fits (negative: what no window reads)."""
    begins, out = op.pads[: len(kernel)], op.out.shape[2:]
    return tuple(
        (m - 1) * s + (k - 1) * d + 1 - n - b
        for m, s, k, d, n, b in zip(out, op.strides, kernel, op.dilations, size, begins)
    )


CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


@executes(ir.Convolution)
def convolution(op: ir.Convolution, values: Values) -> Function:
    kernel = op.weight.shape[2:]
    rank = len(kernel)
    begins, ends = op.pads[:rank], op.pads[rank:]
    strides, dilations, groups = op.strides, op.dilations, op.groups
    if rank not in CONVOLUTIONS:
        return _convolution_by_taps(op, values)
    function = CONVOLUTIONS[rank]
    if begins == ends and all(b >= 0 for b in begins):
        return lambda x, w: function(x, w, None, strides, begins, dilations, groups)
    pads = last_first(begins, ends)
    return lambda x, w: function(functional.pad(x, pads), w, None, strides, 0, dilations, groups)


def _convolution_by_taps(op: ir.Convolution, values: Values) -> Function:
    """Any number of spatial axes: one matrix product for each entry of the kernel."""
    kernel, out, groups = op.weight.shape[2:], op.out.shape, op.groups
    size = values[op.x].shape
    pads = last_first(op.pads[: len(kernel)], overhang(size[2:], op, kernel))
    grouped = (size[0], groups, size[1] // groups, *out[2:])
    strides, dilations = op.strides, op.dilations

    def run(x: Tensor, weight: Tensor) -> Tensor:
        # [groups, out / groups, in / groups, entries of the kernel]
        weight = weight.reshape(groups, out[1] // groups, size[1] // groups, math.prod(kernel))
        x = functional.pad(x, pads) if kernel else x
        met = taps(x, out[2:], kernel, strides, dilations)
        parts = [
            torch.einsum("ngc...,goc->ngo...", part.reshape(grouped), weight[..., k])
            for k, part in enumerate(met)
        ]
        return sum(parts[1:], parts[0]).reshape(out)

    return run


TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


@executes(ir.ConvolutionTranspose)
def convolution_transpose(op: ir.ConvolutionTranspose, values: Values) -> Function:
    rank = len(op.weight.shape) - 2
    if rank not in TRANSPOSED:
        raise refuse(op, f"transposed convolution over {rank} spatial axes; 1 to 3 can be run")
    function = TRANSPOSED[rank]
    begins, ends = op.pads[:rank], op.pads[rank:]
    strides, dilations, groups = op.strides, op.dilations, op.groups
    extra = tuple(b - e for b, e in zip(begins, ends))
    if all(b >= 0 and 0 <= e < max(s, d) for b, e, s, d in zip(begins, extra, strides, dilations)):
        return lambda x, w: function(x, w, None, strides, begins, extra, groups, dilations)
    crop = last_first([-b for b in begins], [-e for e in ends])
    return lambda x, w: functional.pad(function(x, w, None, strides, 0, 0, groups, dilations), crop)


MAX_POOLS = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
MEAN_POOLS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


@executes(ir.Pool)
def pool(op: ir.Pool, values: Values) -> Function | Kernel:
    match op.fn:
        case "max":
            return _max_pool(op, values)
        case "mean":
            return _mean_pool(op, values)
        case "lp":
            p = op.p
            return _pool_by_taps(
                op, values, 0, lambda parts: torch.linalg.vector_norm(parts, p, dim=0)
            )
    raise AssertionError(f"pool has no {op.fn}")


def _pool_by_taps(op: ir.Pool, values: Values, fill: float, function: Function) -> Function:
    size, out = values[op.x].shape[2:], op.out.shape[2:]
    kernel, strides, dilations = op.kernel, op.strides, op.dilations
    pads = last_first(op.pads[: len(kernel)], overhang(size, op, kernel))

    def run(x: Tensor) -> Tensor:
        x = functional.pad(x, pads, value=fill)
        return function(torch.stack(list(taps(x, out, kernel, strides, dilations))))

    return run


def _fits(op: ir.Pool, size: Ints) -> bool:
    """Whether torch's own padding gives these windows: even pads, at most half a kernel, and no
    window that ends outside."""
    rank = len(op.kernel)
    begins, ends = op.pads[:rank], op.pads[rank:]
    over = overhang(size, op, op.kernel)
    return begins == ends and all(
        0 <= b <= k // 2 and b - s < o <= b
        for b, k, o, s in zip(begins, op.kernel, over, op.strides)
    )


def _max_pool(op: ir.Pool, values: Values) -> Function:
    size, rank, dtype = values[op.x].shape[2:], len(op.kernel), op.out.dtype
    if rank not in MAX_POOLS or not is_floating(dtype):
        lowest = -math.inf if is_floating(dtype) else int(np.iinfo(dtype).min)
        return _pool_by_taps(op, values, lowest, lambda parts: parts.amax(0))
    function, kernel, strides, dilations = (
        MAX_POOLS[rank],
        op.kernel,
        op.strides,
        op.dilations,
    )
    begins = op.pads[:rank]
    if _fits(op, size):
        return lambda x: function(x, kernel, strides, begins, dilations)
    pads = last_first(begins, overhang(size, op, kernel))
    return lambda x: function(
        functional.pad(x, pads, value=-math.inf), kernel, strides, 0, dilations
    )


def _mean_pool(op: ir.Pool, values: Values) -> Function | Kernel:
    size, rank, kernel, strides = values[op.x].shape[2:], len(op.kernel), op.kernel, op.strides
    begins, count_pads = op.pads[:rank], op.count_pads
    plain = rank in MEAN_POOLS and all(d == 1 for d in op.dilations)
    if plain and _fits(op, size):
        function = MEAN_POOLS[rank]
        return lambda x: function(x, kernel, strides, begins, False, count_pads)
    counts = _window_counts(op, size)
    if plain:
        function, pads = MEAN_POOLS[rank], last_first(begins, overhang(size, op, kernel))
        ratio = (math.prod(kernel) / counts).astype(op.out.dtype)
        return Kernel(
            lambda x, ratio: function(functional.pad(x, pads), kernel, strides) * ratio, (ratio,)
        )
    total = _pool_by_taps(op, values, 0, lambda parts: parts.sum(0))
    return Kernel(lambda x, counts: total(x) / counts, (counts.astype(op.out.dtype),))


def _window_counts(op: ir.Pool, size: Ints) -> np.ndarray:
    """How many entries of each window count, [*out]; at least 1."""
    rank, out = len(op.kernel), op.out.shape[2:]
    counts = np.ones((), dtype=np.int64)
    for k in range(rank):
        places = (
            np.arange(out[k])[:, None] * op.strides[k]
            + np.arange(op.kernel[k]) * op.dilations[k]
            - op.pads[k]
        )
        low, high = (-op.pads[k], size[k] + op.pads[rank + k]) if op.count_pads else (0, size[k])
        inside = ((places >= low) & (places < high)).sum(1)
        counts = counts[..., None] * inside
    return np.maximum(counts, 1)


# --- resampling --------------------------------------------------------------------------------


@executes(ir.Resize)
def resize(op: ir.Resize, values: Values) -> Kernel:
    size = list(values[op.x].shape)
    steps: list[Function] = []
    constants: list[np.ndarray] = []
    for axis, array in zip(op.axes, op.matrices, strict=True):
        matrix = array.numpy()
        if (np.count_nonzero(matrix, 1) == 1).all() and (matrix.max(1) == 1).all():
            steps.append(lambda x, index, axis=axis: x.index_select(axis, index))
            constants.append(matrix.argmax(1))
        else:
            steps.append(_along(axis, tuple(size), len(matrix)))
            constants.append(matrix.astype(op.out.dtype))
        size[axis] = len(matrix)

    def run(x: Tensor, *tensors: Tensor) -> Tensor:
        for step, tensor in zip(steps, tensors):
            x = step(x, tensor)
        return x

    return Kernel(run, tuple(constants))


def _along(axis: int, size: Ints, out: int) -> Function:
    """Product with a matrix [out, size[axis]] along one axis."""
    if axis == len(size) - 1:
        return functional.linear
    inner = (*size[: axis + 1], math.prod(size[axis + 1 :]))
    shape = (*size[:axis], out, *size[axis + 1 :])
    return lambda x, matrix: torch.matmul(matrix, x.reshape(inner)).reshape(shape)
