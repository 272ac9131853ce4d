"""Order of the nodes, and their layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ngc.ir.graph import NODE_KINDS, NODE_ROLES, Graph, NodeGroup, Nodes
from ngc.ir.program import Program
from ngc.passes.graph.base import GraphPass


@dataclass(frozen=True)
class Number(GraphPass):
    """nodes in any order -> nodes by layer and operation, grouped; layers are longest paths within
    a step of recurrent networks."""

    name: ClassVar[str] = "number"
    program: Program

    def __call__(self, graph: Graph) -> Graph:
        layer = _layers(graph)
        table = graph.nodes
        inputs = table.role == NODE_ROLES.index("input")
        # Inputs first; then by layer, by operation, copies of a neuron by position.
        keys = (np.arange(len(table)), table.op, layer, ~inputs)
        order = np.lexsort(keys)
        in_place = bool((order == np.arange(len(order))).all())
        if graph.groups and in_place and (layer == table.layer).all():
            return graph
        number = np.empty(len(order), dtype=np.int64)
        number[order] = np.arange(len(order))
        nodes = replace(table, layer=layer).take(order)
        blocks = tuple(block.renumbered(number) for block in graph.in_order())
        groups = _groups(nodes, self.program)
        return replace(graph, nodes=nodes, blocks=blocks, groups=groups)


def _layers(graph: Graph) -> np.ndarray:
    layer = np.zeros(graph.num_nodes, dtype=np.int64)
    blocks = [block for block in graph.in_order() if not block.recurrent]
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


def _groups(nodes: Nodes, program: Program) -> tuple[NodeGroup, ...]:
    copied = nodes.place[:, 0] >= 0
    columns = [nodes.op, nodes.kind, nodes.role, nodes.activation, nodes.pool, nodes.layer, copied]
    table = np.stack(columns, axis=1)
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
