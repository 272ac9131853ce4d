"""What a pass over neural programs is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from ngc.ir.program import Program


@dataclass(frozen=True)
class ProgramPass(ABC):
    """Program to program. ``name`` is what the command line calls it; the fields of a subclass are
    its options. It receives and leaves valid programs, and returns the same object when it changed
    nothing."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, program: Program) -> Program: ...
