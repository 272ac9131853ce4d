"""Slots: which scalar of which parameter stands at each entry of an array.

A slot is one integer. ``ZERO`` and ``ONE`` are the constants 0 and 1; the entries of the
parameters follow, parameter after parameter, in row-major order. A weight vector of a program is
therefore ``[0, 1, *parameters]``, and an array of slots is a gather from it.

Nearly every array of slots is a strided view of one parameter, so it is kept as offset and
strides; only what cannot be written so (a concatenation, say) is kept entry by entry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

ZERO = 0
ONE = 1
FIRST_SLOT = 2


@dataclass(frozen=True, slots=True)
class Array:
    """An immutable constant array that compares by content."""

    shape: tuple[int, ...]
    dtype: str
    data: bytes

    @classmethod
    def of(cls, array: np.ndarray) -> Array:
        array = np.ascontiguousarray(array) if array.ndim else array
        return cls(tuple(array.shape), str(array.dtype), array.tobytes())

    def numpy(self) -> np.ndarray:
        return np.frombuffer(self.data, dtype=np.dtype(self.dtype)).reshape(self.shape)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a contiguous array of this shape."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


@dataclass(frozen=True, slots=True)
class Slots:
    """An array of slots: ``offset + sum_k strides[k] * i_k``, or ``entries`` one by one.

    Axes of size 1 have stride 0, so that equal arrays compare equal.
    """

    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...]
    entries: Array | None = None

    @classmethod
    def strided(cls, shape: tuple[int, ...], offset: int, strides: tuple[int, ...]) -> Slots:
        strides = tuple(0 if size == 1 else step for size, step in zip(shape, strides, strict=True))
        return cls(tuple(shape), int(offset), strides)

    @classmethod
    def contiguous(cls, shape: tuple[int, ...], offset: int) -> Slots:
        return cls.strided(tuple(shape), offset, row_major(tuple(shape)))

    @classmethod
    def constant(cls, shape: tuple[int, ...], slot: int) -> Slots:
        return cls(tuple(shape), slot, (0,) * len(shape))

    @classmethod
    def of(cls, array: np.ndarray) -> Slots:
        """The array in strided form where it has one (checked entry by entry)."""
        if array.size == 0:
            return cls(tuple(array.shape), 0, (0,) * array.ndim)
        first = array[(0,) * array.ndim]
        steps = []
        for axis, size in enumerate(array.shape):
            second = tuple(1 if a == axis else 0 for a in range(array.ndim))
            steps.append(int(array[second]) - int(first) if size > 1 else 0)
        candidate = cls(tuple(array.shape), int(first), tuple(steps))
        if candidate._agrees(array):
            return candidate
        return cls.listed(array)

    @classmethod
    def listed(cls, array: np.ndarray) -> Slots:
        """The array entry by entry, as it must be where it speaks of several parameters."""
        return cls(tuple(array.shape), 0, (0,) * array.ndim, Array.of(array.astype(np.int64)))

    def _agrees(self, array: np.ndarray) -> bool:
        if array.ndim == 0 or array.size < 1 << 20:
            return bool(np.array_equal(self.numpy(), array))
        # Large arrays are compared one leading index at a time: no second full array.
        rest = Slots(self.shape[1:], 0, self.strides[1:]).numpy()
        step = self.strides[0]
        return all(
            np.array_equal(rest + (self.offset + i * step), array[i]) for i in range(len(array))
        )

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def numpy(self) -> np.ndarray:
        """The slots as int64, row-major."""
        if self.entries is not None:
            return self.entries.numpy()
        result = np.full((), self.offset, dtype=np.int64)
        for axis, (size, step) in enumerate(zip(self.shape, self.strides, strict=True)):
            shape = [1] * len(self.shape)
            shape[axis] = size
            result = result + (np.arange(size, dtype=np.int64) * step).reshape(shape)
        # ascontiguousarray makes a scalar one-dimensional.
        return np.ascontiguousarray(result).reshape(self.shape)

    # Data movement. Each falls back to the entries where strides cannot express the result.

    def transpose(self, perm: tuple[int, ...]) -> Slots:
        if self.entries is not None:
            return Slots.of(self.numpy().transpose(perm))
        return Slots(
            tuple(self.shape[p] for p in perm), self.offset, tuple(self.strides[p] for p in perm)
        )

    def expand(self, shape: tuple[int, ...]) -> Slots:
        """Broadcast, as numpy does."""
        if self.entries is not None:
            return Slots.of(np.broadcast_to(self.numpy(), shape))
        if np.broadcast_shapes(self.shape, shape) != tuple(shape):
            raise ValueError(f"cannot expand {self.shape} to {shape}")
        lead = len(shape) - self.ndim
        return Slots(tuple(shape), self.offset, (0,) * lead + self.strides)

    def slice(
        self, starts: tuple[int, ...], steps: tuple[int, ...], sizes: tuple[int, ...]
    ) -> Slots:
        if self.entries is not None:
            picked = (s + d * np.arange(n) for s, d, n in zip(starts, steps, sizes, strict=True))
            return Slots.of(self.numpy()[np.ix_(*picked)])
        if 0 in sizes:
            return Slots.constant(sizes, 0)
        offset = self.offset + sum(a * b for a, b in zip(self.strides, starts, strict=True))
        return Slots.strided(sizes, offset, tuple(a * b for a, b in zip(self.strides, steps)))

    def along(self, axis: int, index: np.ndarray) -> Slots:
        """Entries ``index`` along one axis; the axes of ``index`` take its place."""
        picked = Slots.of(index)
        shape = (*self.shape[:axis], *picked.shape, *self.shape[axis + 1 :])
        if self.entries is not None or picked.entries is not None or picked.size == 0:
            return Slots.of(np.take(self.numpy(), index, axis=axis))
        step = self.strides[axis]
        inner = tuple(step * s for s in picked.strides)
        strides = (*self.strides[:axis], *inner, *self.strides[axis + 1 :])
        return Slots.strided(shape, self.offset + step * picked.offset, strides)

    def reshape(self, shape: tuple[int, ...]) -> Slots:
        shape = tuple(shape)
        if math.prod(shape) != self.size:
            raise ValueError(f"cannot reshape {self.shape} to {shape}")
        if self.entries is not None or self.size == 0:
            return Slots.of(self.numpy().reshape(shape))
        strides = _reshaped_strides(self.shape, self.strides, shape)
        if strides is not None:
            return Slots.strided(shape, self.offset, strides)
        return Slots.of(self.numpy().reshape(shape))


def _reshaped_strides(
    old: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Strides of the reshaped view, or None where it is not a strided view."""
    # Merge neighbouring old axes into runs that advance by one constant step.
    runs: list[list[int]] = []  # [size, step of the last axis]
    for size, step in zip(old, strides, strict=True):
        if size == 1:
            continue
        if runs and runs[-1][1] == size * step:
            runs[-1] = [runs[-1][0] * size, step]
        else:
            runs.append([size, step])
    result: list[int] = []
    run = len(runs) - 1
    left = runs[run][0] if runs else 1
    step = runs[run][1] if runs else 0
    for size in reversed(new):
        if size == 1:
            result.append(0)
            continue
        if left == 1:
            run -= 1
            if run < 0:
                return None
            left, step = runs[run]
        if left % size:
            return None
        result.append(step)
        left //= size
        step *= size
    return tuple(reversed(result))
