"""Probing: an MLP on a network's outputs at learned inputs; no weight is read.

The inputs are parameters, trained through the networks (Kahana et al. 2024): what ``query`` asks at
points that are fixed, this asks where the answers tell most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ngc.backends.graphs import GraphBatch, Part, shapes_text
from ngc.errors import OptionError
from ngc.models.answers import answers, faults_of_answers, input_shapes
from ngc.models.facts import Facts
from ngc.models.layers import check_predicts
from ngc.models.limits import Fault, require
from ngc.models.perceptron import perceptron
from ngc.models.registry import model
from ngc.models.settings import Deviation, Share, Size


@model("probing")
class Probing(nn.Module):
    """Outputs at ``points`` learned inputs -> a vector for each network, of any architecture.

    width: of the hidden layers. layers: linear maps. dropout: after each hidden layer. softmax:
    read the probabilities of the classes. spread: deviation of the noise that the inputs begin as;
    ``begin_at`` has them begin as given ones.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        predicts: str = "graph",
        outputs: int = 10,
        points: Size = 64,
        width: Size = 256,
        layers: Size = 3,
        dropout: Share = 0.0,
        softmax: bool = False,
        spread: Deviation = 1.0,
    ) -> None:
        super().__init__()
        check_predicts("probing", predicts, ("graph",))
        shapes = input_shapes(facts, "probing")
        self.num_outputs, self.softmax = facts.num_outputs, softmax
        self.points = nn.ParameterList(spread * torch.randn(points, *shape) for shape in shapes)
        self.mlp = perceptron(
            points * facts.num_outputs, *[width] * (layers - 1), outputs, dropout=dropout
        )

    @staticmethod
    def sees(settings: Mapping[str, object]) -> str:
        return f"outputs at {settings['points']} learned points, no weights"

    def forward(self, batch: GraphBatch) -> Tensor:
        require(self, batch)
        found = [answers(part, list(self.points), "probing") for part in batch.parts]
        if self.softmax:
            found = [of_part.softmax(1) for of_part in found]
        return self.mlp(batch.restored([of_part.flatten(1) for of_part in found]))

    @torch.no_grad()
    def begin_at(self, *inputs: Tensor) -> None:
        """Set the points to these, one tensor [points, *shape] for each input of the networks."""
        given, own = (tuple(tuple(t.shape) for t in all_) for all_ in (inputs, self.points))
        if given != own:
            raise OptionError(f"inputs {shapes_text(given)}, the points are {shapes_text(own)}")
        for points, tensor in zip(self.points, inputs):
            points.copy_(tensor)

    def faults(self, part: Part) -> Iterator[Fault]:
        return faults_of_answers(part, list(self.points), self.num_outputs)
