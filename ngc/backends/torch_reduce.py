"""Kernels that work along axes: reductions, normalisation, softmax, running sums, sorting."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ngc.backends.torch_kernels import Function, Kernel, Values, executes, is_floating
from ngc.backends.torch_moves import last_first
from ngc.ir import program as ir

# --- reductions --------------------------------------------------------------------------------

# fn -> function of x, axes and keepdims.
REDUCTIONS: dict[str, Function] = {
    "sum": torch.sum,
    "mean": torch.mean,
    "max": torch.amax,
    "min": torch.amin,
    "l1": lambda x, axes, keep: torch.sum(torch.abs(x), axes, keep),
    "l2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "sum_square": lambda x, axes, keep: torch.sum(x * x, axes, keep),
    "log_sum": lambda x, axes, keep: torch.log(torch.sum(x, axes, keep)),
    "log_sum_exp": torch.logsumexp,
}


@executes(ir.Reduce)
def reduce(op: ir.Reduce, values: Values) -> Function:
    axes, keep, x = op.axes, op.keepdims, values[op.x]
    if not axes:
        return lambda x: x
    if op.fn.startswith("arg"):
        return _argument(op, x.shape[axes[0]])
    if op.fn in ("max", "min") and any(x.shape[axis] == 0 for axis in axes):
        return _extreme_of_nothing(op)
    if op.fn == "prod":
        return lambda x: _product(x, axes, keep)
    function = REDUCTIONS[op.fn]
    if op.fn in ("mean", "l2", "log_sum", "log_sum_exp") and not is_floating(x.dtype):
        return lambda x: function(x.double(), axes, keep)
    return lambda x: function(x, axes, keep)


def _argument(op: ir.Reduce, size: int) -> Function:
    (axis,), keep = op.axes, op.keepdims
    function = torch.argmax if op.fn.startswith("argmax") else torch.argmin
    if op.fn.endswith("_last"):
        return lambda x: size - 1 - function(x.flip(axis), axis, keep)
    return lambda x: function(x, axis, keep)


def _extreme_of_nothing(op: ir.Reduce) -> Function:
    """The neutral element, where there is nothing to take the maximum or minimum of."""
    shape, sign = op.out.shape, -1 if op.fn == "max" else 1
    if is_floating(op.out.dtype):
        return lambda x: x.new_full(shape, sign * math.inf)
    if op.out.dtype == "bool":
        return lambda x: x.new_full(shape, sign > 0)
    info = np.iinfo(op.out.dtype)
    return lambda x: x.new_full(shape, int(info.min if sign < 0 else info.max))


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keep)
    return x


# --- normalisation -----------------------------------------------------------------------------


@executes(ir.Normalise)
def normalise(op: ir.Normalise, values: Values) -> Function:
    axes, epsilon, shape = op.axes, op.epsilon, op.out.shape
    match op.fn:
        case "standard" if sorted(axes) == list(range(len(shape) - len(axes), len(shape))):
            last = shape[len(shape) - len(axes) :]
            return lambda x: functional.layer_norm(x, last, eps=epsilon)
        case "standard":
            return lambda x: _standard(x, axes, epsilon)
        case "rms":
            return lambda x: x * torch.rsqrt((x * x).mean(axes, True) + epsilon)
        case "l1" | "l2":
            order = int(op.fn[1])
            return lambda x: _unit(x, order, axes, epsilon)
        case "lrn":
            return _local_response(op)
    raise AssertionError(f"normalise has no {op.fn}")


def _standard(x: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, True)
    return centred * torch.rsqrt((centred * centred).mean(axes, True) + epsilon)


def _unit(x: Tensor, order: int, axes: tuple[int, ...], epsilon: float) -> Tensor:
    norm = torch.linalg.vector_norm(x, order, axes, True)
    if epsilon == 0:
        return x / torch.where(norm == 0, 1, norm)
    return x / norm.clamp(min=epsilon)


def _local_response(op: ir.Normalise) -> Function:
    alpha, beta, bias, window = op.a
    size, axis = int(window), op.axes[0]
    length, rank = op.out.shape[axis], len(op.out.shape)
    # ONNX LRN: the window of an even size reaches one further after the centre than before it.
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    pads = last_first(
        [before if k == axis else 0 for k in range(rank)],
        [after if k == axis else 0 for k in range(rank)],
    )

    def run(x: Tensor) -> Tensor:
        squares = functional.pad(x * x, pads)
        total = squares.narrow(axis, 0, length)
        for k in range(1, size):
            total = total + squares.narrow(axis, k, length)
        return x / (bias + alpha / size * total) ** beta

    return run


@executes(ir.Softmax)
def softmax(op: ir.Softmax, values: Values) -> Function | Kernel:
    axis, shape = op.axis, op.out.shape
    match op.fn:
        case "softmax":
            return lambda x: torch.softmax(x, axis)
        case "log_softmax":
            return lambda x: torch.log_softmax(x, axis)
        case "hardmax":
            along = [-1 if k == axis else 1 for k in range(len(shape))]
            places = np.arange(shape[axis]).reshape(along)
            return Kernel(lambda x, places: places == torch.argmax(x, axis, True), (places,))
    raise AssertionError(f"softmax has no {op.fn}")


# --- along one axis, in order ------------------------------------------------------------------


@executes(ir.Cumulate)
def cumulate(op: ir.Cumulate, values: Values) -> Function:
    axis, size, rank = op.axis, op.out.shape[op.axis], len(op.out.shape)
    exclusive, reverse = op.exclusive, op.reverse
    function = torch.cumsum if op.fn == "sum" else torch.cumprod
    neutral = 0 if op.fn == "sum" else 1
    pads = last_first([int(k == axis) for k in range(rank)], [0] * rank)

    def run(x: Tensor) -> Tensor:
        x = x.flip(axis) if reverse else x
        if exclusive and size:
            x = functional.pad(x, pads, value=neutral).narrow(axis, 0, size)
        x = function(x, axis)
        return x.flip(axis) if reverse else x

    return run


@executes(ir.TopK)
def top_k(op: ir.TopK, values: Values) -> Function:
    axis, count, largest = op.axis, op.out.shape[op.axis], op.largest
    which = 0 if op.result == "values" else 1

    def run(x: Tensor) -> Tensor:
        # torch.topk breaks ties either way; ONNX takes the lower index first.
        found = torch.sort(x, dim=axis, descending=largest, stable=True)
        return found[which].narrow(axis, 0, count)

    return run
