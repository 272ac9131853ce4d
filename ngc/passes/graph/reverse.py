"""Reversed edges, so that messages also travel from output to input (paper, Sec. 2.4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ngc.ir.graph import Graph
from ngc.passes.graph.base import GraphPass


@dataclass(frozen=True)
class Reverse(GraphPass):
    """edges -> edges, then each of them reversed with the same kernel."""

    name: ClassVar[str] = "reverse"
    mode: str = "none"

    def __call__(self, graph: Graph) -> Graph:
        if self.mode == "none" or graph.reverse != "none":
            return graph
        back = tuple(replace(block, reverse=True) for block in graph.blocks)
        return replace(graph, blocks=graph.blocks + back, reverse=self.mode)
