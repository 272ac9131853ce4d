"""CNN Wild Park: small convolutional networks of many architectures.

A ``Config`` is the architecture of one network, ``sample`` draws one by the rules of a recipe, and
``network`` builds the module. The tensors of a module are named as in the published zoo:
``layers.0.weight``, ``layers.0.bias``, ..., ``fc.weight``, ``fc.bias``. Networks of the zoo are
compiled like anybody's, through PyTorch's exporter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ngc.errors import OptionError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu": F.leaky_relu,
    "identity": lambda x: x,
}
POOLS: dict[str, Callable[[Tensor, int], Tensor]] = {"max": F.max_pool2d, "avg": F.avg_pool2d}
RESIDUALS = ("partial", "late", "projection")
HEADS = ("pool", "flatten")
Size = tuple[int, int]  # height and width
MAX_LAYERS, MAX_CHANNELS, MAX_KERNEL, MAX_STRIDE = 64, 1024, 31, 8
SMALLEST = 4  # height and width below which ``sample`` makes no map smaller


@dataclass(frozen=True)
class Layer:
    """A convolution with same padding, and what follows it: batch normalisation (norm), the sum
    with the output of layer ``skip``, the activation, a pool of 2 x 2."""

    channels: int
    kernel: int
    stride: int = 1
    activation: str = "relu"
    skip: int | None = None
    norm: bool = False
    pool: str | None = None


@dataclass(frozen=True)
class Config:
    """An architecture: layers, head, linear. inputs: channels, height, width.

    head, what the linear layer reads: the mean of each channel (``pool``, the reference's), or
    every pixel of every channel (``flatten``).

    residual, how the output of an earlier layer is added: ``partial``, before the activation and to
    the first channels, as many as both have (the reference's way); ``late``, the same after the
    activation; ``projection``, before the activation, through a 1 x 1 convolution of its own.
    """

    layers: tuple[Layer, ...]
    inputs: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10
    residual: str = "partial"
    head: str = "pool"

    def __post_init__(self) -> None:
        _require(len(self.inputs) == 3, f"{len(self.inputs)} sizes of inputs", "[3, 32, 32]")
        for size in (*self.inputs, self.classes):
            _whole("inputs, classes", size, 1, 2**16)
        _require(self.residual in RESIDUALS, f"residual {self.residual!r}", ", ".join(RESIDUALS))
        _require(self.head in HEADS, f"head {self.head!r}", ", ".join(HEADS))
        count = len(self.layers)
        _require(1 <= count <= MAX_LAYERS, f"{count} layers", f"1 to {MAX_LAYERS}")
        for number, layer in enumerate(self.layers):
            _check(number, layer)
        self.maps()

    def maps(self) -> list[Size]:
        """Height and width after each layer. A skip is added before the pool, to a map of the same
        size; OptionError where it is of another."""
        outputs: list[Size] = []
        size: Size = self.inputs[1:]
        for number, layer in enumerate(self.layers):
            own = strided(size, layer.stride)
            if layer.skip is not None:
                before = outputs[layer.skip]
                text = f"the skip of layer {number} joins maps of {before} and {own} pixels"
                _require(before == own, text, "layers with maps of one size")
            size = pooled(own, layer.pool)
            _require(min(size) >= 1, f"layer {number} has no pixels left", "fewer pools, strides")
            outputs.append(size)
        return outputs

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in network.json."""
        return {
            "layers": [asdict(layer) for layer in self.layers],
            "inputs": list(self.inputs),
            "classes": self.classes,
            "residual": self.residual,
            "head": self.head,
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Config:
        """The inverse of ``to_dict``; OptionError where it is no architecture."""
        given = _known("an architecture", values, Config)
        layers, inputs = given.get("layers"), given.get("inputs", (3, 32, 32))
        for name, value in (("layers", layers), ("inputs", inputs)):
            _require(isinstance(value, list | tuple), f"{name} is {value!r}", "a list")
        made = []
        for layer in layers or ():
            entry = _known("a layer", layer, Layer)
            _require({"channels", "kernel"} <= set(entry), f"{entry}", "channels, kernel")
            made.append(Layer(**entry))
        return Config(**{**given, "layers": tuple(made), "inputs": tuple(inputs)})


def strided(size: Size, stride: int) -> Size:
    """The map of a convolution with same padding and an odd kernel."""
    return ((size[0] - 1) // stride + 1, (size[1] - 1) // stride + 1)


def pooled(size: Size, pool: str | None) -> Size:
    return size if pool is None else (size[0] // 2, size[1] // 2)


def _check(number: int, layer: Layer) -> None:
    """What is wrong with a layer by itself; ``number`` layers come before it."""
    where = f"layer {number}: "
    _whole(f"{where}channels", layer.channels, 1, MAX_CHANNELS)
    _whole(f"{where}kernel", layer.kernel, 1, MAX_KERNEL)
    _require(layer.kernel % 2 == 1, f"{where}kernel {layer.kernel}", "an odd number")
    _whole(f"{where}stride", layer.stride, 1, MAX_STRIDE)
    known = layer.activation in ACTIVATIONS
    _require(known, f"{where}activation {layer.activation!r}", ", ".join(ACTIVATIONS))
    _require(isinstance(layer.norm, bool), f"{where}norm {layer.norm!r}", "true, false")
    known = layer.pool is None or layer.pool in POOLS
    _require(known, f"{where}pool {layer.pool!r}", ", ".join(["null", *POOLS]))
    if layer.skip is not None:
        hint = f"0 to {number - 2}" if number > 1 else "null: none comes before its predecessor"
        found = type(layer.skip) is int and 0 <= layer.skip <= number - 2
        _require(found, f"{where}skip {layer.skip!r}", hint)


def _known(what: str, values: object, kind: type) -> dict[str, Any]:
    keys = [field.name for field in fields(kind)]
    _require(isinstance(values, Mapping), f"{what} is {values!r}", "a mapping")
    assert isinstance(values, Mapping)
    unknown = [key for key in values if key not in keys]
    _require(not unknown, f"{what} has no {unknown[:1]}", ", ".join(keys))
    return dict(values)


def _whole(name: str, value: object, least: int, most: int) -> None:
    found = type(value) is int and least <= value <= most
    _require(found, f"{name} {value!r}", f"{least} to {most}")


def _require(fine: bool, text: str, hint: str) -> None:
    if not fine:
        raise OptionError(text, where="CNN Wild Park", hint=hint)


# --- drawing architectures ----------------------------------------------------------------------


@dataclass(frozen=True)
class Rules:
    """What architectures are drawn from, each list evenly. The defaults are the reference's.

    For each layer: channels, kernels, strides, activations, pools, and a skip (skips): from a
    random earlier layer that is not its predecessor, or none. For the network: its depth (layers),
    whether its layers have batch normalisation (norm), how skips are added (residual), and what its
    linear layer reads (heads).
    A stride or pool is left out where it would leave a map of less than 4 pixels a side, and skips
    join maps of one size.
    """

    layers: tuple[int, ...] = (2, 3, 4, 5)
    channels: tuple[int, ...] = (4, 8, 16, 32)
    kernels: tuple[int, ...] = (3, 5, 7)
    strides: tuple[int, ...] = (1,)
    activations: tuple[str, ...] = ("relu", "gelu", "tanh", "sigmoid", "leaky_relu")
    pools: tuple[str | None, ...] = (None,)
    norm: tuple[bool, ...] = (False,)
    skips: bool = True
    residual: tuple[str, ...] = ("partial",)
    heads: tuple[str, ...] = ("pool",)

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "skips":
                _require(bool(getattr(self, field.name)), f"{field.name} is empty", "a value")
        for depth in self.layers:
            _whole("layers", depth, 1, MAX_LAYERS)
        for name, known in (("residual", RESIDUALS), ("heads", HEADS)):
            for style in getattr(self, name):
                _require(style in known, f"{name} {style!r}", ", ".join(known))
        for name in ("channels", "kernels", "strides", "activations", "pools", "norm"):
            key = name if name in ("channels", "norm") else name.removesuffix("s")
            for value in getattr(self, name):
                _check(0, Layer(**{"channels": 1, "kernel": 1, key: value}))


T = TypeVar("T")


def sample(
    rules: Rules,
    generator: torch.Generator,
    inputs: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
) -> Config:
    """An architecture drawn by the rules."""

    def one(choices: Sequence[T]) -> T:
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    depth, norm, residual = one(rules.layers), one(rules.norm), one(rules.residual)
    layers: list[Layer] = []
    sizes: list[Size] = []
    size: Size = inputs[1:]
    for number in range(depth):
        channels, kernel = one(rules.channels), one(rules.kernels)
        activation, stride, pool = one(rules.activations), one(rules.strides), one(rules.pools)
        stride = stride if min(strided(size, stride)) >= SMALLEST else 1
        size = strided(size, stride)
        earlier = [k for k in range(number - 1) if sizes[k] == size]
        skip = one([None, *earlier]) if rules.skips else None
        pool = pool if min(pooled(size, pool)) >= SMALLEST else None
        size = pooled(size, pool)
        sizes.append(size)
        layers.append(Layer(channels, kernel, stride, activation, skip, norm, pool))
    return Config(tuple(layers), inputs, classes, residual, one(rules.heads))


# --- the network --------------------------------------------------------------------------------


class WildPark(nn.Module):
    """The network of an architecture: images [N, channels, height, width] -> logits [N, classes].

    Its tensors: ``layers.0.weight``, ``.bias``, ..., ``fc.weight``, ``fc.bias``; of layers with
    batch normalisation ``norms.0.weight``, ...; of projections ``skips.2.weight``, ...
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList()
        self.norms, self.skips = nn.ModuleDict(), nn.ModuleDict()
        inputs = config.inputs[0]
        for number, layer in enumerate(config.layers):
            padding = layer.kernel // 2
            self.layers.append(
                nn.Conv2d(inputs, layer.channels, layer.kernel, layer.stride, padding)
            )
            if layer.norm:
                self.norms[str(number)] = nn.BatchNorm2d(layer.channels)
            if layer.skip is not None and config.residual == "projection":
                before = config.layers[layer.skip].channels
                self.skips[str(number)] = nn.Conv2d(before, layer.channels, 1)
            inputs = layer.channels
        pixels = math.prod(config.maps()[-1]) if config.head == "flatten" else 1
        self.fc = nn.Linear(inputs * pixels, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        x = images
        for number, (layer, convolution) in enumerate(zip(self.config.layers, self.layers)):
            x = convolution(x)
            if layer.norm:
                x = self.norms[str(number)](x)
            late = self.config.residual == "late"
            if layer.skip is not None and not late:
                x = x + self._skip(number, outputs[layer.skip])
            x = ACTIVATIONS[layer.activation](x)
            if layer.skip is not None and late:
                x = x + self._skip(number, outputs[layer.skip])
            if layer.pool is not None:
                x = POOLS[layer.pool](x, 2)
            outputs.append(x)
        return self.fc(x.flatten(1) if self.config.head == "flatten" else x.mean((2, 3)))

    def _skip(self, number: int, source: Tensor) -> Tensor:
        """What layer ``number`` adds: through its projection, or the first channels, and zeros to
        those that the source has not."""
        if str(number) in self.skips:
            return self.skips[str(number)](source)
        missing = self.config.layers[number].channels - source.shape[1]
        # Less than none crops. Slicing would, too, but its gradient is not channels last, which
        # makes the steps before it several times slower.
        return F.pad(source, (0, 0, 0, 0, 0, missing)) if missing else source


def network(config: Config | Mapping[str, Any]) -> WildPark:
    """The module of an architecture, with torch's initial weights."""
    return WildPark(config if isinstance(config, Config) else Config.from_dict(config))
