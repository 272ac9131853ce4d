"""Slots move as the arrays they stand for move, and stay strided where a stride can say it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ngc.ir.slots import FIRST_SLOT, ONE, ZERO, Array, Slots, row_major

Move = tuple[Callable[[Slots], Slots], Callable[[np.ndarray], np.ndarray]]


def test_contiguous_slots_count_up_from_the_offset() -> None:
    slots = Slots.contiguous((2, 3), 10)
    assert slots.numpy().tolist() == [[10, 11, 12], [13, 14, 15]]
    assert slots.strides == (3, 1)
    assert (slots.size, slots.ndim) == (6, 2)


def test_a_constant_repeats_one_slot() -> None:
    assert Slots.constant((2, 2), ONE).numpy().tolist() == [[1, 1], [1, 1]]
    assert (ZERO, ONE, FIRST_SLOT) == (0, 1, 2)


def test_a_scalar() -> None:
    assert Slots.contiguous((), 7).numpy().tolist() == 7
    assert Slots.of(np.array(7)) == Slots.contiguous((), 7)


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3)])
def test_empty_arrays(shape: tuple[int, ...]) -> None:
    assert Slots.contiguous(shape, 2).numpy().shape == shape
    assert Slots.of(np.zeros(shape, dtype=np.int64)).numpy().shape == shape


def test_axes_of_size_one_have_no_stride() -> None:
    assert Slots.contiguous((4, 1, 3), 2).strides == (3, 0, 1)
    assert Slots.of(np.arange(3).reshape(1, 3, 1)) == Slots.contiguous((1, 3, 1), 0)


def test_row_major_strides() -> None:
    assert row_major((2, 3, 4)) == (12, 4, 1)
    assert row_major(()) == ()


@pytest.mark.parametrize(
    ("array", "strides"),
    [
        (np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1) + 5, (1, 12, 4)),
        (np.arange(24).reshape(4, 6)[::2, 5::-2], (12, -2)),
        (np.broadcast_to(np.arange(3)[:, None], (3, 2)), (1, 0)),
        (np.array([[4, 4], [4, 4]]), (0, 0)),
    ],
)
def test_a_strided_array_is_found_out(array: np.ndarray, strides: tuple[int, ...]) -> None:
    slots = Slots.of(array)
    assert slots.entries is None
    assert slots.strides == strides
    assert np.array_equal(slots.numpy(), array)


@pytest.mark.parametrize("array", [[0, 1, 3], [[0, 1], [2, 4]], [5, 5, 6]])
def test_any_other_array_is_kept_entry_by_entry(array: list) -> None:
    slots = Slots.of(np.array(array))
    assert slots.entries is not None
    assert slots.numpy().tolist() == array


def test_large_arrays_are_compared_row_by_row() -> None:
    array = np.arange(1 << 20).reshape(1024, 1024)
    assert Slots.of(array) == Slots.contiguous((1024, 1024), 0)
    broken = array.copy()
    broken[1023, 1023] = 0
    assert Slots.of(broken).entries is not None


def test_views_of_a_parameter_stay_views() -> None:
    slots = Slots.contiguous((4, 6), 2)
    assert slots.reshape((2, 2, 6)).transpose((2, 0, 1)).strides == (1, 12, 6)
    assert slots.reshape((24,)).entries is None
    assert slots.transpose((1, 0)).reshape((2, 3, 4)).strides == (3, 1, 6)
    # Reading a transposed array row by row is no longer one step at a time.
    assert slots.transpose((1, 0)).reshape((24,)).entries is not None


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot reshape \(4,\) to \(3,\)"):
        Slots.contiguous((4,), 2).reshape((3,))
    with pytest.raises(ValueError, match=r"cannot expand \(4,\) to \(4, 1\)"):
        Slots.contiguous((4,), 2).expand((4, 1))


@pytest.mark.parametrize("seed", range(200))
def test_chains_of_moves_do_what_numpy_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 5, size=rng.integers(0, 4)))
    array = np.arange(int(np.prod(shape))).reshape(shape) + FIRST_SLOT
    slots = Slots.contiguous(shape, FIRST_SLOT)
    if seed % 4 == 0:  # start from an array without strides
        array = rng.permutation(array.reshape(-1)).reshape(shape)
        slots = Slots.listed(array)
    for _ in range(5):
        on_slots, on_array = random_move(rng, array.shape)
        slots, array = on_slots(slots), on_array(array)
        assert slots.shape == array.shape
        assert np.array_equal(slots.numpy(), array)


def random_move(rng: np.random.Generator, shape: tuple[int, ...]) -> Move:
    """One data movement, as a method of Slots and as numpy has it."""
    match int(rng.integers(5)):
        case 0:
            perm = tuple(rng.permutation(len(shape)).tolist())
            return lambda s: s.transpose(perm), lambda a: a.transpose(perm)
        case 1:
            wide = (2, *(3 if n == 1 else n for n in shape))
            if np.prod(wide) > 2000:
                wide = shape
            return lambda s: s.expand(wide), lambda a: np.broadcast_to(a, wide)
        case 2:
            sizes = tuple(int(rng.integers(1, n + 1)) for n in shape)
            starts = tuple(int(rng.integers(n - k + 1)) for n, k in zip(shape, sizes))
            flips = rng.random(len(shape)) < 0.3
            first = tuple(s + k - 1 if f else s for s, k, f in zip(starts, sizes, flips))
            steps = tuple(-1 if f else 1 for f in flips)
            return (
                lambda s: s.slice(first, steps, sizes),
                lambda a: (
                    a[np.ix_(*(s + d * np.arange(n) for s, d, n in zip(first, steps, sizes)))]
                    if a.ndim
                    else a
                ),
            )
        case 3 if shape:
            axis = int(rng.integers(len(shape)))
            size = [(3,), (2, 2), (1,)][int(rng.integers(3))]
            index = rng.integers(shape[axis], size=size)
            return lambda s: s.along(axis, index), lambda a: np.take(a, index, axis=axis)
    new = random_shape(rng, int(np.prod(shape)))
    return lambda s: s.reshape(new), lambda a: a.reshape(new)


def random_shape(rng: np.random.Generator, size: int) -> tuple[int, ...]:
    """A shape of this many elements."""
    result = []
    for divisor in (2, 3, 2):
        if size % divisor == 0 and rng.random() < 0.7:
            result.append(divisor)
            size //= divisor
    result += [size, *([1] if rng.random() < 0.3 else [])]
    return tuple(int(n) for n in rng.permutation(result))


def test_constant_arrays_compare_by_content() -> None:
    a = Array.of(np.arange(6).reshape(2, 3).T)
    assert a == Array.of(np.array([[0, 3], [1, 4], [2, 5]]))
    assert hash(a) == hash(Array.of(np.array([[0, 3], [1, 4], [2, 5]])))
    assert a != Array.of(np.arange(6).reshape(3, 2))
    assert a.numpy().tolist() == [[0, 3], [1, 4], [2, 5]]
    assert Array.of(np.float32(2.5)).numpy() == 2.5
