"""Invariants of a program, as a table of small functions; run after every pass in tests.

``violations`` lists what is wrong, for text that a user wrote; ``check`` raises, for our passes.
What each operation asks of its inputs is in ``ir/check_ops.py``.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any

import numpy as np

from ngc.ir.check_ops import RULES, Complaint
from ngc.ir.program import Op, Param, Program, Value
from ngc.ir.slots import FIRST_SLOT, ONE, ZERO, Array, Slots

MAX_SHOWN = 20

DTYPES = frozenset(
    (
        *("bool", "float32", "float64", "complex64", "complex128"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
)


def check(program: Program, after: str = "") -> None:
    """Raise AssertionError with all violations: a pass (``after``) made a wrong program."""
    found = violations(program)
    if found:
        place = f" after {after}" if after else ""
        more = f"\n  and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
        lines = "\n".join(f"  {message}" for message in found[:MAX_SHOWN])
        raise AssertionError(f"invalid program {program.name!r}{place}:\n{lines}{more}")


def violations(program: Program) -> list[str]:
    """Everything wrong with a program. Invariants assume those before them, so the list ends with
    the first that fails."""
    for invariant in INVARIANTS:
        found = list(invariant(program))
        if found:
            return found
    return []


# --- names and fields ------------------------------------------------------------------------


def fields_have_their_types(program: Program) -> Iterator[str]:
    for op in program.ops:
        for field in fields(op):
            value, kind = getattr(op, field.name), str(field.type)
            absent = value is None and kind.endswith(" | None")
            if not (absent or _is(value, kind.removesuffix(" | None"))):
                yield f"{_name(op)}: {field.name} is {value!r}, not of type {kind}"


def _is(value: Any, kind: str) -> bool:
    if kind in SEQUENCES:
        return isinstance(value, tuple) and all(_is(v, SEQUENCES[kind]) for v in value)
    # bool is an int to Python, but not here; numpy's numbers are neither.
    return type(value) is TYPES[kind]


TYPES: dict[str, type] = {
    **{"Ref": str, "str": str, "int": int, "float": float, "bool": bool},
    **{"Slots": Slots, "Array": Array, "Value": Value},
}
SEQUENCES = {"Refs": "Ref", "Ints": "int", "Floats": "float", "tuple[Array, ...]": "Array"}


def shapes_are_sizes(program: Program) -> Iterator[str]:
    for name, shape in [
        *((f"@{p.name}", p.shape) for p in program.params),
        *((_name(op), op.out.shape) for op in program.ops),
    ]:
        if not _is(shape, "Ints") or any(n < 0 for n in shape):
            yield f"{name}: {shape!r} is not a shape"


def dtypes_are_known(program: Program) -> Iterator[str]:
    for op in program.ops:
        if op.out.dtype not in DTYPES:
            yield f"{_name(op)}: dtype {op.out.dtype!r} is not one that programs compute in"


def names_are_unique(program: Program) -> Iterator[str]:
    for what, names in [
        ("value", [op.out.name for op in program.ops]),
        ("parameter", [param.name for param in program.params]),
        ("output", [name for name, _ in program.outputs]),
    ]:
        yield from (
            f"{what} {n!r} is defined {k} times" for n, k in Counter(names).items() if k > 1
        )


def values_are_defined_before_use(program: Program) -> Iterator[str]:
    defined: set[str] = set()
    for op in program.ops:
        yield from (
            f"{_name(op)}: reads {ref!r}, which is not defined before it"
            for ref in op.inputs
            if ref not in defined
        )
        defined.add(op.out.name)


def outputs_exist(program: Program) -> Iterator[str]:
    values = program.values()
    for name, ref in program.outputs:
        if ref not in values:
            yield f"output {name!r} is {ref!r}, which is not defined"


# --- parameters and slots --------------------------------------------------------------------


def parameters_are_contiguous(program: Program) -> Iterator[str]:
    expected = FIRST_SLOT
    for param in program.params:
        if param.offset != expected:
            yield f"@{param.name}: offset {param.offset}, expected {expected}"
        expected = param.offset + param.size


def slots_are_well_formed(program: Program) -> Iterator[str]:
    for where, slots in _operands(program):
        if not _is(slots.shape, "Ints") or any(n < 0 for n in slots.shape):
            yield f"{where}: {slots.shape!r} is not a shape"
        elif len(slots.strides) != slots.ndim:
            yield f"{where}: {len(slots.strides)} strides for shape {list(slots.shape)}"
        elif any(n == 1 and s for n, s in zip(slots.shape, slots.strides, strict=True)):
            yield f"{where}: an axis of size 1 has a stride: {list(slots.strides)}"
        elif slots.entries is not None and (
            slots.entries.shape != slots.shape
            or slots.entries.dtype != "int64"
            or len(slots.entries.data) != 8 * slots.size
            or slots.offset
            or any(slots.strides)
        ):
            yield f"{where}: its entries are not int64 {list(slots.shape)} with no offset"


def slots_exist(program: Program) -> Iterator[str]:
    """Constant slots, entries in range, or a strided view of one parameter."""
    params = sorted(program.params, key=lambda param: param.offset)
    for where, slots in _operands(program):
        if not slots.size:
            continue
        low, high = _span(slots)
        if low < 0 or high >= program.num_slots:
            yield f"{where}: slots {low} to {high} of {program.num_slots}"
        elif slots.entries is None and low != high:
            k = bisect.bisect_right(params, low, key=lambda param: param.offset) - 1
            if low in (ZERO, ONE) or not _contains(params[k], high):
                yield f"{where}: a strided view, slots {low} to {high}, is not in one parameter"


def _contains(param: Param, slot: int) -> bool:
    return param.offset <= slot < param.offset + param.size


def _span(slots: Slots) -> tuple[int, int]:
    if slots.entries is not None:
        entries = slots.entries.numpy()
        return int(entries.min()), int(entries.max())
    reach = [(n - 1) * s for n, s in zip(slots.shape, slots.strides, strict=True)]
    low = slots.offset + sum(min(r, 0) for r in reach)
    return low, slots.offset + sum(max(r, 0) for r in reach)


def _operands(program: Program) -> Iterator[tuple[str, Slots]]:
    for op in program.ops:
        for role, slots in op.operands.items():
            yield f"{_name(op)}: {role}", slots


def constant_arrays_have_their_bytes(program: Program) -> Iterator[str]:
    for op in program.ops:
        for field in fields(op):
            value = getattr(op, field.name)
            for array in value if isinstance(value, tuple) else (value,):
                if not isinstance(array, Array):
                    continue
                size = math.prod(array.shape) * np.dtype(array.dtype).itemsize
                if len(array.data) != size:
                    yield f"{_name(op)}: {field.name} has {len(array.data)} bytes, not {size}"


# --- operations ------------------------------------------------------------------------------


def operations_fit_their_inputs(program: Program) -> Iterator[str]:
    values = program.values()
    for op in program.ops:
        try:
            for message in _complaints(op, [values[ref] for ref in op.inputs]):
                yield f"{_name(op)}: {message}"
        except (ValueError, IndexError, ZeroDivisionError, TypeError) as error:
            # A rule tripped over attributes that contradict each other.
            yield f"{_name(op)}: malformed ({error})"


def _complaints(op: Op, inputs: list[Value]) -> Iterable[Complaint]:
    return RULES[type(op)](op, *inputs)


def _name(op: Op) -> str:
    origin = f" from {op.origin}" if op.origin else ""
    return f"%{op.out.name} ({op.mnemonic}{origin})"


INVARIANTS: tuple[Callable[[Program], Iterator[str]], ...] = (
    fields_have_their_types,
    shapes_are_sizes,
    dtypes_are_known,
    names_are_unique,
    values_are_defined_before_use,
    outputs_exist,
    parameters_are_contiguous,
    slots_are_well_formed,
    slots_exist,
    constant_arrays_have_their_bytes,
    operations_fit_their_inputs,
)
