"""Colours: 64-bit numbers that tell things apart. Equal things get equal colours in every run."""

from __future__ import annotations

import hashlib

import numpy as np


def colour(*parts: object) -> np.uint64:
    """The colour of plain values (numbers, strings, tuples of them)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return np.frombuffer(digest, dtype=np.uint64)[0]


@np.errstate(over="ignore")  # arithmetic is modulo 2^64
def mixed(*arrays: np.ndarray | np.uint64 | int) -> np.ndarray:
    """Elementwise colour of the tuples of entries of arrays that broadcast."""
    result = np.full((), 0x243F6A8885A308D3, dtype=np.uint64)
    for array in arrays:
        # Converting a negative integer wraps around, which is as good a name for it as any.
        part = np.asarray(array).astype(np.uint64)
        result = _finalise(_finalise(part + np.uint64(0x9E3779B97F4A7C15)) ^ result * _ODD)
    return result


_ODD = np.uint64(0xD1342543DE82EF95)


def _finalise(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: spreads every bit over all of them."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def summed(keys: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Sum of the values of each key below ``count``, modulo 2^64."""
    result = np.zeros(count, dtype=np.uint64)
    if len(keys):
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        result[ordered[starts]] = np.add.reduceat(values[order], starts)
    return result


def folded(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The array with one colour in place of all its entries, in order, along the axes."""
    for axis in axes:
        if array.shape[axis] > 1:
            places = np.arange(array.shape[axis]).reshape([-1] + [1] * (array.ndim - 1 - axis))
            array = mixed(array, places).sum(axis=axis, keepdims=True, dtype=np.uint64)
    return array


def classes(*keys: np.ndarray) -> np.ndarray:
    """Number of the class of each place: equal where all keys are equal."""
    if len(keys) == 1:
        return np.unique(keys[0], return_inverse=True)[1].reshape(-1)
    order = np.lexsort(keys)
    new = np.zeros(len(order), dtype=bool)
    for key in keys:
        ordered = key[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    result = np.empty(len(order), dtype=np.int64)
    result[order] = np.cumsum(new)
    return result
