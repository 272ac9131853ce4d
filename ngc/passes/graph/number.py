"""Order of the nodes, their layers, and position ids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ngc.ir.graph import NODE_KINDS, NODE_ROLES, Graph, NodeGroup
from ngc.ir.program import Program
from ngc.passes.graph.base import GraphPass


@dataclass(frozen=True)
class Number(GraphPass):
    """nodes in any order -> nodes by layer and operation, grouped; layers are longest paths."""

    name: ClassVar[str] = "number"
    program: Program

    def __call__(self, graph: Graph) -> Graph:
        layer = _layers(graph)
        table = graph.nodes
        inputs = table.role == NODE_ROLES.index("input")
        # Inputs first; then by layer, by operation, copies of a neuron by position.
        keys = (np.arange(len(table)), table.op, layer, ~inputs)
        order = np.lexsort(keys)
        number = np.empty(len(order), dtype=np.int64)
        number[order] = np.arange(len(order))
        nodes = replace(table, layer=layer).take(order)
        blocks = tuple(
            replace(block, src=number[block.src], dst=number[block.dst])
            for block in graph.in_order()
        )
        node_of = np.where(graph.node_of >= 0, number[graph.node_of], -1)
        groups = _groups(nodes, self.program)
        return replace(graph, nodes=nodes, blocks=blocks, node_of=node_of, groups=groups)


def _layers(graph: Graph) -> np.ndarray:
    layer = np.zeros(graph.num_nodes, dtype=np.int64)
    blocks = list(graph.in_order())
    # Copies made by flatten come from operations in order too, but their blocks stand at the
    # operation of the original, so one more sweep settles them.
    for _ in range(len(blocks) + 1):
        before = layer.copy()
        for block in blocks:
            reached = layer[block.src].max(axis=1, keepdims=True) + 1
            np.maximum.at(layer, block.dst, np.broadcast_to(reached, block.dst.shape))
        if (layer == before).all():
            break
    return layer


def _groups(nodes: object, program: Program) -> tuple[NodeGroup, ...]:
    table = np.stack(
        [nodes.op, nodes.kind, nodes.role, nodes.activation, nodes.pool, nodes.layer],  # type: ignore[attr-defined]
        axis=1,
    )
    if not len(table):
        return ()
    starts = np.flatnonzero(np.r_[True, (table[1:] != table[:-1]).any(axis=1)])
    stops = np.r_[starts[1:], len(table)]
    groups: dict[str, NodeGroup] = {}
    for a, b in zip(starts.tolist(), stops.tolist()):
        # Neurons of one operation can be of several kinds: ``h``, ``h.flatten``, ``h.flatten.1``.
        base = name = program.ops[int(table[a, 0])].out.name
        if name in groups:
            base = name = f"{name}.{NODE_KINDS[int(table[a, 1])]}"
        k = 0
        while name in groups:
            k += 1
            name = f"{base}.{k}"
        groups[name] = NodeGroup(name, a, b - a)
    return tuple(groups.values())


@dataclass(frozen=True)
class Positions(GraphPass):
    """position ids: one for each layer of hidden neurons, one for each input and output neuron."""

    name: ClassVar[str] = "positions"

    def __call__(self, graph: Graph) -> Graph:
        role = graph.nodes.role
        ids = np.zeros(graph.num_nodes, dtype=np.int64)
        inputs, hidden, outputs = (role == k for k in range(len(NODE_ROLES)))
        ids[inputs] = np.arange(inputs.sum())
        layers, inverse = np.unique(graph.nodes.layer[hidden], return_inverse=True)
        ids[hidden] = inputs.sum() + inverse
        ids[outputs] = inputs.sum() + len(layers) + np.arange(outputs.sum())
        return replace(graph, nodes=replace(graph.nodes, position_id=ids))
