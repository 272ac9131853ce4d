"""Set NN: weights and biases as sets of numbers, one set a layer (DeepSets, Zaheer et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ngc.backends.graphs import GraphBatch, Part
from ngc.models.facts import Facts
from ngc.models.layers import Chain, check_predicts
from ngc.models.limits import Fault
from ngc.models.perceptron import perceptron
from ngc.models.registry import model
from ngc.models.settings import Share, Size


@model("set_nn")
class SetNn(nn.Module):
    """rho(mean of phi over layer 1's elements, over layer 2's, ...).

    An element is a weight (its kernel) or a bias; phi sees its value and a learned embedding of its
    layer and of being a weight or a bias. Nothing tells which neurons a weight joins.
    width: of the sets' features. layers: linear maps of phi after the first. head: width of the two
    hidden layers of rho. dropout: after each of these.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        predicts: str = "graph",
        outputs: int = 10,
        width: Size = 64,
        layers: Size = 2,
        head: Size = 256,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        check_predicts("set_nn", predicts, ("graph",))
        self.chain = Chain.of(facts, "set_nn")
        sets = len(self.chain.sizes)
        self.weight, self.bias = nn.Linear(self.chain.width, width), nn.Linear(1, width)
        self.layer = nn.Parameter(torch.randn(2, sets, width) / width**0.5)
        self.phi = nn.Sequential(nn.ReLU(), perceptron(*[width] * (layers + 1)))
        self.rho = perceptron(sets * width, head, head, outputs, dropout=dropout)

    def faults(self, part: Part) -> Iterator[Fault]:
        return self.chain.faults(part)

    def forward(self, batch: GraphBatch) -> Tensor:
        read = self.chain.read(batch)
        pooled = []
        for k, (weights, biases) in enumerate(zip(read.weights, read.biases)):
            elements = torch.cat(
                [
                    self._of_weights(weights.flatten(1, 2), k) + self.layer[0, k],
                    self.bias(biases[..., None]) + self.layer[1, k],
                ],
                dim=1,
            )
            pooled.append(self.phi(elements).mean(1))
        return batch.restored([self.rho(torch.cat(pooled, dim=-1))])

    def _of_weights(self, weights: Tensor, layer: int) -> Tensor:
        columns = list(self.chain.columns[layer])
        return F.linear(weights, self.weight.weight[:, columns], self.weight.bias)
