"""Values computed twice are computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ngc.ir import program as ir
from ngc.ir.program import Op, Program
from ngc.passes.base import ProgramPass
from ngc.passes.rewrite import share


@dataclass(frozen=True)
class ShareValues(ProgramPass):
    """Two operations without parameters, alike and of the same values -> the first of them."""

    name: ClassVar[str] = "share-values"

    def __call__(self, program: Program) -> Program:
        return share(program, _has_no_parameter)


def _has_no_parameter(op: Op) -> bool:
    return not (isinstance(op, ir.Input) or op.operands)
