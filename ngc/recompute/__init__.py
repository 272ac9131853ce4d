"""The graph, held against the program operation by operation.

A program that equals onnxruntime proves nothing about the graph: an edge that leaves from the wrong
neuron keeps its weight, so the weights still come back. Here each operation is computed once more
from the graph alone, in two ways:

- what sums over weights (Linear, convolutions, Embedding) runs on random operands, and each neuron
  must be the sum over its incoming edges of kernel entries times values of the source neurons
  (``weighted.py``);
- everything else must read exactly the neurons that its meaning says (``sources.py``), and apply
  the parameters that are on its nodes and edges (``parameters.py``).

The steps of a loop share neurons: each is computed from the edges of the first (``steps.py``).

Data movement is run on the numbers of neurons themselves, by the executor. Which nodes hold which
neurons is found from the wires (``chains.py``), not taken from the graph passes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ngc.backends.torch_kernels import kernel_of
from ngc.errors import UnsupportedOp
from ngc.ir import program as ir
from ngc.ir.graph import EDGE_KINDS, NODE_KINDS, NODE_ROLES, EdgeBlock, Graph, category
from ngc.ir.program import Value
from ngc.ir.slots import FIRST_SLOT, ONE
from ngc.passes.graph.emit import emit
from ngc.passes.wire import Wiring
from ngc.recompute.chains import Chains, Mismatch
from ngc.recompute.fused import check_fused, check_reversed
from ngc.recompute.parameters import Parameters
from ngc.recompute.permuted import permutes_graph
from ngc.recompute.sources import Pairs, distinct, sources_of
from ngc.recompute.steps import check_same, check_steps
from ngc.recompute.weighted import Weighted

SUMS = (ir.Linear, ir.Convolution, ir.ConvolutionTranspose, ir.Embedding)
DOUBLE = 5_000_000  # up to so many slots, sums are in double precision
MAX_ELEMENTS = 100_000_000  # of a value that is moved


@dataclass(frozen=True)
class Recomputation:
    """How many of the graph's edge blocks were computed again, the largest error of those that sum
    over weights, and what is wrong, operation by operation."""

    done: int
    total: int
    error: float
    faults: tuple[str, ...]


def recompute(
    wiring: Wiring, graph: Graph, seed: int = 0, explicit: Graph | None = None
) -> Recomputation:
    """Hold a graph against the program it comes from; one with fused attention by way of the
    ``explicit`` graph of the same wiring, neuron by neuron."""
    found = _Recompute(wiring, graph if explicit is None else explicit, seed).run()
    if explicit is None:
        return found
    try:
        check_reversed(graph)
        check_fused(wiring, explicit, graph)
    except Mismatch as mismatch:
        return replace(found, faults=(*found.faults, f"fused attention: {mismatch}"))
    return found


class _Recompute:
    def __init__(self, wiring: Wiring, graph: Graph, seed: int) -> None:
        self.wiring, self.graph = wiring, graph
        self.chains = Chains(wiring, graph)
        generator = torch.Generator().manual_seed(seed)
        # Every slot a number of its own, none of them near zero.
        slots = wiring.program.num_slots
        dtype = torch.float64 if slots <= DOUBLE else torch.float32
        weights = torch.rand(slots, generator=generator, dtype=dtype) + 0.5
        weights[:FIRST_SLOT] = torch.tensor([0.0, 1.0])
        self.weighted = Weighted(self.chains, weights, seed)
        self.blocks: dict[int, list[EdgeBlock]] = {}
        for block in graph.blocks:
            if not block.reverse:
                self.blocks.setdefault(block.op, []).append(block)
        # A scale that is part of a norm neuron stands on the edges of the normalisation.
        norms = [
            block
            for number, own in self.blocks.items()
            if isinstance(wiring.program.ops[number], ir.Normalise)
            for block in own
        ]
        self.parameters = Parameters(self.chains, norms)
        self.zeros = np.zeros(wiring.num_neurons, dtype=bool)
        for birth in wiring.births:
            op = wiring.program.ops[birth.op]
            if birth.role == "constant" and isinstance(op, ir.Pad) and op.value == 0.0:
                self.zeros[birth.start : birth.stop] = True
        self.computed = self.chains.computed_by()

    def run(self) -> Recomputation:
        done, worst, faults = 0, 0.0, []
        for step in (self.reverse_edges, self.flattened, self.categories, self.between_steps):
            try:
                step()
            except Mismatch as mismatch:
                faults.append(str(mismatch))
        for number, op in enumerate(self.wiring.program.ops):
            # A step of a loop is computed from the edges of the first one, and there an initial
            # value stands for the state.
            first = self.wiring.first.get(number, number)
            op = self.wiring.as_read(number)
            blocks = [b for b in self.blocks.get(first, []) if b.kind not in ("flatten", "initial")]
            try:
                if first != number:
                    check_same(op, self.wiring.program.ops[first])
                error = self.operation(first, op, blocks)
            except (Mismatch, IndexError) as mismatch:  # nodes that are not there
                faults.append(f"{op.origin or op.out.name} ({op.mnemonic}): {mismatch}")
                continue
            if error is not None and number == first:
                done += len(blocks)
            if error is not None:
                worst = max(worst, error)
        try:
            self.parameters.check_rest()
        except Mismatch as mismatch:
            faults.append(str(mismatch))
        flat = sum(b.kind in ("flatten", "initial") for bs in self.blocks.values() for b in bs)
        total = sum(len(bs) for bs in self.blocks.values())
        return Recomputation(done + flat, total, worst, tuple(faults))

    def operation(self, number: int, op: ir.Op, blocks: list[EdgeBlock]) -> float | None:
        """The error of an operation computed from the graph; None where there is no way to."""
        self.parameters.check(number, op, blocks)
        if isinstance(op, SUMS):
            sums = [b for b in blocks if not b.kind.startswith("position_")]
            return self.weighted.check(number, op, sums)
        if op.is_view:
            return self.moved(number, op, blocks)
        if isinstance(op, ir.Input | ir.Parameter | ir.Constant):
            return 0.0
        try:
            sources = sources_of(self.wiring, op)
        except MemoryError:
            return None
        if sources is None:
            return None
        self.reads(number, op, sources, blocks)
        return 0.0

    # --- what an operation reads ---

    def reads(
        self, number: int, op: ir.Op, sources: list[tuple[str, Pairs]], blocks: list[EdgeBlock]
    ) -> None:
        """The edges of an operation are those of ``sources``, but for those within a node."""
        wanted: list[np.ndarray] = []
        end = self.chains.end
        for kind, (source, target) in sources:
            kept = ~self.zeros[source]
            source, target = source[kept], target[kept]
            outside = (end[source] != end[target]) | (self.computed[source] >= number)
            rows, nodes = self.chains.nodes_of(target[outside])
            wanted.append(self.keys(kind, source[outside][rows], nodes))
        found = [np.zeros(0, dtype=np.int64)]
        for block in blocks:
            if block.kind.startswith("position_"):
                continue
            if not isinstance(op, ir.Scale | ir.BatchNorm | ir.Normalise) and not _all_ones(block):
                raise Mismatch(f"its {block.kind} edges carry weights")
            source, target = block.edge_index()
            copied = self.graph.nodes.place[source, 0] >= 0
            if copied.any():
                one = int(source[copied][0])
                raise Mismatch(f"it reads node {one}, which stands for one position only")
            held = self.chains.held_by(source)
            kept = ~self.zeros[held]
            self.chains.computed_in(number, target)
            found.append(self.keys(block.kind, held[kept], target[kept]))
        missing, extra = _difference(np.concatenate(wanted), np.concatenate(found))
        for keys, word in ((missing, "no"), (extra, "an unexpected")):
            if len(keys):
                _, neuron, node = self.parts(keys[:1])
                name = self.wiring.program.ops[int(self.chains.graph.nodes.op[node[0]])].out.name
                raise Mismatch(
                    f"{word} edge into node {int(node[0])} ({name}) from neuron {int(neuron[0])}"
                    f" of {self.name_of(int(neuron[0]))}"
                )

    def keys(self, kind: str, neurons: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        return (EDGE_KINDS.index(kind) * self.wiring.num_neurons + neurons) * max(
            self.graph.num_nodes, 1
        ) + nodes

    def parts(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rest, node = np.divmod(keys, max(self.graph.num_nodes, 1))
        code, neuron = np.divmod(rest, self.wiring.num_neurons)
        return code, neuron, node

    def name_of(self, neuron: int) -> str:
        for birth in self.wiring.births:
            if birth.start <= neuron < birth.stop:
                return self.wiring.program.ops[birth.op].out.name
        return "nothing"

    def moved(self, number: int, op: ir.Op, blocks: list[EdgeBlock]) -> float | None:
        """Data movement, done to the numbers of neurons: the result has the same, or neurons that
        read them."""
        index = self.wiring.index
        out = index[op.out.name]
        if np.prod(op.out.shape, dtype=float) > MAX_ELEMENTS:
            return None
        values = {ref: Value(ref, index[ref].shape, "int64") for ref in op.inputs}
        one = replace(op, out=Value(op.out.name, op.out.shape, "int64"))
        if isinstance(one, ir.Pad):
            one = replace(one, value=-1.0)
        kernel = kernel_of(one, values)
        arrays = [torch.from_numpy(np.array(index[ref].full())) for ref in op.inputs]
        try:
            constants = [torch.from_numpy(np.array(constant)) for constant in kernel.constants]
            moved = kernel.function(*arrays, *constants)
        except UnsupportedOp:
            return None
        source, target = moved.numpy().reshape(-1), out.full().reshape(-1)
        changed = (source != target) & (source >= 0)
        pairs = distinct(source[changed], target[changed])
        if len(pairs[0]) and not np.isin(pairs[1], self.chains.born(number)).all():
            neuron = int(pairs[1][~np.isin(pairs[1], self.chains.born(number))][0])
            raise Mismatch(f"neuron {neuron} stands where another one's value has been moved to")
        self.reads(number, op, [("identity", pairs)], blocks)
        return 0.0

    # --- the rest of the graph ---

    def reverse_edges(self) -> None:
        check_reversed(self.graph)

    def flattened(self) -> None:
        """A neuron for one position reads the neuron it stands for, with weight one; no other."""
        nodes = self.graph.nodes
        virtual = nodes.kind == category(NODE_KINDS, "flatten")
        count = np.zeros(len(nodes), dtype=np.int64)
        for block in self.graph.blocks:
            if block.reverse:
                continue
            source, target = block.edge_index()
            np.add.at(count, target, 1)
            if block.kind != "flatten":
                continue
            wrong = (nodes.neuron[source] != nodes.neuron[target]) | ~virtual[target]
            wrong |= nodes.place[source, 0] >= 0
            if wrong.any() or not _all_ones(block):
                node = int(target[wrong][0]) if wrong.any() else int(target[0])
                raise Mismatch(f"node {node} does not pass on the value that it stands for")
        if (count[virtual] != 1).any():
            raise Mismatch("a node for one position has not one incoming edge")

    def between_steps(self) -> None:
        check_steps(self.chains, [b for blocks in self.blocks.values() for b in blocks])

    def categories(self) -> None:
        """Activation, pooling and role of a node are those of the neurons in it."""
        nodes, granular = self.graph.nodes, emit(self.wiring).nodes
        plain = nodes.kind != category(NODE_KINDS, "flatten")
        # An output counts as one, whatever else is in the node; then an input.
        weight = np.array([NODE_ROLES.index(role) for role in ("hidden", "input", "output")])
        rank = np.argsort(weight)
        for name in ("activation", "pool", "role"):
            own, each = getattr(nodes, name), getattr(granular, name)
            if name == "role":
                own, each = rank[own], rank[each]
            expected = np.zeros(self.wiring.num_neurons, dtype=np.int64)
            np.maximum.at(expected, self.chains.end, each)
            wrong = plain & (own != expected[nodes.neuron])
            if wrong.any():
                raise Mismatch(f"node {int(np.flatnonzero(wrong)[0])} has another {name}")


def _all_ones(block: EdgeBlock) -> bool:
    slots = block.slots
    if slots.entries is not None:
        return bool((slots.numpy() == ONE).all())
    return slots.offset == ONE and not any(slots.strides)


def _difference(wanted: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What two collections do not have in common, repeats counted: (only wanted, only found)."""
    every, inverse = np.unique(np.concatenate([wanted, found]), return_inverse=True)
    count = np.zeros(len(every), dtype=np.int64)
    np.add.at(count, inverse[: len(wanted)], 1)
    np.add.at(count, inverse[len(wanted) :], -1)
    return every[count > 0], every[count < 0]


__all__ = ["Recomputation", "permutes_graph", "recompute"]
