"""Chains of layers as stacks of weights, and changes of them as changes of graphs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ngc.backends.blocks import scatter_edits
from ngc.compiler import compile
from ngc.errors import OptionError
from ngc.ir.slots import FIRST_SLOT
from ngc.models import MODELS, build
from ngc.models.layers import Chain, EditScale, Layers
from ngc.models.perceptron import ChannelNorm, perceptron
from tests.models.networks import (
    batch_of,
    conv_model,
    facts_of,
    mixed_batch,
    parameters,
    random_weights,
    sine,
)

FIXED = ("mlp", "set_nn", "dws_net", "nfn_np", "nfn_hnp")


def test_the_baselines_are_registered() -> None:
    assert {*FIXED, "stat_nn", "query"} <= MODELS.keys()


def test_layers_are_the_matrices_of_the_networks() -> None:
    network = sine(2, 5, 4, 1)
    weights = random_weights(network, 3)
    named = parameters(network, weights)
    read = Chain.of(facts_of(network), "a model").read(batch_of(network, weights))
    assert len(read.weights) == len(read.biases) == 3
    for k in range(3):
        assert torch.equal(read.weights[k][..., 0], named[f"w{k}"])
        assert torch.equal(read.biases[k], named[f"b{k}"])


def test_kernels_are_read_with_their_taps_and_no_padding() -> None:
    network = compile(conv_model((1, 3, 2), (3, 1)))
    weights = random_weights(network, 2)
    named = parameters(network, weights)
    read = Chain.of(facts_of(network), "a model").read(batch_of(network, weights))
    assert torch.equal(read.weights[0], named["w0"].flatten(3))
    assert torch.equal(read.weights[1], named["w1"].flatten(3))


def test_flat_entries_unflatten() -> None:
    network = sine(2, 5, 4, 1)
    chain = Chain.of(facts_of(network), "a model")
    read = chain.read(batch_of(network, random_weights(network, 3)))
    flat = read.flat()
    assert flat.shape == (3, chain.num_entries) == (3, 2 * 5 + 5 * 4 + 4 + 10)
    back = chain.unflatten(flat)
    for a, b in zip((*back.weights, *back.biases), (*read.weights, *read.biases), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["sine", "conv"])
def test_changes_reach_the_parameters_they_belong_to(kind: str) -> None:
    """The weights themselves as changes give the weights back."""
    network = sine(3, 4, 2) if kind == "sine" else compile(conv_model((1, 3, 2), (3, 1)))
    weights = random_weights(network, 3)
    batch = batch_of(network, weights)
    chain = Chain.of(facts_of(network), "a model")
    edits = chain.edits(batch, chain.read(batch))
    assert torch.equal(edits.nodes[0], batch.parts[0].x * batch.parts[0].structure.scalar_mask)
    assert torch.equal(edits.edges[0], batch.parts[0].edges)
    changes = scatter_edits(network.plan, edits.nodes[0], edits.edges[0])
    assert torch.equal(changes[:, FIRST_SLOT:], weights[:, FIRST_SLOT:])


def test_padding_of_kernels_does_not_change() -> None:
    network = compile(conv_model((1, 3, 2), (3, 1)))
    batch = batch_of(network, random_weights(network, 2))
    chain = Chain.of(facts_of(network), "a model")
    ones = chain.unflatten(torch.ones(2, chain.num_entries))
    edges = chain.edits(batch, ones).edges[0]
    assert torch.equal(edges, batch.parts[0].structure.weight_mask.expand_as(edges).float())


def test_changes_are_scaled_by_layer_for_weights_and_biases() -> None:
    chain = Chain.of(facts_of(sine(2, 5, 4, 1)), "a model")
    scale = EditScale(chain)
    assert scale.weights.tolist() == scale.biases.tolist() == [pytest.approx(0.01)] * 3
    with torch.no_grad():
        scale.weights.copy_(torch.tensor([1.0, 2.0, 3.0]))
        scale.biases.copy_(torch.tensor([4.0, 5.0, 6.0]))
    ones = chain.unflatten(torch.ones(2, chain.num_entries))
    scaled: Layers = scale(ones)
    assert [w.mean().item() for w in (*scaled.weights, *scaled.biases)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", FIXED)
def test_networks_of_several_architectures_are_refused(name: str) -> None:
    facts = facts_of(sine(2, 5, 4, 1), sine(2, 3, 1))
    with pytest.raises(OptionError, match=f"{name} reads networks of one architecture") as error:
        build(name, facts)
    assert "ng_gnn" in str(error.value)


@pytest.mark.parametrize("name", FIXED)
def test_a_batch_of_another_architecture_is_refused(name: str) -> None:
    network, other = sine(2, 5, 4, 1), sine(2, 3, 1)
    reader = build(name, facts_of(network))
    with pytest.raises(OptionError, match=r"layers 2-3-1, .*it reads 2-5-4-1"):
        reader(batch_of(other, random_weights(other, 2)))
    weights = random_weights(network, 1), random_weights(other, 1)
    with pytest.raises(OptionError, match=r"layers 2-3-1, .*it reads 2-5-4-1"):
        reader(mixed_batch((network, weights[0], [0]), (other, weights[1], [1])))


@pytest.mark.parametrize("name", ["set_nn", "stat_nn", "query"])
def test_models_of_pooled_features_do_not_edit(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} cannot predict 'edits'"):
        build(name, facts_of(sine(2, 5, 4, 1)), predicts="edits")


@pytest.mark.parametrize("name", FIXED)
def test_unknown_predictions_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} cannot predict 'nodes'"):
        build(name, facts_of(sine(2, 5, 4, 1)), predicts="nodes")


def test_normalisation_is_over_all_but_the_channels() -> None:
    x = torch.randn(4, 5, 6, 3, generator=torch.Generator().manual_seed(0)) * 7 + 2
    y = ChannelNorm(3)(x)
    assert y.mean((0, 1, 2)).abs().max() < 1e-5
    assert (y.var((0, 1, 2), correction=0) - 1).abs().max() < 1e-4


def test_a_single_row_is_normalised_as_in_evaluation() -> None:
    norm = ChannelNorm(3)
    norm.running_mean = torch.tensor([1.0, 2.0, 3.0])
    row = torch.randn(1, 3, generator=torch.Generator().manual_seed(0))
    training = norm(row)
    assert torch.equal(training, norm.eval()(row))
    assert norm.running_mean.tolist() == [1, 2, 3]


def test_a_perceptron_ends_in_a_linear_map() -> None:
    modules = list(perceptron(5, 4, 4, 3, dropout=0.1, batch_norm=True))
    kinds = [type(module) for module in modules]
    assert kinds == [nn.Linear, ChannelNorm, nn.ReLU, nn.Dropout] * 2 + [nn.Linear]
    assert [type(module) for module in perceptron(5, 4, 3)] == [nn.Linear, nn.ReLU, nn.Linear]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width of ng_gnn cannot be 0: .*greater than or equal to 1"),
        ({"readout": "sum"}, "readout of ng_gnn cannot be 'sum': .*'outputs'"),
        ({"head": (4, 0)}, r"head of ng_gnn cannot be \(4, 0\)"),
        ({"wdith": 4}, "ng_gnn has no setting wdith\n.*width"),
    ],
)
def test_settings_from_python_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build("ng_gnn", facts_of(sine(2, 5, 4, 1)), **settings)
