"""Networks with normalisations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from tests.networks.base import EXPORTERS, NETWORKS, Network, network


def normalised_mlp(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), norm, nn.GELU(), nn.Linear(8, 3))


def normalised_cnn(norm: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(8, 4, 3), nn.AvgPool2d(2)
    )


def add(
    name: str,
    build: Callable[[nn.Module], nn.Module],
    norm: Callable[[], nn.Module],
    *shape: int,
    exporters: tuple[str, ...] = EXPORTERS,
) -> None:
    NETWORKS[name] = Network(lambda: build(norm()), (shape,), exporters=exporters)


@network("rms_norm_by_hand", (2, 5))
class RmsNormByHand(nn.Module):
    """RMS normalisation as language models write it out."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(5, 8), nn.Linear(8, 3)
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.leave(torch.relu(self.weight * h))


@network("layer_norm_by_hand", (2, 5))
class LayerNormByHand(nn.Module):
    """Layer normalisation as networks write it out that have no layer for it."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(5, 8), nn.Linear(8, 3)
        self.weight, self.bias = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        mean = h.mean(-1, keepdim=True)
        var = (h - mean).pow(2).mean(-1, keepdim=True)
        h = (h - mean) / torch.sqrt(var + 1e-6)
        return self.leave(torch.relu(self.weight * h + self.bias))


add("layer_norm", normalised_mlp, partial(nn.LayerNorm, 8), 2, 5)
add("layer_norm_plain", normalised_mlp, partial(nn.LayerNorm, 8, elementwise_affine=False), 2, 5)
add("layer_norm_no_bias", normalised_mlp, partial(nn.LayerNorm, 8, bias=False), 2, 5)
add("batch_norm_1d", normalised_mlp, partial(nn.BatchNorm1d, 8), 2, 5)
add("batch_norm_2d", normalised_cnn, partial(nn.BatchNorm2d, 8), 1, 3, 6, 6)
add("batch_norm_plain", normalised_cnn, partial(nn.BatchNorm2d, 8, affine=False), 1, 3, 6, 6)
add("group_norm", normalised_cnn, partial(nn.GroupNorm, 4, 8), 1, 3, 6, 6)
add("group_norm_one", normalised_cnn, partial(nn.GroupNorm, 1, 8), 1, 3, 6, 6)
add("instance_norm", normalised_cnn, partial(nn.InstanceNorm2d, 8, affine=True), 1, 3, 6, 6)
add("instance_norm_plain", normalised_cnn, partial(nn.InstanceNorm2d, 8), 1, 3, 6, 6)
# The legacy exporter has no rule for nn.RMSNorm; see RmsNormByHand for what it can export.
rms_norm = partial(nn.RMSNorm, 8, eps=1e-6)
add("rms_norm", normalised_mlp, rms_norm, 2, 5, exporters=("dynamo", "dynamo_optimised"))
