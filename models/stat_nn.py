"""StatNN: an MLP on statistics of the weights of each layer (Unterthiner et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ngc.backends.graphs import GraphBatch, Part, Structure
from ngc.models.facts import Facts
from ngc.models.layers import BIAS, check_predicts
from ngc.models.limits import Fault, require
from ngc.models.perceptron import perceptron
from ngc.models.registry import model
from ngc.models.settings import Share, Size

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
NUM_STATISTICS = 2 + len(QUANTILES)


@model("stat_nn")
class StatNn(nn.Module):
    """Mean, variance and quantiles of each layer's weights and of its biases -> MLP; where graphs
    have them, of the means and variances of norms and other numbers of nodes as well.

    Reads any mixture of architectures with no more layers than the training graphs had. A layer is
    the nodes at one distance from the input with the edges into them; constants (a skip's weights,
    the padding of kernels) do not count. The last layer of every network comes last and layers that
    a network does not have are zeros before it, so that output layers always meet the same weights.
    hidden: width of the two hidden layers. dropout: after each of them.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        predicts: str = "graph",
        outputs: int = 10,
        hidden: Size = 1000,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        check_predicts("stat_nn", predicts, ("graph",))
        self.num_layers = facts.num_layers - 1  # the first one holds the inputs
        self.scalars = facts.scalars
        self.of_layer = NUM_STATISTICS * (1 + len(facts.scalars))
        self.mlp = perceptron(
            self.of_layer * self.num_layers, hidden, hidden, outputs, dropout=dropout
        )

    def forward(self, batch: GraphBatch) -> Tensor:
        require(self, batch)
        return self.mlp(batch.restored([self._read(part) for part in batch.parts]))

    def faults(self, part: Part) -> Iterator[Fault]:
        depth = part.structure.depth
        if depth > self.num_layers:
            yield Fault(f"{depth} layers of weights", f"it reads {self.num_layers}")

    def _read(self, part: Part) -> Tensor:
        """[graphs, statistics] of a part."""
        key = ("stat_nn", self.scalars)
        members = part.structure.keep(key, lambda: members_of_layers(part.structure, self.scalars))
        numbers = part.edges.flatten(1), *(part.x[..., column] for column in self.scalars)
        rows = [
            torch.cat([statistics(of[:, index]) for of, index in zip(numbers, places)], dim=1)
            for places in members
        ]
        missing = self.num_layers - len(members)
        nothing = part.x.new_zeros(len(part), self.of_layer * missing)
        return torch.cat([*rows[:-1], nothing, *rows[-1:]], dim=1)


def members_of_layers(
    structure: Structure, scalars: tuple[int, ...] = (BIAS,)
) -> list[tuple[Tensor, ...]]:
    """For each layer, places of its weights in the kernels [e * width], and of its parameters in
    each of these columns of the node scalars [n]."""
    layer = structure.features["layer"]
    into = layer[structure.features["edge_index"][1]]
    found = []
    for k in range(1, int(layer.max()) + 1):
        weights = structure.weight_mask & (into == k)[:, None]
        of_nodes = [structure.scalar_mask[:, column] & (layer == k) for column in scalars]
        places = (weights.flatten(), *of_nodes)
        found.append(tuple(chosen.nonzero().flatten() for chosen in places))
    return found


def statistics(values: Tensor) -> Tensor:
    """[graphs, entries] -> mean, variance, quantiles [graphs, 7]; zeros of no entries."""
    count = values.shape[1]
    if not count:
        return values.new_zeros(len(values), NUM_STATISTICS)
    variance, mean = torch.var_mean(values, dim=1, correction=0)
    # torch.quantile refuses large layers.
    ranked = values.sort(dim=1).values
    places = torch.tensor(QUANTILES, dtype=torch.float64) * (count - 1)
    below = places.floor().long()
    above = (below + 1).clamp(max=count - 1)
    part = (places - below).to(values)
    quantiles = torch.lerp(ranked[:, below], ranked[:, above], part.expand(len(values), -1))
    return torch.cat([torch.stack([mean, variance], dim=1), quantiles], dim=1)
