"""The numbers of parameters of the paper, on graphs compiled from zoos' networks (Tables 1 and 6);
those for INRs are in test_ng_gnn.py and test_ng_t.py."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from ngc.compiler import Compilation, compile
from ngc.errors import OptionError
from ngc.models import Facts, build
from tests.models.classifiers import SEVEN, Classifier, Layer, small_cnn_zoo
from tests.models.networks import facts_of
from tests.models.properties import num_parameters

DEEPEST = (
    Layer(8, 3, "relu"), Layer(16, 5, "gelu"), Layer(4, 7, "tanh", skip=0),
    Layer(32, 3, "sigmoid", skip=1), Layer(32, 3, "leaky_relu", skip=2),
)  # fmt: skip
SHALLOWEST = (Layer(4, 3, "tanh"), Layer(8, 5, "none"))


@cache
def small_zoo(**options: object) -> Facts:
    return facts_of(compiled(small_cnn_zoo(), 1, 28, **options))


@cache
def wild_park() -> Facts:
    """As of a training set with the smallest and the largest of its networks."""
    found = [compiled(Classifier(layers), 3, 32, kernel=(7, 7), reverse="features")
             for layers in (SHALLOWEST, DEEPEST)]  # fmt: skip
    return facts_of(*found)


def compiled(module: Classifier, channels: int, size: int, **options: object) -> Compilation:
    return compile(module.eval(), torch.zeros(1, channels, size, size), **options)  # type: ignore[arg-type]


def size_of(name: str, facts: Facts, **settings: object) -> int:
    return num_parameters(build(name, facts, outputs=1, **settings))


def test_ng_gnn_for_the_small_cnn_zoo() -> None:
    facts = small_zoo(linear_as="separate", reverse="features")
    assert size_of("ng_gnn", facts, width=256, activations=SEVEN) == 5_587_969


def test_ng_t_for_the_small_cnn_zoo() -> None:
    found = size_of(
        "ng_t", small_zoo(), activations=SEVEN, node_width=128, edge_width=64,
        attention_width=256, node_hidden=256, edge_hidden=128, head=(256, 256),
    )  # fmt: skip
    assert found == 1_807_873


def test_ng_gnn_for_cnn_wild_park() -> None:
    assert size_of("ng_gnn", wild_park(), activations=SEVEN) == 369_025
    # Of the six functions that such networks have; the published seventh is never read.
    assert size_of("ng_gnn", wild_park(), activations=True) == 369_025 - 64
    assert size_of("ng_gnn", wild_park()) == 369_025 - 448


def test_ng_t_for_cnn_wild_park() -> None:
    paper = {"node_width": 16, "edge_width": 8, "heads": 1, "head": (128, 128)}
    assert size_of("ng_t", wild_park(), activations=SEVEN, **paper) == 125_713
    code = {"node_width": 32, "edge_width": 16, "attention_width": 32, "node_hidden": 64,
            "edge_hidden": 64, "layers": 3, "heads": 4, "head": (64, 64)}  # fmt: skip
    assert size_of("ng_t", wild_park(), activations=SEVEN, **code) == 92_705


def test_stat_nn_for_cnn_wild_park() -> None:
    assert size_of("stat_nn", wild_park(), hidden=1000) == 1_087_001


def test_the_facts_of_cnn_wild_park_are_those_of_the_paper() -> None:
    facts = wild_park()
    assert (facts.width, facts.linear_column) == (49, False)
    assert (facts.num_inputs, facts.num_hidden, facts.num_outputs) == (3, 5, 10)
    assert {*facts.activations} == {*SEVEN} - {"silu"}


def test_a_list_of_activations_has_those_of_the_training_networks() -> None:
    with pytest.raises(OptionError, match="activations leaves out gelu, leaky_relu"):
        build("ng_gnn", wild_park(), activations=["none", "relu", "tanh", "sigmoid"])
    with pytest.raises(OptionError, match="no activation is called 'rleu'"):
        build("ng_t", wild_park(), activations=[*SEVEN, "rleu"])
