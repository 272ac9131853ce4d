"""Index arrays: which neuron holds each element of a tensor.

Elements that differ only in position (pixel, token, example) share a neuron, so an index array
keeps size 1 along such axes, whatever the size of the tensor there: a 224 x 224 map costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ngc.ir import program as ir
from ngc.ir import views
from ngc.ir.program import Ints


@dataclass(frozen=True, eq=False)
class IndexArray:
    """``ids`` broadcasts to ``shape``; it has size 1 along every axis on which it does not vary."""

    shape: Ints
    ids: np.ndarray

    @classmethod
    def of(cls, array: np.ndarray, shape: Sequence[int]) -> IndexArray:
        """Drop the axes along which the array does not vary. It may have size 1 there already."""
        for axis, size in enumerate(array.shape):
            if size > 1:
                first = array.take([0], axis=axis)
                if (array == first).all():
                    array = first
        return cls(tuple(shape), array)

    @classmethod
    def single(cls, shape: Sequence[int], neuron: int) -> IndexArray:
        return cls(tuple(shape), np.full((1,) * len(shape), neuron, dtype=np.int64))

    @property
    def varying(self) -> Ints:
        """Axes along which elements belong to different neurons."""
        return tuple(axis for axis, size in enumerate(self.ids.shape) if size > 1)

    def full(self) -> np.ndarray:
        """Broadcast (not copied) to the shape of the tensor."""
        return np.broadcast_to(self.ids, self.shape)

    def spread(self, axes: Sequence[int]) -> np.ndarray:
        """``ids`` with full size along the given axes."""
        shape = [self.shape[a] if a in axes else size for a, size in enumerate(self.ids.shape)]
        return np.broadcast_to(self.ids, shape)

    def move(self, op: ir.Op) -> IndexArray:
        """What a view operation with one operand does to the index array."""
        match op:
            case ir.Reshape():
                return self.reshape(op.out.shape)
            case ir.Transpose(perm=perm):
                return IndexArray(op.out.shape, self.ids.transpose(perm))
            case ir.Slice(starts=starts, steps=steps):
                picked = [
                    (0, 1, min(n, 1)) if size == 1 else (s, d, n)
                    for s, d, n, size in zip(starts, steps, op.out.shape, self.ids.shape)
                ]
                s, d, n = zip(*picked) if picked else ((), (), ())
                return IndexArray.of(self.ids[views.slices(s, d, n)], op.out.shape)
            case ir.Expand():
                lead = (1,) * (len(op.out.shape) - self.ids.ndim)
                return IndexArray(op.out.shape, self.ids.reshape(lead + self.ids.shape))
            case ir.Take(axis=axis, index=index):
                if self.ids.shape[axis] == 1:
                    return IndexArray(op.out.shape, self.ids)
                return IndexArray.of(np.take(self.ids, index.numpy(), axis=axis), op.out.shape)
            case ir.Select(index=index):
                moved = self.full().reshape(-1)[index.numpy()]
                return IndexArray.of(moved.reshape(op.out.shape), op.out.shape)
        raise AssertionError(f"{op.mnemonic} is not a view of one operand")

    def reshape(self, shape: Ints) -> IndexArray:
        """Only axes that merge with a varying one are written out."""
        if 0 in self.shape:
            return IndexArray(shape, np.zeros((1,) * len(shape), dtype=np.int64))
        sizes = list(self.ids.shape)
        target: list[int] = []
        for old, new in matching_runs(self.shape, shape):
            if all(self.ids.shape[a] == 1 for a in old):
                target += [1] * len(new)
            else:
                for a in old:
                    sizes[a] = self.shape[a]
                target += [shape[a] for a in new]
        moved = np.broadcast_to(self.ids, sizes).reshape(target)
        return IndexArray.of(moved, shape)


def matching_runs(old: Ints, new: Ints) -> list[tuple[list[int], list[int]]]:
    """Shortest runs of axes of equal total size, old beside new."""
    runs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        a: list[int] = []
        b: list[int] = []
        size_a = size_b = 1
        if i < len(old):
            a, size_a, i = [i], old[i], i + 1
        if j < len(new):
            b, size_b, j = [j], new[j], j + 1
        while size_a != size_b:
            if size_a < size_b:
                a.append(i)
                size_a *= old[i]
                i += 1
            else:
                b.append(j)
                size_b *= new[j]
                j += 1
        runs.append((a, b))
    return runs


def rows_of(array: np.ndarray, row_axes: Sequence[int], inner_axes: Sequence[int]) -> np.ndarray:
    """[rows, inner]: the array with ``row_axes`` in front; all other axes must have size 1."""
    rest = [a for a in range(array.ndim) if a not in row_axes and a not in inner_axes]
    moved = array.transpose([*row_axes, *inner_axes, *rest])
    rows = math.prod(array.shape[a] for a in row_axes)
    return moved.reshape(rows, -1)
