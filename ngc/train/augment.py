"""Augmentation in weight space: of SIRENs, whose image moves because the weights do, and of any.

    translate   f(p + t)   b_0 += W_0 t
    rotate      f(R p)     W_0 = W_0 R
    rescale     f(s p)     W_0 = s W_0

are exact, for omega multiplies weights and bias alike. Noise and dropout of weights change the
image a little. Settings as in the code of the paper, with two differences: a translation always
acts through the first bias (there also, inexactly, through the second), and noise is noise (there
all entries of a tensor shift by the same tenth of its deviation).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ngc.errors import OptionError
from ngc.train.siren import Params, bias_name, weight_name

if TYPE_CHECKING:
    from ngc.train.networks import Family


@dataclass(frozen=True, slots=True)
class Augment:
    """Each network of a stack is changed by draws of its own.

    translation: of coordinates, uniform in +- this on each axis (the image is 2 wide).
    rotation: degrees, uniform in +- this. scale: the first layer times 1 +- this.
    noise: normal, times the deviation of each tensor of the network.
    dropout: share of entries set to 0; the others grow by 1 / (1 - dropout).
    """

    translation: float = 0.25
    rotation: float = 45.0
    scale: float = 0.2
    noise: float = 0.1
    dropout: float = 0.01

    def __post_init__(self) -> None:
        for name, limit in (("scale", 1.0), ("dropout", 1.0), ("translation", math.inf),
                            ("rotation", math.inf), ("noise", math.inf)):  # fmt: skip
            value = getattr(self, name)
            if not 0 <= value < limit:
                hint = f"from 0, and below {limit:g}" if limit < math.inf else "a number from 0"
                raise OptionError(f"{name} is {value}", where="augment", hint=hint)

    def __call__(self, params: Mapping[str, Tensor], generator: torch.Generator) -> Params:
        """New parameters {name: [B, ...]}; the generator is on the device of the parameters."""
        weight = params[weight_name(0)]

        def uniform(*shape: int) -> Tensor:
            drawn = torch.rand(shape, generator=generator, device=weight.device)
            return 2 * drawn - 1

        count = len(weight)
        result = dict(params)
        if self.translation:
            result = translate(result, self.translation * uniform(count, 2))
        if self.rotation:
            result = rotate(result, math.radians(self.rotation) * uniform(count))
        if self.noise:
            result = {name: noisy(p, self.noise, generator) for name, p in result.items()}
        if self.dropout:
            result = {name: dropped(p, self.dropout, generator) for name, p in result.items()}
        if self.scale:
            result = rescale(result, 1 + self.scale * uniform(count))
        return result

    def changed(self, family: Family, weights: Tensor, generator: torch.Generator) -> Tensor:
        """New weights [n, slots] of networks of a family."""
        return family.packed(self(family.params(weights), generator))


@dataclass(frozen=True, slots=True)
class WeightAugment:
    """Each network of a stack is changed by draws of its own, whatever its architecture.

    noise: normal, times the deviation of each tensor of the network.
    dropout: share of entries set to 0; the others grow by 1 / (1 - dropout).
    permute: neurons change places by a random element of the network's symmetry group, which
    leaves its function as it is. An equivariant model does not see it.
    """

    noise: float = 0.1
    dropout: float = 0.01
    permute: bool = False

    def __post_init__(self) -> None:
        for name, limit in (("noise", math.inf), ("dropout", 1.0)):
            value = getattr(self, name)
            if not 0 <= value < limit:
                hint = f"from 0, and below {limit:g}" if limit < math.inf else "a number from 0"
                raise OptionError(f"{name} is {value}", where="augment", hint=hint)

    def changed(self, family: Family, weights: Tensor, generator: torch.Generator) -> Tensor:
        """New weights [n, slots] of networks of a family."""
        params = family.params(weights)
        if self.noise:
            params = {name: noisy(p, self.noise, generator) for name, p in params.items()}
        if self.dropout:
            params = {name: dropped(p, self.dropout, generator) for name, p in params.items()}
        found = family.packed(params)
        return family.permuted(found, generator) if self.permute else found


def noisy(param: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """With noise of so many deviations. A tensor of one entry a network has none, and stays."""
    if param[0].numel() < 2:
        return param
    spread = param.flatten(1).std(1).view(-1, *[1] * (param.dim() - 1))
    drawn = torch.randn(param.shape, generator=generator, device=param.device)
    return param + noise * spread * drawn


def dropped(param: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """With a share of the entries set to 0, the others grown."""
    drawn = torch.rand(param.shape, generator=generator, device=param.device)
    return torch.where(drawn < share, 0.0, param / (1 - share))


def translate(params: Mapping[str, Tensor], shift: Tensor) -> Params:
    """Networks of f(p + shift); shift [B, 2], in coordinates."""
    moved = (params[weight_name(0)] @ shift.unsqueeze(-1)).squeeze(-1)
    return {**params, bias_name(0): params[bias_name(0)] + moved}


def rotate(params: Mapping[str, Tensor], angle: Tensor) -> Params:
    """Networks of f(R p), R = [[cos, -sin], [sin, cos]]; angle [B], radians."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    matrix = torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))
    return {**params, weight_name(0): params[weight_name(0)] @ matrix}


def rescale(params: Mapping[str, Tensor], factor: Tensor) -> Params:
    """Networks of f(factor p); factor [B]."""
    return {**params, weight_name(0): params[weight_name(0)] * factor.view(-1, 1, 1)}
