"""Index arrays move exactly as full-size numpy arrays do, and stay small where nothing varies."""

from __future__ import annotations

import numpy as np
import pytest

from ngc.ir import program as ir
from ngc.ir import views
from ngc.ir.index import IndexArray, rows_of
from ngc.ir.slots import Array
from tests.ir.test_slots import random_shape


def channels(shape: tuple[int, ...], axis: int = 1) -> IndexArray:
    """Neurons along one axis."""
    sizes = [n if a == axis else 1 for a, n in enumerate(shape)]
    return IndexArray(shape, np.arange(shape[axis]).reshape(sizes))


def reshape(shape: tuple[int, ...]) -> ir.Reshape:
    return ir.Reshape(out=ir.Value("y", shape), x="x")


def test_a_map_costs_nothing() -> None:
    index = channels((1, 3, 224, 224))
    assert index.ids.size == 3
    assert index.varying == (1,)
    moved = index.move(ir.Transpose(out=ir.Value("y", (1, 224, 224, 3)), x="x", perm=(0, 2, 3, 1)))
    moved = moved.move(reshape((1, 224 * 224, 3)))
    assert moved.ids.shape == (1, 1, 3)


def test_axes_that_do_not_vary_are_dropped() -> None:
    array = np.broadcast_to(np.arange(3)[None, :, None], (2, 3, 4))
    assert IndexArray.of(array, (2, 3, 4)).ids.shape == (1, 3, 1)
    assert IndexArray.single((5, 6), 9).full().tolist() == [[9] * 6] * 5


def test_flatten_of_channels_first() -> None:
    flat = channels((1, 2, 1, 3)).move(reshape((1, 6)))
    assert flat.ids.tolist() == [[0, 0, 0, 1, 1, 1]]


def test_flatten_of_channels_last() -> None:
    flat = channels((1, 1, 3, 2), axis=3).move(reshape((1, 6)))
    assert flat.ids.tolist() == [[0, 1, 0, 1, 0, 1]]


def test_heads_split_from_features() -> None:
    split = channels((1, 5, 6), axis=2).move(reshape((1, 5, 3, 2)))
    assert split.ids.tolist() == [[[[0, 1], [2, 3], [4, 5]]]]


def test_repeated_heads() -> None:
    """Key heads of grouped-query attention: Unsqueeze, Expand, Reshape."""
    keys = channels((1, 2, 5), axis=1).move(reshape((1, 2, 1, 5)))
    wide = keys.move(ir.Expand(out=ir.Value("y", (1, 2, 3, 5)), x="x"))
    assert wide.ids.size == 2
    assert wide.move(reshape((1, 6, 5))).ids.reshape(-1).tolist() == [0, 0, 0, 1, 1, 1]


def test_positions_merge_without_being_written_out() -> None:
    index = channels((2, 3, 100, 100)).move(reshape((2, 3, 10_000)))
    assert index.ids.shape == (1, 3, 1)


def test_empty_tensors() -> None:
    index = IndexArray((0, 3), np.arange(3)[None])
    assert index.move(reshape((3, 0))).shape == (3, 0)


def test_full_size_along_some_axes() -> None:
    assert channels((2, 3, 4)).spread([2]).shape == (1, 3, 4)


def test_rows() -> None:
    ids = np.arange(6).reshape(1, 2, 3, 1)
    assert rows_of(ids, [2], [1]).tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("seed", range(300))
def test_chains_of_views_do_what_numpy_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 5, size=rng.integers(1, 5)))
    # Neurons along a random choice of axes.
    sizes = tuple(n if rng.random() < 0.5 else 1 for n in shape)
    ids = rng.permutation(int(np.prod(sizes))).reshape(sizes)
    index, array = IndexArray(shape, ids), np.broadcast_to(ids, shape)
    for _ in range(6):
        op = random_view(rng, array.shape)
        index, array = index.move(op), views.move(op, array)
        assert index.shape == op.out.shape == array.shape
        assert np.array_equal(index.full(), array), op


def random_view(rng: np.random.Generator, shape: tuple[int, ...]) -> ir.Op:
    """A view operation with one operand, of any kind."""
    rank = len(shape)
    match int(rng.integers(6)):
        case 0:
            perm = tuple(rng.permutation(rank).tolist())
            return ir.Transpose(out=ir.Value("y", tuple(shape[p] for p in perm)), x="x", perm=perm)
        case 1:
            sizes = tuple(int(rng.integers(1, n + 1)) for n in shape)
            starts = tuple(int(rng.integers(n - k + 1)) for n, k in zip(shape, sizes))
            flips = rng.random(rank) < 0.3
            return ir.Slice(
                out=ir.Value("y", sizes),
                x="x",
                starts=tuple(s + k - 1 if f else s for s, k, f in zip(starts, sizes, flips)),
                steps=tuple(-1 if f else 1 for f in flips),
            )
        case 2 if np.prod(shape) < 500:
            wide = tuple(3 if n == 1 and rng.random() < 0.5 else n for n in shape)
            return ir.Expand(out=ir.Value("y", (2, *wide) if rng.random() < 0.5 else wide), x="x")
        case 3 if rank:
            axis = int(rng.integers(rank))
            index = rng.integers(shape[axis], size=3)
            out = (*shape[:axis], 3, *shape[axis + 1 :])
            return ir.Take(out=ir.Value("y", out), x="x", axis=axis, index=Array.of(index))
        case 4:
            index = rng.integers(int(np.prod(shape)), size=(3, 2))
            return ir.Select(out=ir.Value("y", (3, 2)), x="x", index=Array.of(index))
    return reshape(random_shape(rng, int(np.prod(shape))))
