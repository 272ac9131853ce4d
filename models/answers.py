"""What networks answer at given inputs: all that the baselines see that read no weights.

A few inputs at a time, and computed once more in the backward pass, so that the maps of many
convolutional networks are never in memory together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ngc.backends.graphs import Part, Shapes, shapes_text
from ngc.errors import OptionError
from ngc.models.chunks import over_axis
from ngc.models.facts import Facts
from ngc.models.limits import Fault

# Numbers that the networks of a part compute at a time.
CHUNK_VALUES = {"cpu": 2**24, "cuda": 2**28}


def input_shapes(facts: Facts, model: str) -> Shapes:
    """Of the inputs of the training networks, for a model of this name."""
    if not facts.input_shapes:
        raise OptionError(
            f"{model} runs the networks on inputs of one shape; theirs differ or are not known",
            hint="train on networks with the same inputs",
        )
    return facts.input_shapes


def answers(part: Part, points: Sequence[Tensor], model: str) -> Tensor:
    """Outputs [graphs, outputs, m] of the networks at m points, one tensor [m, *shape] for each
    input; differentiable in weights and points."""
    running = part.activations
    if running is None:
        raise OptionError(
            f"{model} runs the networks, but this batch was built without a way to run them",
            hint="bind the graphs with a prober",
        )

    def answer(given: list[Tensor], shared: list[Tensor]) -> tuple[Tensor, ...]:
        (weights,) = shared
        return (running.on(weights).answers(given).movedim(-1, 0),)

    most = CHUNK_VALUES.get(running.weights.device.type, CHUNK_VALUES["cuda"])
    size = max(1, most // max(running.num_values * len(part), 1))
    (found,) = over_axis(answer, list(points), [running.weights], size)
    return torch.movedim(found, 0, -1)


def faults_of_answers(part: Part, points: Sequence[Tensor], outputs: int) -> Iterator[Fault]:
    """Why a model cannot run the networks of a part on its points and read so many outputs."""
    shapes = tuple(tuple(tensor.shape[1:]) for tensor in points)
    if part.activations is not None and (found := part.activations.mismatch(shapes)):
        yield Fault(found, f"its points are {shapes_text(shapes)}")
    if len(part.structure.outputs) != outputs:
        yield Fault(f"{len(part.structure.outputs)} outputs", f"it reads {outputs}")
