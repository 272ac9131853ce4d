"""What the torch executor is made of: the kernel registry, dtypes, and reading parameter operands.

A kernel is a function of tensors: the values an operation reads, then its parameter operands (both
in field order), then its own constant tensors. ``@executes`` registers one factory per operation
class; everything that depends only on the operation is decided there, once. Kernels must work under
``torch.func`` transforms: no control flow on data, no ``.item()``, nothing in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from ngc.errors import UnsupportedOp
from ngc.ir import program as ir
from ngc.ir.program import Value
from ngc.ir.slots import Slots

Function: TypeAlias = Callable[..., Tensor]
Values: TypeAlias = Mapping[str, Value]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Kernel:
    """A function with constant arrays that it takes last, as tensors on the device in use."""

    function: Function
    constants: tuple[np.ndarray, ...] = ()


KERNELS: dict[type[ir.Op], Callable[[Any, Values], Function | Kernel]] = {}


def executes(op_class: type[ir.Op]) -> Callable[[F], F]:
    """Register ``factory(op, values) -> kernel``; ``values`` holds the shape and dtype of every
    value of the program."""

    def register(factory: F) -> F:
        if op_class in KERNELS:
            raise AssertionError(f"two kernels for {op_class.mnemonic}")
        KERNELS[op_class] = factory
        return factory

    return register


def kernel_of(op: ir.Op, values: Values) -> Kernel:
    """The kernel of one operation."""
    made = KERNELS[type(op)](op, values)
    return made if isinstance(made, Kernel) else Kernel(made)


def refuse(op: ir.Op, message: str) -> UnsupportedOp:
    return UnsupportedOp(op.mnemonic, message, where=op.origin or op.out.name)


DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name)
    for name in (
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
}
# torch stores these but computes almost nothing in them; kernels see int64 instead.
STORED_ONLY = (torch.uint16, torch.uint32, torch.uint64)


def is_floating(dtype: str) -> bool:
    return dtype in ("float16", "bfloat16", "float32", "float64")


def number(value: float, dtype: str) -> float | int:
    """A plain number for arithmetic in ``dtype``: torch would turn int64 times 2.0 into float32."""
    whole = not is_floating(dtype) and np.isfinite(value) and float(value).is_integer()
    return int(value) if whole else float(value)


# --- parameter operands ----------------------------------------------------------------------


def reader(slots: Slots, length: int) -> Kernel:
    """Function from a vector [length] to the array of slots: a view of it wherever one exists.

    Views are made of narrow, view and permute, which torch.func can batch (as_strided it cannot,
    nor the derivative of unfold). Only entries without a regular pattern are gathered.
    """
    if slots.size == 0:
        return Kernel(lambda w: w.narrow(0, 0, 0).view(slots.shape))
    view = None if slots.entries is not None else _strided_view(slots, length)
    if view is not None:
        return Kernel(view)
    return Kernel(
        lambda w, index: w.index_select(0, index).view(slots.shape), (slots.numpy().reshape(-1),)
    )


def _strided_view(slots: Slots, length: int) -> Callable[[Tensor], Tensor] | None:
    axes = [k for k in range(slots.ndim) if slots.strides[k] != 0 and slots.shape[k] > 1]
    flipped = [k for k in axes if slots.strides[k] < 0]
    offset = slots.offset + sum(slots.strides[k] * (slots.shape[k] - 1) for k in flipped)
    axes.sort(key=lambda k: -abs(slots.strides[k]))
    runs: list[tuple[int, int]] = []  # (size, step), neighbours that advance by one step merged
    for k in axes:
        size, step = slots.shape[k], abs(slots.strides[k])
        if runs and runs[-1][1] == size * step:
            runs[-1] = (runs[-1][0] * size, step)
        else:
            runs.append((size, step))
    sorted_shape = tuple(slots.shape[k] for k in axes)
    rest = [k for k in range(slots.ndim) if k not in axes]
    perm = tuple((axes + rest).index(k) for k in range(slots.ndim))
    in_order = perm == tuple(range(slots.ndim))
    full_shape = sorted_shape + (1,) * len(rest)
    expanded = any(slots.shape[k] != 1 for k in rest)

    def arrange(picked: Tensor) -> Tensor:
        result = picked.view(full_shape)
        if not in_order:
            result = result.permute(perm)
        if flipped:
            result = result.flip(flipped)
        return result.expand(slots.shape) if expanded else result

    if len(runs) <= 1 and (not runs or runs[0][1] == 1):
        size = runs[0][0] if runs else 1
        whole = offset == 0 and size == length
        if flipped or expanded or not in_order:
            return arrange if whole else lambda w: arrange(w.narrow(0, offset, size))
        if whole:
            return lambda w: w.view(slots.shape)
        return lambda w: w.narrow(0, offset, size).view(slots.shape)
    if not _nested(runs):
        return None
    return lambda w: arrange(_pick(w, offset, runs))


def _nested(runs: list[tuple[int, int]]) -> bool:
    """Whether each step jumps over all that the later runs span."""
    span = 1
    for size, step in reversed(runs):
        if step < span:
            return False
        span += (size - 1) * step
    return True


def _pick(x: Tensor, offset: int, runs: list[tuple[int, int]]) -> Tensor:
    """Axes ``runs`` out of the last axis of x, from ``offset`` on."""
    (size, step), rest = runs[0], runs[1:]
    if not rest:
        return x.narrow(-1, offset, (size - 1) * step + 1)[..., ::step]
    # Rows of length ``step``; they start earlier where the last one would end outside x.
    start = min(offset, x.shape[-1] - size * step)
    if start >= 0:
        rows = x.narrow(-1, start, size * step).unflatten(-1, (size, step))
        return _pick(rows, offset - start, rest)
    # No room for whole rows: the last one by itself.
    last = x.narrow(-1, offset + (size - 1) * step, x.shape[-1] - offset - (size - 1) * step)
    parts = [_pick(last, 0, rest).unsqueeze(x.ndim - 1)]
    if size > 1:
        head = x.narrow(-1, offset, (size - 1) * step).unflatten(-1, (size - 1, step))
        parts.insert(0, _pick(head, 0, rest))
    return torch.cat(parts, x.ndim - 1)
