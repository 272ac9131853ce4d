"""Finding attention in a graph: which nodes are queries, keys, values and results of which head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ngc.ir import program as ir
from ngc.ir.graph import ACTIVATIONS, NO_SCALAR, NODE_ROLES, EdgeBlock, Graph
from ngc.ir.program import Program, Ref
from ngc.ir.slots import ONE

# What sums over weights: nothing between scores and values does.
WEIGHTED = (ir.Linear, ir.Convolution, ir.ConvolutionTranspose, ir.Embedding)


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


def attention_in(program: Program) -> Iterator[Attention]:
    """A Contract with a softmax of another Contract."""
    number = {op.out.name: n for n, op in enumerate(program.ops)}
    for n, op in enumerate(program.ops):
        if not isinstance(op, ir.Contract):
            continue
        for value_first, weights in enumerate((op.a, op.b)):
            found = _scores(program, number, weights)
            if found is not None:
                score, axis = found
                yield Attention(score, n, _key_first(program.ops[score], axis), bool(value_first))
                break


def _scores(program: Program, number: dict[Ref, int], weights: Ref) -> tuple[int, int] | None:
    """The one Contract behind a softmax, and the axis of that; None if there is no such thing."""
    waiting, seen = [weights], set()
    softmax: ir.Softmax | None = None
    contracts = []
    while waiting:
        ref = waiting.pop()
        if ref in seen:
            continue
        seen.add(ref)
        op = program.ops[number[ref]]
        if isinstance(op, ir.Contract):
            contracts.append(number[ref])
        elif isinstance(op, WEIGHTED):
            return None
        else:
            softmax = op if isinstance(op, ir.Softmax) else softmax
            waiting += op.inputs
    if softmax is None or len(contracts) != 1:
        return None
    return contracts[0], softmax.axis - len(softmax.out.shape)


def _key_first(op: ir.Op, axis: int) -> bool:
    """Whether the first operand of the scores has the axis (from the end) that the softmax is
    taken along: that of the keys."""
    assert isinstance(op, ir.Contract)
    operands, out = op.spec.split("->")
    letter = out[axis]
    return letter in operands.split(",")[0]


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
