"""Position ids (paper, Sec. 2.4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ngc.ir.graph import NODE_ROLES, Graph
from ngc.passes.graph.base import GraphPass


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
        if (ids == graph.nodes.position_id).all():
            return graph
        return replace(graph, nodes=replace(graph.nodes, position_id=ids))
