"""Architectures of the CNN Wild Park: drawn by rules, computed as they say, compiled exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ngc
from ngc.errors import OptionError
from ngc.options import CHOICES, Options
from ngc.zoo.wild_park import (
    ACTIVATIONS,
    HEADS,
    RESIDUALS,
    Config,
    Layer,
    Rules,
    WildPark,
    network,
    sample,
)

ALL = Rules(
    layers=(1, 3, 6),
    channels=(2, 3, 5),
    kernels=(1, 3),
    strides=(1, 2),
    activations=tuple(ACTIVATIONS),
    pools=(None, "max", "avg"),
    norm=(False, True),
    residual=RESIDUALS,
    heads=HEADS,
)


def drawn(rules: Rules, count: int, inputs: tuple[int, int, int] = (3, 32, 32)) -> list[Config]:
    generator = torch.Generator()
    found = []
    for seed in range(count):
        generator.manual_seed(seed)
        found.append(sample(rules, generator, inputs))
    return found


def initialised(config: Config, seed: int = 0) -> WildPark:
    """A network in which normalisations do something."""
    torch.manual_seed(seed)
    module = network(config)
    for norm in module.norms.values():
        assert isinstance(norm, nn.BatchNorm2d)
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            assert tensor is not None
            nn.init.normal_(tensor)
        assert norm.running_var is not None
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return module.eval()


# --- drawing ------------------------------------------------------------------------------------


def test_architectures_follow_the_rules_of_the_paper() -> None:
    configs = drawn(Rules(), 400)
    layers = [layer for config in configs for layer in config.layers]
    assert {len(config.layers) for config in configs} == {2, 3, 4, 5}
    assert {layer.channels for layer in layers} == {4, 8, 16, 32}
    assert {layer.kernel for layer in layers} == {3, 5, 7}
    activations = {layer.activation for layer in layers}
    assert activations == {"relu", "gelu", "tanh", "sigmoid", "leaky_relu"}
    plain = {(layer.stride, layer.norm, layer.pool) for layer in layers}
    assert plain == {(1, False, None)}
    assert {(config.residual, config.head) for config in configs} == {("partial", "pool")}


def test_a_skip_is_from_an_earlier_layer_that_is_not_the_predecessor_or_none() -> None:
    found: dict[int, list[int | None]] = {}
    for config in drawn(Rules(layers=(5,)), 600):
        for number, layer in enumerate(config.layers):
            found.setdefault(number, []).append(layer.skip)
    for number, skips in found.items():
        choices = {None, *range(number - 1)}
        assert set(skips) == choices
        for choice in choices:  # each as often as the others: within five deviations
            assert abs(skips.count(choice) - 600 / len(choices)) < 5 * 12.3


def test_one_seed_is_one_architecture() -> None:
    assert drawn(ALL, 20) == drawn(ALL, 20)
    assert len(set(drawn(Rules(), 50))) == 50


def test_options_beyond_the_paper_are_all_drawn_and_keep_maps_large_enough() -> None:
    configs = drawn(ALL, 300, (3, 16, 12))
    layers = [layer for config in configs for layer in config.layers]
    assert {len(config.layers) for config in configs} == {1, 3, 6}
    assert {layer.pool for layer in layers} == {None, "max", "avg"}
    assert {(layer.stride, layer.norm) for layer in layers} == {
        (1, False), (1, True), (2, False), (2, True)}  # fmt: skip
    joined = {
        config.residual for config in configs if any(x.skip is not None for x in config.layers)
    }
    assert joined == set(RESIDUALS)
    assert {config.head for config in configs} == set(HEADS)
    smaller = [[x.stride > 1 for x in c.layers] + [x.pool is not None for x in c.layers]
               for c in configs]  # fmt: skip
    assert max(map(sum, smaller)) == 1  # 16 x 12 may be halved once, to 8 x 6


def test_skips_may_be_left_out() -> None:
    assert all(x.skip is None for c in drawn(Rules(skips=False), 50) for x in c.layers)


def test_an_architecture_is_plain_values_and_back() -> None:
    for config in drawn(ALL, 20):
        assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


# --- computing ----------------------------------------------------------------------------------


def by_hand(config: Config, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Channel by channel, with the tensors of a state_dict."""
    outputs: list[Tensor] = []
    for number, layer in enumerate(config.layers):
        weight, bias = state[f"layers.{number}.weight"], state[f"layers.{number}.bias"]
        x = F.conv2d(x, weight, bias, stride=layer.stride, padding=(layer.kernel - 1) // 2)
        if layer.norm:
            mean, var, scale, shift = (
                state[f"norms.{number}.{name}"][:, None, None]
                for name in ("running_mean", "running_var", "weight", "bias")
            )
            x = (x - mean) / (var + 1e-5).sqrt() * scale + shift
        added = torch.zeros_like(x)
        if layer.skip is not None and config.residual == "projection":
            weight = state[f"skips.{number}.weight"][:, :, 0, 0]
            added = torch.einsum("oc,nchw->nohw", weight, outputs[layer.skip])
            added += state[f"skips.{number}.bias"][:, None, None]
        elif layer.skip is not None:
            for channel in range(min(x.shape[1], outputs[layer.skip].shape[1])):
                added[:, channel] = outputs[layer.skip][:, channel]
        x = x if config.residual == "late" else x + added
        x = {
            "relu": lambda x: x.clamp(min=0),
            "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
            "tanh": torch.tanh,
            "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
            "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
            "identity": lambda x: x,
        }[layer.activation](x)
        x = x + added if config.residual == "late" else x
        if layer.pool is not None:
            height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
            squares = x[:, :, :height, :width].unfold(2, 2, 2).unfold(3, 2, 2)
            x = squares.amax((4, 5)) if layer.pool == "max" else squares.mean((4, 5))
        outputs.append(x)
    if config.head == "flatten":
        weight = state["fc.weight"].reshape(-1, *x.shape[1:])
        return torch.einsum("nchw,ochw->no", x, weight) + state["fc.bias"]
    return x.mean(3).mean(2) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize("rules", [Rules(), ALL], ids=["paper", "all"])
def test_a_network_computes_what_its_architecture_says(rules: Rules) -> None:
    for config in drawn(rules, 12, (3, 9, 8)):
        module = initialised(config)
        images = torch.randn(2, 3, 9, 8)
        with torch.no_grad():
            torch.testing.assert_close(
                module(images), by_hand(config, module.state_dict(), images), rtol=1e-4, atol=1e-5
            )


def test_tensors_are_named_as_in_the_published_zoo() -> None:
    layers = (Layer(4, 3), Layer(8, 5), Layer(4, 7, skip=0))
    state = network(Config(layers, (3, 32, 32))).state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == {
        "layers.0.weight": [4, 3, 3, 3],
        "layers.0.bias": [4],
        "layers.1.weight": [8, 4, 5, 5],
        "layers.1.bias": [8],
        "layers.2.weight": [4, 8, 7, 7],
        "layers.2.bias": [4],
        "fc.weight": [10, 4],
        "fc.bias": [10],
    }


# --- compiling ----------------------------------------------------------------------------------

STYLES = {
    # Skips to more channels, to fewer, and to as many.
    "paper": Config(
        (Layer(2, 3, activation="relu"), Layer(4, 5, activation="gelu"),
         Layer(5, 3, activation="tanh", skip=0), Layer(3, 3, activation="leaky_relu", skip=1),
         Layer(3, 3, activation="sigmoid", skip=0), Layer(3, 3, activation="identity", skip=3)),
        (3, 8, 8),
    ),
    "norm": Config(
        (Layer(2, 3, norm=True), Layer(3, 3, norm=True), Layer(3, 3, norm=True, skip=0)),
        (1, 6, 6),
        classes=3,
    ),
    "pools and strides": Config(
        (Layer(2, 3, stride=2, pool="max"), Layer(4, 3), Layer(3, 3, skip=0, pool="avg")),
        (3, 16, 16),
    ),
    "late": Config(
        (Layer(2, 3, norm=True), Layer(4, 3), Layer(3, 3, activation="tanh", skip=0, norm=True),
         Layer(3, 3, activation="gelu", skip=1, pool="max")),
        (3, 8, 8),
        residual="late",
    ),
    "projection": Config(
        (Layer(2, 3, norm=True), Layer(4, 3), Layer(3, 3, activation="tanh", skip=0, norm=True),
         Layer(3, 3, activation="gelu", skip=1, pool="avg")),
        (3, 8, 8),
        residual="projection",
    ),
    "flatten": Config((Layer(2, 3), Layer(3, 3, pool="max")), (1, 6, 4), head="flatten"),
}  # fmt: skip


@pytest.mark.parametrize("flatten", CHOICES["flatten"])
def test_a_head_that_flattens_passes_the_four_checks_however_it_is_compiled(flatten: str) -> None:
    config = STYLES["flatten"]
    compilation = ngc.compile(
        initialised(config), torch.zeros(1, *config.inputs), options=Options(flatten=flatten)
    )
    assert ngc.verify(compilation).require().checks


@pytest.mark.parametrize("style", STYLES)
def test_every_style_compiles_and_passes_the_four_checks(style: str) -> None:
    config = STYLES[style]
    compilation = ngc.compile(initialised(config), torch.zeros(1, *config.inputs))
    assert [check.name for check in ngc.verify(compilation).require().checks if check.passed]
    kinds = [block.kind for block in compilation.plan.graph.blocks]
    assert kinds.count("identity") >= sum(layer.skip is not None for layer in config.layers)


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layers": []}, "0 layers"),
        ({"layers": 3}, "layers is 3"),
        ({"layers": [{"channels": 4}]}, "channels, kernel"),
        ({"layers": [{"channels": 4, "kernel": 3, "depth": 1}]}, "a layer has no ['depth']"),
        ({"layers": [{"channels": 4, "kernel": 4}]}, "layer 0: kernel 4"),
        ({"layers": [{"channels": 0, "kernel": 3}]}, "layer 0: channels 0"),
        ({"layers": [{"channels": 4.0, "kernel": 3}]}, "layer 0: channels 4.0"),
        ({"layers": [{"channels": 4, "kernel": 3, "activation": "cos"}]}, "activation 'cos'"),
        ({"layers": [{"channels": 4, "kernel": 3, "pool": "min"}]}, "pool 'min'"),
        ({"layers": [{"channels": 4, "kernel": 3}, {"channels": 4, "kernel": 3, "skip": 0}]},
         "layer 1: skip 0"),
        ({"layers": [{"channels": 4, "kernel": 3, "pool": "max"}], "inputs": [3, 1, 1]},
         "no pixels left"),
        ({"layers": [{"channels": 4, "kernel": 3}, {"channels": 4, "kernel": 3, "stride": 2},
                     {"channels": 4, "kernel": 3, "skip": 0}]}, "joins maps of (32, 32)"),
        ({"residual": "dense"}, "residual 'dense'"),
        ({"head": "mean"}, "head 'mean'"),
        ({"inputs": [3, 32]}, "2 sizes"),
        ({"widths": 3}, "no ['widths']"),
    ],
)  # fmt: skip
def test_what_is_no_architecture_is_refused(change: dict[str, Any], said: str) -> None:
    values = {"layers": [{"channels": 4, "kernel": 3}], **change}
    with pytest.raises(OptionError, match=r"CNN Wild Park") as caught:
        Config.from_dict(values)
    assert said in str(caught.value)
