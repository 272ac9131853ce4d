"""Text forms of the two array types: constant arrays and arrays of slots.

====================================  ==========================================================
``float32[3]{1.0,nan,-2.5}``          a constant array of up to 64 entries
``float32[64,64]z"..."``              a larger one: base 85 of its bytes, deflated
``@fc.weight``                        all of a parameter, as it is
``@fc.weight{[4,3] offset=0 strides=[1,4]}``  a strided view; offset relative to the parameter
``#0[3]`` ``#1[2,2]``                 the constant 0 or 1 everywhere
``#{[6] 2..4,0*2,9}``                 slots one by one: runs ``first..last[:step]``, ``slot*count``
``#{[6] offset=2 strides=[1]}``       any other strided array
====================================  ==========================================================
"""

from __future__ import annotations

import base64
import bisect
import hashlib
import math
import re
import zlib
from collections.abc import Sequence

import numpy as np

from ngc.errors import BudgetError, ModelError
from ngc.ir.cursor import Cursor, quoted
from ngc.ir.program import Ints, Param
from ngc.ir.slots import ONE, ZERO, Array, Slots

MAX_INLINE = 64
MAX_RUNS = 256
# Text may come from strangers: a few characters must not allocate more than this.
MAX_BYTES = 1 << 31

SLOT = re.compile(r"-?[0-9]{1,18}")


def integers(values: Sequence[int]) -> str:
    return f"[{','.join(str(int(v)) for v in values)}]"


# --- constant arrays -------------------------------------------------------------------------


def print_array(array: Array, digest: bool = False) -> str:
    """``digest``: a large array by its hash alone (not for reading back)."""
    head = f"{quoted(array.dtype)}{integers(array.shape)}"
    if math.prod(array.shape) <= MAX_INLINE:
        inline = _inline(array)
        if inline is not None:
            return head + inline
    if digest:
        return f'{head}h"{hashlib.sha256(array.data).hexdigest()}"'
    return f'{head}z"{base64.b85encode(zlib.compress(array.data, 6)).decode("ascii")}"'


def _inline(array: Array) -> str | None:
    """The entries, where they read back to the same bytes."""
    try:
        values = array.numpy().reshape(-1)
    except (TypeError, ValueError):
        return None
    match values.dtype.kind:
        case "b":
            words = ["true" if v else "false" for v in values]
        case "i" | "u":
            words = [str(int(v)) for v in values]
        case "f":
            words = [repr(float(str(v))) for v in values]
        case _:
            return None
    text = "{" + ",".join(words) + "}"
    try:
        same = _read_inline(Cursor(text, 0), np.dtype(array.dtype)) == array.data
    except ModelError:
        return None
    return text if same else None


def _read_inline(c: Cursor, dtype: np.dtype) -> bytes:
    start = c.at
    match dtype.kind:
        case "b":
            values: list[object] = list(c.many("{", "}", c.boolean))
        case "i" | "u":
            values = list(c.many("{", "}", c.integer))
        case "f":
            values = [float(text) for text in c.many("{", "}", c.number_text)]
        case _:
            raise c.error(f"compressed entries of {dtype}")
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype=dtype).tobytes()
    except (OverflowError, ValueError):
        c.at = start
        raise c.error(f"entries of {dtype}") from None


def read_array(c: Cursor) -> Array:
    name = c.name("a dtype")
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError):
        raise ModelError(f"unknown dtype {name!r}", where=c.where) from None
    if dtype.hasobject or dtype.names or not dtype.itemsize:
        raise ModelError(f"arrays of {name!r} are not allowed", where=c.where)
    shape = read_shape(c, dtype.itemsize)
    size = math.prod(shape) * dtype.itemsize
    if c.take("z"):
        data = _inflated(c, c.string("base 85 of the entries"), size)
    else:
        data = _read_inline(c, dtype)
    if len(data) != size:
        found = len(data) // dtype.itemsize
        message = f"{found} entries for an array of shape {integers(shape)}"
        raise ModelError(message, where=c.where)
    return Array(shape, name, data)


def read_shape(c: Cursor, itemsize: int = 8) -> Ints:
    """The shape of an array that is about to be allocated."""
    shape = c.integers()
    if any(n < 0 for n in shape):
        raise ModelError(f"negative size in {integers(shape)}", where=c.where)
    if math.prod(shape) * itemsize > MAX_BYTES:
        message = f"an array of shape {integers(shape)} is larger than {MAX_BYTES:,} bytes"
        raise BudgetError(message, where=c.where)
    return shape


def _inflated(c: Cursor, text: str, size: int) -> bytes:
    """At most ``size + 1`` bytes, whatever the stream says."""
    try:
        return zlib.decompressobj().decompress(base64.b85decode(text), size + 1)
    except (ValueError, zlib.error):
        raise ModelError("entries are not base 85 of a deflated array", where=c.where) from None


# --- arrays of slots -------------------------------------------------------------------------


def print_slots(slots: Slots, params: Sequence[Param], digest: bool = False) -> str:
    shape = integers(slots.shape)
    if slots.entries is not None:
        entries = slots.entries.numpy().reshape(-1)
        runs = _runs(entries)
        if runs is None:
            return f"#{{{shape} {print_array(slots.entries, digest)}}}"
        return f"#{{{shape} {','.join(runs)}}}"
    if slots.offset in (ZERO, ONE) and not any(slots.strides):
        return f"#{slots.offset}{shape}"
    where, offset = "#", slots.offset
    k = bisect.bisect_right(params, offset, key=lambda param: param.offset) - 1
    if k >= 0:
        param = params[k]
        if slots == Slots.contiguous(param.shape, param.offset):
            return f"@{quoted(param.name)}"
        if offset < param.offset + param.size:
            where, offset = f"@{quoted(param.name)}", offset - param.offset
    return f"{where}{{{shape} offset={offset} strides={integers(slots.strides)}}}"


def _runs(entries: np.ndarray) -> list[str] | None:
    """The entries as runs of constant step; None where there would be too many."""
    if not entries.size:
        return []
    steps = np.diff(entries)
    breaks = np.flatnonzero(np.diff(steps)) + 1
    if len(breaks) > 2 * MAX_RUNS:
        return None
    words: list[str] = []
    begin = 0  # first entry not yet written
    for end in breaks.tolist():  # the last entry of each stretch of equal steps
        if end - begin >= 2:
            words.append(_run(entries[begin : end + 1]))
            begin = end + 1
        else:  # too short to be a run: its last entry may begin the next one
            words += [str(int(v)) for v in entries[begin:end]]
            begin = end
    rest = entries[begin:]
    words += [_run(rest)] if len(rest) >= 3 else [str(int(v)) for v in rest]
    return words if len(words) <= MAX_RUNS else None


def _run(entries: np.ndarray) -> str:
    """Three entries or more, of constant step."""
    first, last, step = int(entries[0]), int(entries[-1]), int(entries[1]) - int(entries[0])
    if step == 0:
        return f"{first}*{len(entries)}"
    return f"{first}..{last}" + (f":{step}" if step != 1 else "")


def read_slots(c: Cursor, params: dict[str, Param]) -> Slots:
    if c.take("@"):
        return _read_view(c, params)
    if not c.take("#"):
        raise c.error("'@' (a parameter) or '#' (slots)")
    if not c.take("{"):
        slot = c.integer()
        if slot not in (ZERO, ONE):
            raise ModelError(f"slot {slot} is not one of the constants 0 and 1", where=c.where)
        return Slots.constant(c.integers(), slot)
    shape = read_shape(c)
    c.expect(" ")
    if c.take("offset="):
        result = _read_strided(c, shape, 0)
    elif c.line.startswith("int64[", c.at):
        result = Slots(shape, 0, (0,) * len(shape), read_array(c))
    else:
        result = _read_entries(c, shape)
    c.expect("}")
    return result


def _read_view(c: Cursor, params: dict[str, Param]) -> Slots:
    name = c.name("the name of a parameter")
    if name not in params:
        raise ModelError(f"no parameter @{quoted(name)} is declared above", where=c.where)
    param = params[name]
    if not c.take("{"):
        return Slots.contiguous(param.shape, param.offset)
    shape = c.integers()
    c.expect(" offset=")
    result = _read_strided(c, shape, param.offset)
    c.expect("}")
    return result


def _read_strided(c: Cursor, shape: Ints, base: int) -> Slots:
    offset = c.integer()
    c.expect(" strides=")
    strides = c.integers()
    if len(strides) != len(shape):
        message = f"{len(strides)} strides for {len(shape)} axes"
        raise ModelError(message, where=c.where)
    return Slots(shape, base + offset, strides)


def _read_entries(c: Cursor, shape: Ints) -> Slots:
    size = math.prod(shape)
    pieces: list[np.ndarray] = []
    left = size
    while left >= 0 and not c.line.startswith("}", c.at):
        if pieces:
            c.expect(",")
        first, count, step = _read_run(c)
        left -= count
        if left >= 0:
            pieces.append(first + step * np.arange(count, dtype=np.int64))
    if left:
        message = f"{'too many' if left < 0 else 'too few'} slots for shape {integers(shape)}"
        raise ModelError(message, where=c.where)
    entries = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)
    return Slots(shape, 0, (0,) * len(shape), Array.of(entries.reshape(shape)))


def _read_run(c: Cursor) -> tuple[int, int, int]:
    """(first, count, step)"""
    first = int(c.pattern(SLOT, "a slot"))
    if c.take("*"):
        return first, _positive(c, c.integer()), 0
    if not c.take(".."):
        return first, 1, 0
    last = int(c.pattern(SLOT, "the last slot of a run"))
    step = int(c.pattern(SLOT, "the step of a run")) if c.take(":") else 1
    if step == 0 or (last - first) % step:
        raise ModelError(f"no run from {first} to {last} by {step}", where=c.where)
    return first, _positive(c, (last - first) // step + 1), step


def _positive(c: Cursor, count: int) -> int:
    if count < 1:
        raise ModelError("a run of no slots", where=c.where)
    return count
