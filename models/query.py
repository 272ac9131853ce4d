"""Query: an MLP on a network's outputs at fixed inputs; no weight is read.

What every claim about reading weights has to beat where networks are cheap to run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ngc.backends.graphs import GraphBatch, Part
from ngc.models.answers import answers, faults_of_answers, input_shapes
from ngc.models.facts import Facts
from ngc.models.layers import check_predicts
from ngc.models.limits import Fault, require
from ngc.models.perceptron import perceptron
from ngc.models.registry import model
from ngc.models.settings import Share, Size

SEED = 0  # of the points, so that they are part of the model's definition


@model("query")
class Query(nn.Module):
    """Outputs at ``points`` fixed inputs -> a vector for each network, of any architecture.

    Networks of two coordinates are asked on a square grid over [-1, 1]^2 where ``points`` is a
    square number, else at uniform random inputs in [-1, 1].
    width: of the hidden layers. layers: linear maps. dropout: after each hidden layer.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        predicts: str = "graph",
        outputs: int = 10,
        points: Size = 64,
        width: Size = 512,
        layers: Size = 3,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        check_predicts("query", predicts, ("graph",))
        shapes = input_shapes(facts, "query")
        self.num_inputs, self.num_outputs = len(shapes), facts.num_outputs
        for k, points_of_input in enumerate(fixed_points(points, shapes)):
            self.register_buffer(f"points_{k}", points_of_input)
        self.mlp = perceptron(
            points * facts.num_outputs, *[width] * (layers - 1), outputs, dropout=dropout
        )

    @staticmethod
    def sees(settings: Mapping[str, object]) -> str:
        return f"outputs at {settings['points']} points, no weights"

    def forward(self, batch: GraphBatch) -> Tensor:
        require(self, batch)
        found = [answers(part, self.points, "query").flatten(1) for part in batch.parts]
        return self.mlp(batch.restored(found))

    @property
    def points(self) -> list[Tensor]:
        return [getattr(self, f"points_{k}") for k in range(self.num_inputs)]

    def faults(self, part: Part) -> Iterator[Fault]:
        return faults_of_answers(part, self.points, self.num_outputs)


def fixed_points(count: int, shapes: tuple[tuple[int, ...], ...]) -> list[Tensor]:
    """One tensor [count, *shape] for each input of the networks."""
    side = math.isqrt(count)
    if [math.prod(shape) for shape in shapes] == [2] and side * side == count:
        # Middles of the cells: the border of an image tells little.
        middles = (2 * torch.arange(side) + 1) / side - 1
        return [torch.cartesian_prod(middles, middles).reshape(count, *shapes[0])]
    generator = torch.Generator().manual_seed(SEED)
    return [torch.rand(count, *shape, generator=generator) * 2 - 1 for shape in shapes]
