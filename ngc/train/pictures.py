"""Networks that are pictures: their outputs on a grid of points, differentiable in the weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ngc.backends.torch_exec import Executor
from ngc.compiler import compile
from ngc.errors import ShapeError
from ngc.train.networks import Family


class Renderer:
    """The networks of one architecture as a function from weights to pictures.

    ``points`` [height * width, 2] are run through the compiled program all at once.
    """

    def __init__(self, family: Family, points: Tensor, height: int, width: int) -> None:
        one = family.compilation
        inputs = one.program.inputs
        if len(inputs) != 1 or inputs[0].out.shape[-1:] != points.shape[-1:]:
            found = [list(op.out.shape) for op in inputs]
            raise ShapeError(f"it reads {found}, not points [n,2]", where=one.source.name)
        self.input, self.height, self.width = inputs[0].out.name, height, width
        shapes = {self.input: tuple(points.shape)}
        program = compile(
            family.onnx(family.weights[torch.zeros(1, dtype=torch.long)][0]),
            options=one.plan.options,
            shapes=shapes,
        ).program
        self.executor = Executor(program)
        self.output = program.outputs[0][0]
        self.points = points

    def __call__(self, weights: Tensor) -> Tensor:
        """Pictures [n, channels, height, width] of weights [n, slots]; not clamped to [0, 1]."""
        points = {self.input: self.points.to(weights.device)}

        def pixels(vector: Tensor) -> Tensor:
            return self.executor(vector, points)[self.output]

        # In full precision: a sine of 30 times a rounded number is another sine.
        with torch.autocast(weights.device.type, enabled=False):
            found = torch.func.vmap(pixels)(weights.float())  # [n, height * width, channels]
        return found.mT.unflatten(-1, (self.height, self.width))


def dilate(pictures: Tensor) -> Tensor:
    """The maximum over 3 x 3 pixels, once (grey-scale dilation with a square)."""
    return F.max_pool2d(pictures, kernel_size=3, stride=1, padding=1)


EDITS: dict[str, Callable[[Tensor], Tensor]] = {"dilate": dilate}
