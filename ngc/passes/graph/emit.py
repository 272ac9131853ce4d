"""Wiring -> graph in which every granular neuron is a node; the other graph passes merge them."""

from __future__ import annotations

import numpy as np

from ngc.ir import program as ir
from ngc.ir.graph import (
    ACTIVATIONS,
    EDGE_KINDS,
    NO_SCALAR,
    NODE_KINDS,
    NODE_ROLES,
    POOLS,
    SCALARS,
    EdgeBlock,
    Graph,
    Nodes,
    category,
)
from ngc.passes.wire import Wiring

# The column of the node scalars that each role of a parameter goes to.
COLUMNS = {"bias": "bias", "sub_bias": "mean", "mean": "mean", "var": "var", "slope": "slope"}


def emit(wiring: Wiring) -> Graph:
    """wiring -> graph: one node a neuron, one block a bundle of wires."""
    count = wiring.num_neurons
    kind = np.zeros(count, dtype=np.int16)
    role = np.full(count, NODE_ROLES.index("hidden"), dtype=np.int16)
    activation = np.zeros(count, dtype=np.int16)
    pool = np.zeros(count, dtype=np.int16)
    scalars = np.tile(np.array(NO_SCALAR, dtype=np.int64), (count, 1))
    ops = wiring.program.ops
    for birth in wiring.births:
        own = slice(birth.start, birth.stop)
        op = ops[birth.op]
        kind[own] = category(NODE_KINDS, _kind(op) if birth.role == "out" else birth.role)
        if birth.role == "out":
            activation[own] = _activation(op)
            pool[own] = _pool(op)
        if isinstance(op, ir.Input):
            role[own] = NODE_ROLES.index("input")
    for _, ref in wiring.program.outputs:
        role[np.unique(wiring.index[ref].ids)] = NODE_ROLES.index("output")
    for record in wiring.scalars:
        scalars[record.neurons, SCALARS.index(COLUMNS[record.role])] = record.slots
    nodes = Nodes(
        kind=kind,
        role=role,
        activation=activation,
        pool=pool,
        layer=np.zeros(count, dtype=np.int64),
        position_id=np.zeros(count, dtype=np.int64),
        place=np.full((count, 2), -1, dtype=np.int64),
        scalars=scalars,
        op=wiring.op_of(),
        neuron=np.arange(count),
    )
    blocks = tuple(
        EdgeBlock(
            ops[w.op].origin or ops[w.op].out.name,
            w.op,
            w.kind,
            w.src,
            w.dst,
            w.slots,
            w.kernel,
            recurrent=w.recurrent,
        )
        for w in wiring.wires
    )
    assert all(block.kind in EDGE_KINDS for block in blocks), {b.kind for b in blocks}
    written_out = tuple(wiring.written_out)
    return Graph(wiring.program.name, nodes, blocks, written_out=written_out)


def _kind(op: ir.Op) -> str:
    match op:
        case ir.Input():
            return "input"
        case ir.Parameter():
            return "parameter"
        case ir.Constant():
            return "constant"
        case ir.BatchNorm() | ir.Normalise():
            return "norm"
        case ir.Contract():
            return "product"
        case ir.Reduce():
            return "reduce"
        case ir.Gather():
            return "gather"
        case ir.Scatter():
            return "select"
        case ir.TopK() | ir.Cumulate() | ir.Resize():
            return "order"
        case ir.Combine(fn=fn):
            names = {"add": "sum", "sub": "sum", "mean": "sum", "mul": "product", "div": "product"}
            names |= {"max": "maximum", "min": "minimum", "where": "select", "pow": "product"}
            return names.get(fn, "compare")
    return "sum"


def _activation(op: ir.Op) -> int:
    match op:
        case ir.Activation(fn="affine") | ir.Cast():
            return 0
        case ir.Activation(fn=fn) | ir.Softmax(fn=fn):
            return category(ACTIVATIONS, fn, "other")
        case ir.PRelu():
            return category(ACTIVATIONS, "prelu")
    return 0


def _pool(op: ir.Op) -> int:
    match op:
        case ir.Pool(fn=fn) | ir.Reduce(fn=fn):
            return category(POOLS, fn, "other")
        case ir.Resize() | ir.Cumulate() | ir.TopK():
            return category(POOLS, "other")
    return 0
