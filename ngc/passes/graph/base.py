"""What a pass over neural graphs is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from ngc.ir.graph import Graph


@dataclass(frozen=True)
class GraphPass(ABC):
    """Graph to graph; the docstring says before -> after. It returns the same object when it
    changed nothing. ``name`` is what the command line calls it; fields are its options."""

    name: ClassVar[str]

    @abstractmethod
    def __call__(self, graph: Graph) -> Graph: ...
