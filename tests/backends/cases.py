"""The table of small cases: an operation, its inputs and parameters, and what it should give.

What it should give is written out in numpy, as plainly as possible. The cases are in the
``cases_*`` files, which fill the table when imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ngc.ir import program as ir
from ngc.ir.slots import FIRST_SLOT, Slots

Arrays = dict[str, np.ndarray]
CASES: list[Case] = []


@dataclass(frozen=True)
class Case:
    """``fields`` name the inputs; ``params`` are parameter operands by role."""

    name: str
    cls: type[ir.Op]
    fields: dict[str, Any]
    inputs: Arrays
    params: Arrays
    expected: np.ndarray
    smooth: bool = True  # whether finite differences are worth comparing with

    def program(self, dtype: str | None = None) -> ir.Program:
        """The case as a program; ``dtype`` replaces float32."""

        def typed(name: np.dtype) -> str:
            return dtype if dtype and name == np.float32 else str(name)

        params, operands, offset = [], {}, FIRST_SLOT
        for role, array in self.params.items():
            params.append(ir.Param(role, array.shape, typed(array.dtype), offset))
            operands[role] = Slots.contiguous(array.shape, offset)
            offset += array.size
        sources = [
            ir.Input(out=ir.Value(name, array.shape, typed(array.dtype)))
            for name, array in self.inputs.items()
        ]
        out = ir.Value("out", self.expected.shape, typed(self.expected.dtype))
        op = self.cls(out=out, **self.fields, **operands)
        return ir.Program(self.name, tuple(params), (*sources, op), (("out", "out"),))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return np.abs(normal(*shape)) + np.float32(0.5)


def case(
    name: str,
    cls: type[ir.Op],
    expected: Callable[..., Any],
    inputs: Arrays | None = None,
    params: Arrays | None = None,
    dtype: str | None = None,
    smooth: bool = True,
    **fields: Any,
) -> None:
    """Add a case; ``expected`` takes inputs and parameters in order. Inputs named like a
    field that names a value stand there."""
    inputs, params = inputs or {}, params or {}
    arrays = [*inputs.values(), *params.values()]
    with np.errstate(all="ignore"):
        result = np.asarray(expected(*arrays))
    floats = result.dtype == np.float64 and not any(a.dtype == np.float64 for a in arrays)
    result = result.astype(dtype or (np.float32 if floats else result.dtype))
    refs = {f.name for f in dataclasses.fields(cls) if f.type == "Ref"}
    fields |= {name: name for name in inputs if name in refs}
    CASES.append(Case(f"{cls.mnemonic}: {name}", cls, fields, inputs, params, result, smooth))
