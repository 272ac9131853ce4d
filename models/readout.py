"""Node and edge features after the last layer -> what a model predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.utils import scatter, softmax

from ngc.backends.graphs import Edits, GraphBatch, Part
from ngc.errors import OptionError
from ngc.models.encoders import NodeTable
from ngc.models.facts import Facts
from ngc.models.limits import Fault
from ngc.models.settings import Readout

READOUTS = get_args(Readout)


def mlp(*sizes: int) -> nn.Sequential:
    """Linear maps with ReLU between."""
    layers: list[nn.Module] = []
    for k, (into, out) in enumerate(pairwise(sizes)):
        layers += [nn.ReLU(), nn.Linear(into, out)] if k else [nn.Linear(into, out)]
    return nn.Sequential(*layers)


def num_answers(answers: bool, probes: int) -> int:
    """How many answers of each output neuron a readout sees, by the settings of a model."""
    if answers and not probes:
        raise OptionError("answers are those to the probes, and there are none", hint="probes: 64")
    return probes if answers else 0


class GraphReadout(nn.Module):
    """Nodes [nodes, width] -> a vector for each graph [graphs, outputs].

    ``how``: ``outputs``, the output neurons joined in order, so all networks must have as many;
    ``mean``, ``max``: over all nodes; ``attention``: a mean with learned weights. With ``answers``,
    the values of the output neurons on that many probes are joined to that. Then an MLP.
    """

    def __init__(
        self,
        facts: Facts,
        width: int,
        hidden: tuple[int, ...],
        outputs: int,
        how: str,
        answers: int = 0,
    ) -> None:
        super().__init__()
        if how not in READOUTS:
            raise OptionError(f"readout cannot be {how!r}", hint=f"one of {', '.join(READOUTS)}")
        self.how, self.num_outputs, self.answers = how, facts.num_outputs, answers
        self.score = nn.Linear(width, 1) if how == "attention" else None
        pooled = width * facts.num_outputs if how == "outputs" else width
        self.mlp = mlp(pooled + answers * facts.num_outputs, *hidden, outputs)

    def forward(
        self, features: Tensor, nodes: NodeTable, activations: list[Tensor], batch: GraphBatch
    ) -> Tensor:
        if self.how == "outputs":
            rows = zip(batch.parts, batch.split(features))
            chosen = [values[:, part.structure.outputs].flatten(0, 1) for part, values in rows]
            return self.of_outputs(torch.cat(chosen), activations, batch)
        return self._predicted(self._pooled(features, nodes, batch), activations, batch)

    def of_outputs(self, features: Tensor, activations: list[Tensor], batch: GraphBatch) -> Tensor:
        """The same from output neurons alone [output neurons of the batch, width]."""
        sizes = [len(part.structure.outputs) for part in batch.parts]
        rows = features.split([size * len(part) for size, part in zip(sizes, batch.parts)])
        joined = [r.reshape(len(part), -1) for r, part in zip(rows, batch.parts)]
        return self._predicted(batch.restored(joined), activations, batch)

    def _predicted(self, pooled: Tensor, activations: list[Tensor], batch: GraphBatch) -> Tensor:
        if self.answers:
            rows = zip(batch.parts, activations)
            answers = [values[:, part.structure.outputs].flatten(1) for part, values in rows]
            pooled = torch.cat([pooled, batch.restored(answers)], dim=-1)
        return self.mlp(pooled)  # type: ignore[no-any-return]

    def faults(self, part: Part) -> Iterator[Fault]:
        size = len(part.structure.outputs)
        if size != self.num_outputs:
            for setting, reads in (("readout: mean", self.how == "outputs"),
                                   ("answers: false", self.answers)):  # fmt: skip
                if reads:
                    known = f"its readout reads {self.num_outputs}"
                    yield Fault(f"{size} output neurons", known, setting)

    def _pooled(self, features: Tensor, nodes: NodeTable, batch: GraphBatch) -> Tensor:
        weights = features
        if self.score is not None:
            weights = features * softmax(self.score(features), nodes.graph, num_nodes=len(batch))
        how = {"mean": "mean", "max": "max", "attention": "sum"}[self.how]
        return scatter(weights, nodes.graph, dim_size=len(batch), reduce=how)


class ElementReadout(nn.Module):
    """Nodes or edges [graphs, n, width] of each part -> a vector for each, [graphs, n, outputs]."""

    def __init__(self, width: int, hidden: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.mlp = mlp(width, *hidden, outputs)

    def forward(self, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(self.mlp(values) for values in rows)


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

    def faults(self, part: Part) -> Iterator[Fault]:
        depth = part.structure.depth
        if depth > len(self.node_scale):
            yield Fault(f"{depth} layers of weights", f"it edits {len(self.node_scale)}")

    def forward(self, features: Tensor, edges: list[Tensor], batch: GraphBatch) -> Edits:
        nodes, kernels = [], []
        for part, rows, values in zip(batch.parts, batch.split(features), edges):
            layer = part.structure.features["layer"]
            scale = self.node_scale[(layer - 1).clamp(min=0), None]
            biases = self.node(rows) * scale * part.structure.scalar_mask[:, :1]
            nodes.append(F.pad(biases, (0, part.x.shape[-1] - 1)))
            target = layer[part.structure.features["edge_index"][1]]
            scale = self.edge_scale[(target - 1).clamp(min=0), None]
            kernels.append(self.edge(values) * scale * part.structure.weight_mask)
        return Edits(tuple(nodes), tuple(kernels))
