"""What a hand-made network is, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]

# torch.onnx.export with dynamo=True and optimize=False; the same optimised; with dynamo=False.
EXPORTERS = ("dynamo", "dynamo_optimised", "legacy")


@dataclass(frozen=True)
class Network:
    """A module, and the shapes of its inputs; ``ids``: inputs hold integers below that number;
    ``flattens``: it has a Linear after a flatten, so that the flatten strategies matter;
    ``exporters``: those that can export it."""

    build: Callable[[], nn.Module]
    shapes: tuple[Shape, ...]
    ids: int = 0
    flattens: bool = False
    exporters: tuple[str, ...] = EXPORTERS

    def module(self) -> nn.Module:
        """The module with parameters that are all different, in evaluation mode."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = self.build().eval()
            perturb(module)
        return module

    def inputs(self) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(1)
        if self.ids:
            return tuple(torch.randint(self.ids, s, generator=generator) for s in self.shapes)
        return tuple(torch.randn(s, generator=generator) for s in self.shapes)


NETWORKS: dict[str, Network] = {}


def network(
    name: str, *shapes: Shape, ids: int = 0, flattens: bool = False
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Register a module class under a name."""

    def register(cls: type[nn.Module]) -> type[nn.Module]:
        assert name not in NETWORKS, name
        NETWORKS[name] = Network(cls, shapes, ids, flattens)
        return cls

    return register


@torch.no_grad()
def perturb(module: nn.Module) -> None:
    """Move biases, scales and statistics away from the zeros and ones that they start from: a
    wrong wiring would not show on those."""
    for parameter in module.parameters():
        if parameter.dim() < 2:
            parameter += 0.3 * torch.randn_like(parameter)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer += 0.3 * torch.randn_like(buffer)
        elif name.endswith("running_var"):
            buffer *= 0.5 + torch.rand_like(buffer)
