"""Finding attention in a graph: which nodes are queries, keys, values and results of which head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ngc.ir import program as ir
from ngc.ir.graph import ACTIVATIONS, NO_SCALAR, NODE_ROLES, EdgeBlock, Graph
from ngc.ir.program import Program, Ref
from ngc.ir.slots import ONE

# What may stand between scores and softmax, or softmax and values: masks, biases, constant scales.
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


def contracted_softmaxes(program: Program) -> Iterator[int]:
    """Operations that contract something with a softmax of a contraction: attention, or its kin."""
    number = {op.out.name: n for n, op in enumerate(program.ops)}
    softmax = [False] * len(program.ops)  # of a contraction, since the last contraction
    contraction = [False] * len(program.ops)
    for n, op in enumerate(program.ops):
        sources = [number[ref] for ref in op.inputs]
        if isinstance(op, ir.Contract):
            if any(softmax[k] for k in sources):
                yield n
            contraction[n] = True
        elif not op.inputs or isinstance(op, ir.Linear | ir.Convolution | ir.Normalise):
            continue
        else:
            contraction[n] = any(contraction[k] for k in sources)
            softmax[n] = any(softmax[k] for k in sources)
            softmax[n] |= isinstance(op, ir.Softmax) and contraction[n]


def attention_at(program: Program, result: int) -> Attention:
    """The attention whose values this operation contracts, or NotFused."""
    number = {op.out.name: n for n, op in enumerate(program.ops)}
    op = program.ops[result]
    assert isinstance(op, ir.Contract)
    reason = NotFused("its weights are no softmax of scores")
    for value_first, weights in enumerate((op.a, op.b)):
        if not _from_contraction(program, number, weights):
            continue
        try:
            score, axis = _scores(program, number, weights)
        except NotFused as error:
            reason = error
            continue
        left, right, out = op.spec.replace("->", ",").split(",")
        own, other = (right, left) if value_first else (left, right)
        summed = [k for k, letter in enumerate(own) if letter in other and letter not in out]
        if summed != [axis]:
            raise NotFused("its softmax does not run along what is summed over")
        made = program.ops[score]
        assert isinstance(made, ir.Contract)
        first, second, letters = made.spec.replace("->", ",").split(",")
        key = letters[axis]
        if (key in first) == (key in second):
            raise NotFused("its softmax does not run over keys")
        return Attention(score, result, key in first, bool(value_first))
    raise reason


def _scores(program: Program, number: dict[Ref, int], weights: Ref) -> tuple[int, int]:
    """The contraction whose softmax these weights are, and the axis of that. In between no axis
    moves, so that the axes of both are the same."""
    axes, ref = [], weights
    while True:
        op = program.ops[number[ref]]
        if isinstance(op, ir.Contract):
            break
        if isinstance(op, ir.Softmax) and op.fn == "softmax":
            axes.append(op.axis)
            ref = op.x
        elif isinstance(op, ir.Cast) or (isinstance(op, ir.Activation) and op.fn == "affine"):
            (ref,) = op.inputs
        elif isinstance(op, ir.Combine) and op.fn in ADDED:
            inner = [x for x in op.inputs if _from_contraction(program, number, x)]
            # Exporters write zeros for the softmax of a row that is masked as a whole.
            tests = [x for x in inner if _is_nan_test(program.ops[number[x]], inner)]
            inner = [x for x in inner if x not in tests]
            if len(inner) != 1:
                raise NotFused("several contractions meet in its scores")
            (ref,) = inner
        elif isinstance(op, ir.Shift | ir.Scale):
            ref = op.x
        else:
            raise NotFused(f"{op.mnemonic} acts on its scores")
    if len(axes) != 1:
        raise NotFused("its weights are no softmax of scores, or one of a softmax")
    if program.ops[number[ref]].out.shape != program.ops[number[weights]].out.shape:
        raise NotFused("its scores change their shape")
    return number[ref], axes[0] % len(program.ops[number[ref]].out.shape)


def _is_nan_test(op: ir.Op, of: Sequence[Ref]) -> bool:
    return isinstance(op, ir.Activation) and op.fn == "is_nan" and op.x in of


def _from_contraction(program: Program, number: dict[Ref, int], start: Ref) -> bool:
    """Whether a value is a contraction, or was computed from one without weights in between."""
    waiting, seen = [start], set()
    while waiting:
        ref = waiting.pop()
        op = program.ops[number[ref]]
        if isinstance(op, ir.Contract):
            return True
        if ref not in seen and not isinstance(op, ir.Linear | ir.Convolution | ir.Normalise):
            waiting += op.inputs
        seen.add(ref)
    return False


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
