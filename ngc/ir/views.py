"""Data movement on numpy arrays: what each view operation of a program does to values.

The same function moves constants, slots of parameters and neuron indices, so that an array of
indices always stays beside the elements it speaks of.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ngc.ir import program as ir


def move(op: ir.Op, *arrays: np.ndarray, fill: Any = None) -> np.ndarray:
    """Apply a view operation. ``fill`` replaces the value a Pad writes."""
    match op:
        case ir.Reshape():
            return arrays[0].reshape(op.out.shape)
        case ir.Transpose(perm=perm):
            return arrays[0].transpose(perm)
        case ir.Slice(starts=starts, steps=steps):
            return arrays[0][slices(starts, steps, op.out.shape)]
        case ir.Expand():
            return np.broadcast_to(arrays[0], op.out.shape)
        case ir.Take(axis=axis, index=index):
            return np.take(arrays[0], index.numpy(), axis=axis)
        case ir.Select(index=index):
            return arrays[0].reshape(-1)[index.numpy()].reshape(op.out.shape)
        case ir.Concat(axis=axis):
            return np.concatenate(arrays, axis=axis)
        case ir.Pad(pads=pads, value=value):
            rank = arrays[0].ndim
            widths = list(zip(pads[:rank], pads[rank:], strict=True))
            return np.pad(arrays[0], widths, constant_values=value if fill is None else fill)
    raise AssertionError(f"{op.mnemonic} is not a view")


def slices(
    starts: tuple[int, ...], steps: tuple[int, ...], sizes: tuple[int, ...]
) -> tuple[slice, ...]:
    """Python slices that pick ``start + step * i`` for i < size on every axis."""
    result = []
    for start, step, size in zip(starts, steps, sizes, strict=True):
        stop = start + step * size
        # A negative stop would count from the end: None runs through the first entry.
        result.append(slice(start, None if stop < 0 else stop, step) if size else slice(0, 0))
    return tuple(result)
