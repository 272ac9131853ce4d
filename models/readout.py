"""Node and edge features after the last layer -> what a model predicts."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter, softmax

from ngc.backends.graphs import Edits, GraphBatch
from ngc.errors import OptionError
from ngc.models.encoders import NodeTable
from ngc.models.facts import Facts

READOUTS = ("outputs", "mean", "max", "attention")


def mlp(*sizes: int) -> nn.Sequential:
    """Linear maps with ReLU between."""
    layers: list[nn.Module] = []
    for k, (into, out) in enumerate(pairwise(sizes)):
        layers += [nn.ReLU(), nn.Linear(into, out)] if k else [nn.Linear(into, out)]
    return nn.Sequential(*layers)


class GraphReadout(nn.Module):
    """Nodes [nodes, width] -> a vector for each graph [graphs, outputs].

    ``outputs``: the output neurons joined in order, so all networks must have as many; ``mean``,
    ``max``: over all nodes; ``attention``: a mean with learned weights. Then an MLP.
    """

    def __init__(
        self, facts: Facts, width: int, hidden: tuple[int, ...], outputs: int, how: str
    ) -> None:
        super().__init__()
        if how not in READOUTS:
            raise OptionError(f"readout cannot be {how!r}", hint=f"one of {', '.join(READOUTS)}")
        self.how, self.num_outputs = how, facts.num_outputs
        self.score = nn.Linear(width, 1) if how == "attention" else None
        joined = width * facts.num_outputs if how == "outputs" else width
        self.mlp = mlp(joined, *hidden, outputs)

    def forward(self, features: Tensor, nodes: NodeTable, batch: GraphBatch) -> Tensor:
        if self.how != "outputs":
            return self.mlp(self._pooled(features, nodes, batch))  # type: ignore[no-any-return]
        rows = zip(batch.parts, batch.split(features))
        chosen = [values[:, part.structure.outputs].flatten(0, 1) for part, values in rows]
        return self.of_outputs(torch.cat(chosen), batch)

    def of_outputs(self, features: Tensor, batch: GraphBatch) -> Tensor:
        """The same from output neurons alone [output neurons of the batch, width]."""
        sizes = [len(part.structure.outputs) for part in batch.parts]
        for size in sizes:
            if size != self.num_outputs:
                raise OptionError(
                    f"a network with {size} output neurons; this model reads {self.num_outputs}",
                    hint="readout: mean, max or attention reads any number",
                )
        rows = features.split([size * len(part) for size, part in zip(sizes, batch.parts)])
        joined = [r.reshape(len(part), -1) for r, part in zip(rows, batch.parts)]
        return self.mlp(batch.restored(joined))  # type: ignore[no-any-return]

    def _pooled(self, features: Tensor, nodes: NodeTable, batch: GraphBatch) -> Tensor:
        weights = features
        if self.score is not None:
            weights = features * softmax(self.score(features), nodes.graph, num_nodes=len(batch))
        how = {"mean": "mean", "max": "max", "attention": "sum"}[self.how]
        return scatter(weights, nodes.graph, dim_size=len(batch), reduce=how)


class EditReadout(nn.Module):
    """Nodes and edges -> changes of the biases and kernels (style editing, appendix E.3).

    An MLP for each, and a learned factor for each layer, for kernels and biases apart.
    """

    INITIAL_SCALE = 0.01

    def __init__(self, facts: Facts, node_width: int, edge_width: int) -> None:
        super().__init__()
        self.node, self.edge = (
            mlp(node_width, node_width, 1),
            mlp(edge_width, edge_width, facts.width),
        )
        layers = facts.num_layers - 1  # the first one holds the inputs
        self.node_scale = nn.Parameter(torch.full((layers,), self.INITIAL_SCALE))
        self.edge_scale = nn.Parameter(torch.full((layers,), self.INITIAL_SCALE))

    def forward(self, features: Tensor, edges: list[Tensor], batch: GraphBatch) -> Edits:
        nodes, kernels = [], []
        for part, rows, values in zip(batch.parts, batch.split(features), edges):
            layer = part.structure.features["layer"]
            if int(layer.max()) > len(self.node_scale):
                raise OptionError(
                    f"a network with {int(layer.max())} layers; this model edits at most "
                    f"{len(self.node_scale)}"
                )
            scale = self.node_scale[(layer - 1).clamp(min=0), None]
            biases = self.node(rows) * scale * part.structure.scalar_mask[:, :1]
            nodes.append(torch.cat([biases, biases.new_zeros(*biases.shape[:2], 3)], dim=-1))
            target = layer[part.structure.features["edge_index"][1]]
            scale = self.edge_scale[(target - 1).clamp(min=0), None]
            kernels.append(self.edge(values) * scale * part.structure.weight_mask)
        return Edits(tuple(nodes), tuple(kernels))
