"""One size for all kernels: the layout of the padded edge feature (paper, Sec. 2.2, Fig. 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ngc.errors import OptionError
from ngc.ir.graph import Graph, Layout, aligned
from ngc.ir.program import Ints
from ngc.passes.graph.base import GraphPass


@dataclass(frozen=True)
class KernelPadding(GraphPass):
    """kernels of their own sizes -> kernels centred in one size, the largest or the given one."""

    name: ClassVar[str] = "kernel"
    size: Ints | None = None
    linear_as: str = "conv1x1"
    directions: int = 1

    def __call__(self, graph: Graph) -> Graph:
        kernels = [block for block in graph.blocks if block.kind != "attention"]
        rank = max([len(block.kernel) for block in kernels] + [len(self.size or ())])
        largest = [1] * rank
        for block in kernels:
            kernel = aligned(block.kernel, rank)
            largest = [max(a, b) for a, b in zip(largest, kernel)]
            if self.size is not None:
                limit = aligned(self.size, rank)
                if any(n > m for n, m in zip(kernel, limit)):
                    raise OptionError(
                        f"its kernel {_text(block.kernel)} is larger than the kernel size "
                        f"{_text(self.size)} of this compilation",
                        where=block.name,
                        hint=f"--kernel {_text(kernel)} or larger",
                    )
        size = aligned(self.size, rank) if self.size is not None else tuple(largest)
        separate, attention = self.linear_as == "separate", len(kernels) < len(graph.blocks)
        layout = Layout(size, separate, self.directions, attention)
        return graph if layout == graph.layout else replace(graph, layout=layout)


def _text(kernel: Ints) -> str:
    return "x".join(str(n) for n in kernel) or "1"
