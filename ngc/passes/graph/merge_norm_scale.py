"""The learned scale of a normalisation lies on the edge into its neuron (paper, appendix C.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ngc.ir import program as ir
from ngc.ir.graph import EdgeBlock, Graph
from ngc.ir.program import Program
from ngc.ir.slots import ONE, Slots
from ngc.passes.graph.base import GraphPass
from ngc.passes.graph.merger import Merger, is_unary


@dataclass(frozen=True)
class MergeNormScale(GraphPass):
    """normalised neuron -> its multiple by a parameter: one norm neuron, the scale on its edge."""

    name: ClassVar[str] = "merge-norm-scale"
    program: Program

    def __call__(self, graph: Graph) -> Graph:
        merger = Merger(graph)
        kept: list[EdgeBlock] = []
        norms: dict[int, tuple[int, int]] = {}  # norm neuron -> (place in kept, group) of its edge
        scales: dict[int, dict[int, int]] = {}  # place in kept -> group -> slot of the scale
        for block in graph.in_order():
            op = self.program.ops[block.op]
            if isinstance(op, ir.Normalise) and is_unary(block):
                norms |= {int(n): (len(kept), g) for g, n in enumerate(block.dst[:, 0])}
            if not (isinstance(op, ir.Scale) and op.fn == "mul" and block.taps == 1):
                kept.append(block)
                continue
            src, dst = merger.ends(block)
            ok = merger.free(src, dst) & merger.plain(src)
            ok &= np.array([int(n) in norms for n in src], dtype=bool)
            slots = block.slots.numpy().reshape(-1)
            for neuron, slot in zip(src[ok].tolist(), slots[ok].tolist()):
                place, g = norms.pop(neuron)
                scales.setdefault(place, {})[g] = slot
            merger.merge(src[ok], dst[ok])
            kept.append(block.pick(np.flatnonzero(~ok)))
        for place, slot_of in scales.items():
            entries = np.full(len(kept[place].src), ONE)
            entries[list(slot_of)] = list(slot_of.values())
            kept[place] = replace(kept[place], slots=Slots.of(entries[:, None, None, None]))
        return merger.result(kept)
