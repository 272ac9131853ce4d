"""The passes that turn granular neurons into the nodes of the paper: bias, scale and activation
become part of a neuron, residual sums end in the neurons that are added to.

Nodes merge only where nothing else reads the value before: a neuron holds one value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ngc.ir import program as ir
from ngc.ir.graph import EdgeBlock, Graph
from ngc.ir.program import Program
from ngc.ir.slots import ONE
from ngc.passes.graph.base import GraphPass, Merger, is_unary

SUMS = ("sum", "norm", "select", "reduce", "product", "gather", "order", "maximum", "minimum")


@dataclass(frozen=True)
class UnaryMerge(GraphPass):
    """Shared by the passes that merge one operation's neurons into those it reads."""

    program: Program

    def applies(self, op: ir.Op) -> bool:
        raise NotImplementedError

    def accepts(self, m: Merger, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def __call__(self, graph: Graph) -> Graph:
        merger = Merger(graph)
        kept: list[EdgeBlock] = []
        for block in graph.in_order():
            op = self.program.ops[block.op]
            if not (self.applies(op) and block.kind in ("identity", "pool") and is_unary(block)):
                kept.append(block)
                continue
            src, dst = merger.rep[block.src[:, 0]], merger.rep[block.dst[:, 0]]
            ok = (merger.uses[src] == 1) & self.accepts(merger, src, dst) & merger.disjoint(src, dst)
            merger.into(src[ok], dst[ok])
            kept.append(block.pick(np.flatnonzero(~ok)))
        return merger.result(kept)


@dataclass(frozen=True)
class MergeAffine(UnaryMerge):
    """neuron -> constant multiple of it: one neuron. Plain numbers are not on the graph."""

    name: ClassVar[str] = "merge-affine-nodes"

    def applies(self, op: ir.Op) -> bool:
        return isinstance(op, ir.Cast) or (isinstance(op, ir.Activation) and op.fn == "affine")

    def accepts(self, m: Merger, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        return np.ones(len(src), dtype=bool)


@dataclass(frozen=True)
class MergeBias(UnaryMerge):
    """neuron -> neuron plus a parameter: one neuron with a bias."""

    name: ClassVar[str] = "merge-bias"

    def applies(self, op: ir.Op) -> bool:
        return isinstance(op, ir.Shift) and op.fn != "rsub"

    def accepts(self, m: Merger, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        # One bias a neuron: a second one keeps its own.
        return m.plain(src) & m.kind_is(src, *SUMS) & m.unset(m.nodes.scalars[src])[:, 0]


@dataclass(frozen=True)
class MergePool(UnaryMerge):
    """neuron -> the same neuron pooled over positions: one neuron."""

    name: ClassVar[str] = "merge-pool"

    def applies(self, op: ir.Op) -> bool:
        return isinstance(op, (ir.Pool, ir.Reduce, ir.Resize, ir.Cumulate, ir.TopK))

    def accepts(self, m: Merger, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        return (m.nodes.pool[src] == 0) & ~m.kind_is(src, "input", "token", "position", "constant")


@dataclass(frozen=True)
class MergeActivation(UnaryMerge):
    """neuron -> activation of it: one neuron with the activation as its category."""

    name: ClassVar[str] = "activation"

    def applies(self, op: ir.Op) -> bool:
        return isinstance(op, (ir.Activation, ir.Softmax, ir.PRelu))

    def accepts(self, m: Merger, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        own = ~m.kind_is(src, "input", "token", "position", "constant")
        return own & (m.nodes.activation[src] == 0)


@dataclass(frozen=True)
class MergeNormScale(GraphPass):
    """normalised neuron -> its multiple by a parameter: one norm neuron with the scale on its edge."""

    name: ClassVar[str] = "merge-norm-scale"
    program: Program

    def __call__(self, graph: Graph) -> Graph:
        merger = Merger(graph)
        kept: list[EdgeBlock] = []
        # Diagonal edges into norm neurons, by target: (place in kept, group).
        owner: dict[int, tuple[int, int]] = {}
        scales: dict[int, dict[int, np.ndarray]] = {}
        for block in graph.in_order():
            op = self.program.ops[block.op]
            if isinstance(op, ir.Normalise) and is_unary(block):
                for g, neuron in enumerate(block.dst[:, 0].tolist()):
                    owner[neuron] = (len(kept), g)
            if not (isinstance(op, ir.Scale) and op.fn == "mul" and block.taps == 1):
                kept.append(block)
                continue
            src, dst = merger.rep[block.src[:, 0]], merger.rep[block.dst[:, 0]]
            ok = (merger.uses[src] == 1) & merger.plain(src)
            ok &= np.array([int(n) in owner for n in src], dtype=bool)
            slots = block.slots.numpy().reshape(-1)
            for neuron, slot in zip(src[ok].tolist(), slots[ok]):
                place, g = owner.pop(neuron)
                scales.setdefault(place, {})[g] = slot
            merger.into(src[ok], dst[ok])
            kept.append(block.pick(np.flatnonzero(~ok)))
        for place, by_group in scales.items():
            norm = kept[place]
            entries = np.full(len(norm.src), ONE, dtype=np.int64)
            entries[list(by_group)] = list(by_group.values())
            slots = type(norm.slots).of(entries.reshape(-1, 1, 1, 1))
            kept[place] = replace(norm, slots=slots)
        return merger.result(kept)


@dataclass(frozen=True)
class Residual(GraphPass):
    """sum of neurons -> the last computed of them, with identity edges of weight one from the
    others straight into it."""

    name: ClassVar[str] = "residual"
    program: Program

    def __call__(self, graph: Graph) -> Graph:
        merger = Merger(graph)
        by_op: dict[int, list[EdgeBlock]] = {}
        for block in graph.in_order():
            by_op.setdefault(block.op, []).append(block)
        kept: list[EdgeBlock] = []
        for number, blocks in by_op.items():
            op = self.program.ops[number]
            if isinstance(op, ir.Combine) and op.fn in ("add", "sub"):
                blocks = self.merge(merger, blocks)
            kept.extend(blocks)
        return merger.result(kept)

    def merge(self, m: Merger, blocks: list[EdgeBlock]) -> list[EdgeBlock]:
        edges = [(b, m.rep[b.src[:, 0]], m.rep[b.dst[:, 0]]) for b in blocks]
        if not edges:
            return blocks
        all_src = np.concatenate([src for _, src, _ in edges])
        times = np.bincount(all_src, minlength=len(m.rep))
        # For each target the acceptable operand that was computed last.
        best: dict[int, tuple[int, int, int]] = {}
        for k, (block, src, dst) in enumerate(edges):
            if block.kind != "identity" or not is_unary(block):
                continue
            ok = (m.uses[src] == 1) & (times[src] == 1) & m.plain(src) & m.kind_is(src, "sum", "norm")
            ok &= m.disjoint(src, dst)
            for g in np.flatnonzero(ok).tolist():
                age = int(m.nodes.op[src[g]])
                if int(dst[g]) not in best or best[int(dst[g])][0] < age:
                    best[int(dst[g])] = (age, k, g)
        chosen: dict[int, list[int]] = {}
        for _, k, g in best.values():
            chosen.setdefault(k, []).append(g)
        result = []
        for k, (block, src, dst) in enumerate(edges):
            picked = np.array(sorted(chosen.get(k, [])), dtype=np.int64)
            m.into(src[picked], dst[picked])
            rest = np.setdiff1d(np.arange(len(src)), picked)
            result.append(block.pick(rest) if len(picked) else block)
        return result
