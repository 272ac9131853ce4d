"""Image classifiers of many architectures, for tests of models on zoos: as ONNX, which compiles in
no time, and as modules of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from ngc.backends.graphs import GraphBatch
from ngc.compiler import Compilation, compile
from tests.models.networks import mixed_batch, model_of, random_weights

# The activation functions that the published models for both zoos embed.
SEVEN = ("none", "relu", "gelu", "tanh", "sigmoid", "leaky_relu", "silu")
MODULES = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
           "leaky_relu": nn.LeakyReLU, "none": nn.Identity}  # fmt: skip
OPERATORS = {"relu": "Relu", "gelu": "Gelu", "tanh": "Tanh", "sigmoid": "Sigmoid",
             "leaky_relu": "LeakyRelu"}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A convolution; ``skip``: the number of an earlier layer added to its first channels."""

    channels: int
    kernel: int = 3
    activation: str = "relu"
    skip: int | None = None
    norm: bool = False
    stride: int = 1

    @property
    def padding(self) -> int:
        return (self.kernel - self.stride + 1) // 2


class Classifier(nn.Module):
    """CNN Wild Park: convolutions, global average pool, linear."""

    def __init__(self, layers: tuple[Layer, ...], inputs: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.layers = layers
        channels = (inputs, *(layer.channels for layer in layers))
        self.convs = nn.ModuleList(
            nn.Conv2d(into, layer.channels, layer.kernel, layer.stride, layer.padding)
            for into, layer in zip(channels, layers)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(layer.channels) if layer.norm else nn.Identity() for layer in layers
        )
        self.activations = nn.ModuleList(MODULES[layer.activation]() for layer in layers)
        self.linear = nn.Linear(channels[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        found: list[Tensor] = []
        for layer, *modules in zip(self.layers, self.convs, self.norms, self.activations):
            conv, norm, activation = modules
            x = norm(conv(x))
            if layer.skip is not None:
                other = found[layer.skip]
                shared = min(x.shape[1], other.shape[1])
                x = torch.cat([x[:, :shared] + other[:, :shared], x[:, shared:]], dim=1)
            x = activation(x)
            found.append(x)
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


def small_cnn_zoo(activation: str = "relu") -> Classifier:
    """Three 3x3 convolutions of stride 2, 1-16-16-16, and a linear layer (Unterthiner et al.)."""
    return Classifier((Layer(16, activation=activation, stride=2),) * 3, inputs=1)


class Operators:
    """Nodes of an ONNX graph, one after another; each is named by what it gives."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def add(self, operator: str, given: list[str], *names: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, given, list(names), **attributes))
        return names[0]

    def sum_of_shared(self, x: str, channels: int, other: str, others: int) -> str:
        """x + other in the channels that both have."""
        shared, rest = min(channels, others), []
        if others > shared:
            other = self._first(other, shared, others, f"{x}_other")
        if channels > shared:
            rest = [f"{x}_rest"]
            x = self._first(x, shared, channels, *rest)
        total = self.add("Add", [x, other], f"{x}_sum")
        return self.add("Concat", [total, *rest], f"{x}_all", axis=1) if rest else total

    def _first(self, x: str, many: int, channels: int, rest: str) -> str:
        sizes = self.add("Constant", [], f"{rest}_sizes", value_ints=[many, channels - many])
        return self.add("Split", [x, sizes], f"{rest}_first", rest, axis=1)


def classifier_model(
    layers: tuple[Layer, ...], inputs: int = 3, classes: int = 4, size: int = 6
) -> onnx.ModelProto:
    """The same as ONNX, x [1, inputs, size, size] -> y [1, classes]."""
    graph, shapes = Operators(), dict[str, tuple[int, ...]]()
    x, into, found = "x", inputs, list[tuple[str, int]]()
    for k, layer in enumerate(layers):
        out, pads = layer.channels, [layer.kernel // 2] * 4
        shapes |= {f"w{k}": (out, into, layer.kernel, layer.kernel), f"b{k}": (out,)}
        x = graph.add("Conv", [x, f"w{k}", f"b{k}"], f"conv{k}", pads=pads)
        if layer.norm:
            of_norm = [f"{name}{k}" for name in ("scale", "shift", "mean", "var")]
            shapes |= dict.fromkeys(of_norm, (out,))
            x = graph.add("BatchNormalization", [x, *of_norm], f"norm{k}")
        if layer.skip is not None:
            x = graph.sum_of_shared(x, out, *found[layer.skip])
        if layer.activation != "none":
            x = graph.add(OPERATORS[layer.activation], [x], f"act{k}")
        into = out
        found.append((x, out))
    shapes |= {"w": (classes, into), "b": (classes,)}
    pooled = graph.add("Flatten", [graph.add("GlobalAveragePool", [x], "pooled")], "flat")
    graph.add("Gemm", [pooled, "w", "b"], "y", transB=1)
    made = model_of(graph.nodes, shapes, (1, inputs, size, size), (1, classes))
    made.opset_import[0].version = 20  # of Gelu
    return made


@cache
def classifier(*layers: Layer, reverse: str = "features", kernel: int = 7) -> Compilation:
    return compile(classifier_model(layers), reverse=reverse, kernel=(kernel, kernel))


def classifier_weights(network: Compilation, many: int, seed: int = 0) -> Tensor:
    """[many, slots], small enough that outputs are; variances are positive."""
    weights = random_weights(network, many, seed)
    weights[:, 2:] *= 0.3
    for param in network.program.params:
        if param.name.startswith("var"):
            weights[:, param.offset : param.offset + param.size].abs_().add_(0.5)
    return weights


# Networks that differ in depth, channels, kernels, activations, skips, norms.
FAMILIES: dict[str, tuple[Layer, ...]] = {
    "plain": (Layer(4), Layer(6)),
    "one layer": (Layer(3, 5, "tanh"),),
    "kernels": (Layer(4, 3), Layer(4, 7, "gelu"), Layer(3, 1, "sigmoid")),
    "skips": (Layer(4, 3, "leaky_relu"), Layer(6, 5), Layer(5, 3, "none", 0), Layer(4, skip=1)),
    "norms": (Layer(4, norm=True), Layer(4, 3, "tanh", skip=0, norm=True)),
    "deep": tuple(Layer(3, 3, "gelu") for _ in range(5)),
}  # fmt: skip


def families(**options: object) -> dict[str, Compilation]:
    return {name: classifier(*layers, **options) for name, layers in FAMILIES.items()}  # type: ignore[arg-type]


def company(
    networks: dict[str, Compilation],
    many: int = 2,
    *,
    weights: Mapping[str, Tensor] | None = None,
    double: bool = False,
) -> tuple[GraphBatch, list[str]]:
    """A batch with ``many`` networks of each architecture in turn, and the name of each. Weights
    are those given, else random ones."""
    names = [name for _ in range(many) for name in networks]
    parts = []
    for number, (name, network) in enumerate(networks.items()):
        given = classifier_weights(network, many, seed=number)
        if weights is not None and name in weights:
            given = weights[name]
        places = [k for k, other in enumerate(names) if other == name]
        parts.append((network, given.double() if double else given, places))
    return mixed_batch(*parts), names
