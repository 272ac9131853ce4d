"""Finding attention in a graph: which nodes are queries, keys, values and results of which head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ngc.ir import program as ir
from ngc.ir.graph import ACTIVATIONS, NO_SCALAR, NODE_ROLES, EdgeBlock, Graph
from ngc.ir.index import matching_runs
from ngc.ir.program import Ints, Program, Ref
from ngc.ir.slots import ONE

# What sums over weights: what it makes is no contraction of activations any more.
WEIGHTED = (ir.Linear, ir.Convolution, ir.ConvolutionTranspose, ir.Embedding, ir.Normalise)

# What may join scores or weights and something else: masks, biases, constant scales.
ADDED = ("add", "sub", "mul", "div", "where")


class NotFused(Exception):
    """Why some attention keeps its neurons."""


@dataclass(frozen=True)
class Attention:
    """``score`` and ``result``: the operations q k^T and (softmax) v; ``key_first``: the keys are
    the first operand of the scores, ``value_first`` the values that of the result."""

    score: int
    result: int
    key_first: bool
    value_first: bool


@dataclass(frozen=True, eq=False)
class Heads:
    """Nodes of the graph: query, key, value, result [heads, inner]; ``between`` those from scores
    to softmax, and ``head`` the head of each."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    result: np.ndarray
    between: np.ndarray
    head: np.ndarray


class Finder:
    """Finds attention in a program. Of each operation, by number: whether its result is a
    contraction, or was computed from one without weights since (``contracted``), and whether a
    softmax came after that (``softmax``)."""

    def __init__(self, program: Program) -> None:
        self.ops = program.ops
        self.number = {op.out.name: n for n, op in enumerate(program.ops)}
        self.contracted = [False] * len(program.ops)
        self.softmax = [False] * len(program.ops)
        for n, op in enumerate(program.ops):
            sources = [self.number[ref] for ref in op.inputs]
            if isinstance(op, ir.Contract):
                self.contracted[n] = True
            elif not isinstance(op, WEIGHTED):
                self.contracted[n] = any(self.contracted[k] for k in sources)
                self.softmax[n] = any(self.softmax[k] for k in sources)
                self.softmax[n] |= isinstance(op, ir.Softmax) and self.contracted[n]

    def contracted_softmaxes(self) -> Iterator[int]:
        """Operations that contract something with a softmax of a contraction: attention, or its
        kin."""
        for n, op in enumerate(self.ops):
            if isinstance(op, ir.Contract) and any(self.softmax[self.number[x]] for x in op.inputs):
                yield n

    def attention_at(self, result: int) -> Attention:
        """The attention whose values this operation contracts, or NotFused."""
        op = self.ops[result]
        assert isinstance(op, ir.Contract)
        sides = [self.softmax[self.number[ref]] for ref in (op.a, op.b)]
        if all(sides):
            raise NotFused("its values are a softmax of scores as well")
        value_first = sides[1]
        left, right, out = op.spec.replace("->", ",").split(",")
        own, other = (right, left) if value_first else (left, right)
        summed = [k for k, letter in enumerate(own) if letter in other and letter not in out]
        if len(summed) != 1:
            raise NotFused("its softmax does not run along what is summed over")
        score, axis = self._scores(op.b if value_first else op.a, summed[0])
        made = self.ops[score]
        assert isinstance(made, ir.Contract)
        first, second, letters = made.spec.replace("->", ",").split(",")
        key = letters[axis]
        if (key in first) == (key in second):
            raise NotFused("its softmax does not run over keys")
        return Attention(score, result, key in first, value_first)

    def _scores(self, weights: Ref, axis: int) -> tuple[int, int]:
        """The contraction whose softmax along ``axis`` these weights are, and which axis that is
        there."""
        ref, softmaxes = weights, 0
        while not isinstance(op := self.ops[self.number[ref]], ir.Contract):
            before = axis
            match op:
                case ir.Softmax(fn="softmax", x=ref):
                    softmaxes += 1
                    if op.axis % len(op.out.shape) != axis:
                        raise NotFused("its softmax does not run along what is summed over")
                case ir.Cast(x=ref) | ir.Activation(x=ref) | ir.Shift(x=ref) | ir.Scale(x=ref):
                    pass
                case ir.Combine(fn=fn) if fn in ADDED:
                    ref = self._scores_among(op)
                case ir.Reshape(x=ref):
                    before = self._before_reshape(op, axis)
                case ir.Concat(axis=joined) if joined == axis:  # what takes a share of the weights
                    ref = self._scores_among(op)
                case ir.Slice(x=ref) if self._cuts_only(op, axis):
                    pass
                case _:
                    raise NotFused(f"{op.mnemonic} acts on its scores")
            kept = isinstance(op, ir.Reshape | ir.Concat | ir.Slice)
            if not kept and self.shape(ref) != op.out.shape:
                raise NotFused("its scores change their shape")
            axis = before
        if softmaxes != 1:
            raise NotFused("its weights are no softmax of scores, or one of a softmax")
        return self.number[ref], axis

    def shape(self, ref: Ref) -> Ints:
        return self.ops[self.number[ref]].out.shape

    def _before_reshape(self, op: ir.Reshape, axis: int) -> int:
        """The axis that one is before a reshape that leaves it whole."""
        for old, new in matching_runs(self.shape(op.x), op.out.shape):
            if new == [axis] and len(old) == 1:
                return old[0]
        raise NotFused("a reshape cuts or merges the axis of its softmax")

    def _cuts_only(self, op: ir.Slice, axis: int) -> bool:
        """Whether it leaves all axes but this one as they are."""
        before = self.shape(op.x)
        others = [a for a in range(len(before)) if a != axis]
        whole = all(before[a] == op.out.shape[a] and op.steps[a] == 1 for a in others)
        return whole and op.steps[axis] == 1 and op.starts[axis] == 0

    def _scores_among(self, op: ir.Combine | ir.Concat) -> Ref:
        """The one operand that the scores are; not the mask, nor the largest score, which exporters
        subtract, nor the test by which they write zeros for the softmax of a row that is masked as
        a whole."""
        found = []
        for ref in op.inputs:
            made = self.ops[self.number[ref]]
            test = isinstance(made, ir.Activation) and made.fn == "is_nan" and made.x in op.inputs
            test |= (
                isinstance(op, ir.Combine) and op.fn == "sub" and isinstance(made, ir.Reduce)
                and made.fn == "max" and made.keepdims and made.x in op.inputs
            )  # fmt: skip
            if self.contracted[self.number[ref]] and not test:
                found.append(ref)
        if len(found) != 1:
            raise NotFused("several contractions meet in its scores")
        return found[0]


def heads_of(graph: Graph, found: Attention) -> Heads:
    """The nodes of one attention, or NotFused."""
    by_op: dict[int, list[EdgeBlock]] = {found.score: [], found.result: []}
    rest: list[EdgeBlock] = []
    for block in graph.blocks:
        by_op.get(block.op, rest).append(block)
    operands = _two(by_op[found.score])
    key, query = operands if found.key_first else operands[::-1]
    value, weights = _two(by_op[found.result])[:: 1 if found.value_first else -1]
    if query.src.shape != key.src.shape or (query.dst != key.dst).any():
        raise NotFused("queries and keys are not paired")
    if value.src.shape[1] != 1 or weights.src.shape != value.src.shape:
        raise NotFused("values are mixed along their neurons")
    if (value.dst != weights.dst).any():
        raise NotFused("values and weights are not paired")
    scores, results = query.dst[:, 0], value.dst[:, 0]
    if (graph.nodes.scalars[results] != np.array(NO_SCALAR)).any():
        raise NotFused("its results have parameters of their own")
    read = np.concatenate([block.src.reshape(-1) for block in (query, key, value)])
    for block in rest:
        if block.kind.endswith("_positions") and np.isin(block.src, [*results, *read]).any():
            raise NotFused("its queries, keys, values or results are flattened")
    between, head = _between(graph, rest, scores, results)
    of = np.full(graph.num_nodes, -1)
    of[between] = head
    of_result = of[weights.src[:, 0]]
    inner = query.src.shape[1]
    order = np.argsort(of_result, kind="stable")
    expected = np.repeat(np.arange(len(scores)), inner)
    if len(order) != len(expected) or (of_result[order] != expected).any():
        raise NotFused(f"heads have {inner} neurons in queries and keys, not in values")
    grid = order.reshape(len(scores), inner)
    return Heads(query.src, key.src, value.src[grid, 0], results[grid], between, head)


def _two(blocks: Sequence[EdgeBlock]) -> list[EdgeBlock]:
    if len(blocks) != 2:
        raise NotFused("an operand has some neurons several times")
    return list(blocks)


def _between(
    graph: Graph, blocks: Sequence[EdgeBlock], scores: np.ndarray, results: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes on the way from scores to results, and the head of each."""
    head = np.full(graph.num_nodes, -1)
    head[scores] = np.arange(len(scores))
    ends = np.zeros(graph.num_nodes, dtype=bool)
    ends[results] = True
    grown = True
    while grown:
        grown = False
        for block in blocks:
            read = head[block.src]
            if (read < 0).all():
                continue
            if block.kind.startswith(("linear", "convolution")):
                raise NotFused("its scores are mixed by weights")
            source, target = block.edge_index()
            kept = head[source] >= 0
            source, target = source[kept], target[kept]
            known = head[target]
            if ends[target].any() or ((known >= 0) & (known != head[source])).any():
                raise NotFused("its heads are mixed")
            if (known < 0).any():
                head[target] = head[source]
                if (head[target] != head[source]).any():
                    raise NotFused("its heads are mixed")
                grown = True
    between = np.flatnonzero(head >= 0)
    table = graph.nodes
    if (table.role[between] == NODE_ROLES.index("output")).any():
        raise NotFused("its scores are an output")
    if (table.scalars[between] != np.array(NO_SCALAR)).any():
        raise NotFused("neurons of its scores have parameters")
    if not (table.activation[between] == ACTIVATIONS.index("softmax")).any():
        raise NotFused("its softmax runs over neurons")
    for block in blocks:
        own = (head[block.dst] >= 0).any() and block.kind != "position_bias"
        if own and (block.slots.entries is not None or block.slots.offset != ONE):
            raise NotFused("parameters act on its scores")
    return between, head[between]
