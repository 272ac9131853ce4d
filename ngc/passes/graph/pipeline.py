"""Program -> graph: the passes in order, from the options."""

from __future__ import annotations

from ngc.errors import BudgetError
from ngc.ir.graph import Graph
from ngc.ir.program import Program
from ngc.options import Options
from ngc.passes.graph.activation import MergeActivation
from ngc.passes.graph.base import GraphPass
from ngc.passes.graph.emit import emit
from ngc.passes.graph.flatten import Flatten
from ngc.passes.graph.fuse_attention import FuseAttention
from ngc.passes.graph.kernel import KernelPadding
from ngc.passes.graph.merge_affine_nodes import MergeAffineNodes
from ngc.passes.graph.merge_bias import MergeBias
from ngc.passes.graph.merge_norm_scale import MergeNormScale
from ngc.passes.graph.merge_pool import MergePool
from ngc.passes.graph.number import Number
from ngc.passes.graph.positions import Positions
from ngc.passes.graph.residual import Residual
from ngc.passes.graph.reverse import Reverse
from ngc.passes.wire import Wiring

# Padded storage is chosen by itself while the padded edge features have at most so many entries.
AUTO_PADDED_ENTRIES = 20_000_000


def graph_passes(program: Program, options: Options, max_taps: int) -> list[GraphPass]:
    """The pipeline after ``emit``; its order is explained in docs/architecture.md."""
    passes: list[GraphPass] = [
        MergeAffineNodes(program),
        MergeNormScale(program),
        MergeBias(program),
    ]
    if options.residual == "direct":
        passes.append(Residual(program))
    passes.append(MergePool(program))
    if options.activation == "embed":
        passes.append(MergeActivation(program))
    if options.attention == "fused":
        passes.append(FuseAttention(program, max_taps))
    passes += [Flatten(options.flatten, max_taps), Number(program)]
    if options.pos == "layer":
        passes.append(Positions())
    passes.append(Reverse(options.reverse))
    return passes


def build_graph(wiring: Wiring, options: Options, max_taps: int = 2**28, after: str = "") -> Graph:
    """The graph, or the graph as it is after the pass called ``after``."""
    graph = emit(wiring)
    for step in graph_passes(wiring.program, options, max_taps):
        graph = step(graph)
        if step.name == after:
            return graph
    directions = 3 if options.reverse == "features" else 1
    padded = KernelPadding(options.kernel, options.linear_as, directions)(graph)
    assert padded.layout is not None
    if options.storage == "ragged":
        return graph
    chosen = options.storage == "padded" or options.kernel is not None or directions > 1
    entries = graph.num_edges * padded.layout.width * directions
    if not chosen and entries > AUTO_PADDED_ENTRIES:
        return graph
    if entries > max_taps:
        size = "x".join(str(n) for n in padded.layout.kernel)
        raise BudgetError(
            f"{graph.num_edges:,} edges with kernels padded to {size} have {entries:,} entries "
            f"(limit {max_taps:,})",
            where=graph.name,
            hint="--storage ragged, or a larger --max-elements",
        )
    return padded
