"""Loss and gradient of a stack of SIRENs on one grid, written out by hand.

Three things make it four times faster than autograd: sine and cosine are computed once and
kept; the first layer's are put together from those of rows and columns alone,

    sin(a_y + c_x) = sin a_y cos c_x + cos a_y sin c_x,

so that it needs height + width of them instead of height x width; and nothing is allocated twice.
Layout: features before points, [B, features, points].
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ngc.train.siren import ROW_FIRST, Conventions, Params

BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's, as everywhere


class SirenStack:
    """B networks with their images [B, channels, height, width] and the buffers of a step.

    ``weights`` and ``gradient`` are [B, parameters]: every parameter of a network in one row.
    """

    def __init__(self, conventions: Conventions, params: Params, images: Tensor) -> None:
        self.conventions = conventions
        self.num_layers = len(conventions.widths) - 1
        self.weights = torch.cat([params[name].flatten(1) for name in conventions.shapes], 1)
        self.weights = self.weights.to(images.device, torch.float32).contiguous()
        self.gradient = torch.zeros_like(self.weights)
        self.targets = images.flatten(2) - conventions.offset
        count, _, points = self.targets.shape
        device = images.device
        rows = torch.linspace(-1, 1, conventions.height, device=device)
        columns = torch.linspace(-1, 1, conventions.width, device=device)
        self.axes = (rows, columns)
        # Inputs of the first layer, and 1 for its bias.
        self.inputs = torch.cat([conventions.grid(device), torch.ones(points, 1, device=device)], 1)
        self.sines = [
            torch.empty(count, width, points, device=device) for width in conventions.widths[1:-1]
        ]
        self.cosines = [torch.empty_like(sine) for sine in self.sines]
        self.deltas = [torch.empty_like(sine) for sine in self.sines]
        self.deltas.append(torch.empty_like(self.targets))

    def layers(self, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Weight [B, out, in] and bias [B, out, 1] of each layer, views of [B, parameters]."""
        found, start = [], 0
        for fan_in, fan_out in itertools.pairwise(self.conventions.widths):
            end = start + fan_in * fan_out
            weight = flat[:, start:end].unflatten(1, (fan_out, fan_in))
            start = end + fan_out
            found.append((weight, flat[:, end:start].unsqueeze(-1)))
        return found

    def params(self) -> Params:
        """The parameters by name, copies."""
        tensors = (tensor for layer in self.layers(self.weights) for tensor in layer)
        return {
            name: tensor.reshape(-1, *shape).clone()
            for tensor, (name, shape) in zip(tensors, self.conventions.shapes.items())
        }

    def compute_gradient(self) -> None:
        """Fill ``gradient`` with that of each network's mean square error."""
        self._forward()
        self._backward()

    def _forward(self) -> None:
        omega = self.conventions.omega
        layers = self.layers(self.weights)
        self._first(*layers[0])
        for k, (weight, bias) in enumerate(layers[1:-1], start=1):
            z = self.deltas[k]  # free until the way back
            torch.baddbmm(bias, weight, self.sines[k - 1], beta=omega, alpha=omega, out=z)
            torch.sin(z, out=self.sines[k])
            torch.cos(z, out=self.cosines[k])
        weight, bias = layers[-1]
        error = self.deltas[-1]
        torch.baddbmm(self.targets, weight, self.sines[-1], beta=-1, out=error)
        error.add_(bias)

    def _first(self, weight: Tensor, bias: Tensor) -> None:
        size = (self.conventions.height, self.conventions.width)
        row_first = self.conventions.coordinates == ROW_FIRST
        of_row, of_column = weight.split(1, -1) if row_first else weight.split(1, -1)[::-1]
        rows, columns = self.axes
        omega = self.conventions.omega
        a, c = (of_row * rows + bias) * omega, of_column * columns * omega
        sin_a, cos_a = a.sin().unsqueeze(-1), a.cos().unsqueeze(-1)  # [B, features, height, 1]
        sin_c, cos_c = c.sin().unsqueeze(-2), c.cos().unsqueeze(-2)  # [B, features, 1, width]
        sine, cosine = self.sines[0].unflatten(-1, size), self.cosines[0].unflatten(-1, size)
        torch.mul(sin_a, cos_c, out=sine).addcmul_(cos_a, sin_c)
        torch.mul(cos_a, cos_c, out=cosine).addcmul_(sin_a, sin_c, value=-1)

    def _backward(self) -> None:
        omega = self.conventions.omega
        weights, gradients = self.layers(self.weights), self.layers(self.gradient)
        self.deltas[-1].mul_(2 / self.targets[0].numel())
        for k in range(self.num_layers - 1, 0, -1):
            factor = omega if k < self.num_layers - 1 else 1.0
            delta, below = self.deltas[k], self.deltas[k - 1]
            gradients[k][0].copy_(torch.bmm(delta, self.sines[k - 1].mT)).mul_(factor)
            gradients[k][1].copy_(delta.sum(-1, keepdim=True)).mul_(factor)
            torch.baddbmm(below, weights[k][0].mT, delta, beta=0, alpha=factor, out=below)
            below.mul_(self.cosines[k - 1])
        first = (self.deltas[0] @ self.inputs).mul_(omega)
        gradients[0][0].copy_(first[..., :2])
        gradients[0][1].copy_(first[..., 2:])


def adam(stack: SirenStack, rates: Sequence[float]) -> None:
    """Adam on every network by itself, the full image each step; one step a learning rate."""
    first, second = torch.zeros_like(stack.weights), torch.zeros_like(stack.weights)
    beta1, beta2 = BETAS
    for number, rate in enumerate(rates, start=1):
        stack.compute_gradient()
        first.lerp_(stack.gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(stack.gradient, stack.gradient, value=1 - beta2)
        spread = second.sqrt().div_(math.sqrt(1 - beta2**number)).add_(EPSILON)
        stack.weights.addcdiv_(first, spread, value=-rate / (1 - beta1**number))
