"""MLP on flat weights, Set NN, StatNN."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ngc.backends.blocks import structure_of
from ngc.compiler import compile
from ngc.errors import OptionError
from ngc.models import build
from ngc.models.stat_nn import NUM_STATISTICS, members_of_layers, statistics
from tests.models.classifiers import classifier_weights, company, families
from tests.models.networks import (
    batch_of,
    conv_model,
    facts_of,
    mixed_batch,
    parameters,
    permuted,
    random_weights,
    sine,
)
from tests.models.properties import (
    changes,
    check_batch_mates,
    check_gradients,
    check_graphs_invariant,
    unscaled,
)

NETWORK = sine(2, 5, 4, 1)


def parameters_of(name: str, **settings: object) -> int:
    return sum(p.numel() for p in build(name, facts_of(NETWORK), **settings).parameters())


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", ["mlp", "set_nn", "stat_nn"])
def test_every_parameter_learns(name: str) -> None:
    check_gradients(build(name, facts_of(NETWORK), outputs=3), NETWORK)


@pytest.mark.parametrize("name", ["mlp", "set_nn", "stat_nn"])
def test_batch_mates_do_not_matter(name: str) -> None:
    check_batch_mates(build(name, facts_of(NETWORK), outputs=3), NETWORK)


@pytest.mark.parametrize("name", ["set_nn", "stat_nn"])
def test_sets_and_statistics_do_not_see_the_order_of_neurons(name: str) -> None:
    check_graphs_invariant(build(name, facts_of(NETWORK), outputs=3), NETWORK)


# --- MLP ---


def test_mlp_sees_the_order_of_neurons() -> None:
    model = build("mlp", facts_of(NETWORK)).eval()
    weights = random_weights(NETWORK, 2)
    one, other = (model(batch_of(NETWORK, w)) for w in (weights, permuted(NETWORK, weights)))
    assert (one - other).abs().max() > 1e-3


def test_mlp_is_linear_maps_of_all_entries() -> None:
    entries = 2 * 5 + 5 * 4 + 4 + 10
    expected = (entries * 7 + 7) + (7 * 7 + 7) + (7 * 3 + 3)
    assert parameters_of("mlp", width=7, layers=3, outputs=3, batch_norm=False) == expected


def test_mlp_edits_every_entry_of_each_network() -> None:
    model = build("mlp", facts_of(NETWORK), predicts="edits")
    check_gradients(model, NETWORK)
    weights = random_weights(NETWORK, 3)
    found = changes(unscaled(model), NETWORK, weights)
    assert found.shape == weights.shape
    assert found[:, 2:].std(0).min() > 1e-3
    assert found[:, :2].abs().max() == 0


def test_mlp_trains_on_a_batch_of_one() -> None:
    model = build("mlp", facts_of(NETWORK)).train()
    assert model(batch_of(NETWORK, random_weights(NETWORK, 1))).isfinite().all()


# --- Set NN ---


def test_set_nn_does_not_see_which_neurons_a_weight_joins() -> None:
    model = build("set_nn", facts_of(NETWORK), outputs=3).eval()
    weights = random_weights(NETWORK, 4)
    shuffled = weights.clone()
    inner = parameters(NETWORK, shuffled)["w1"]
    inner.copy_(inner.flip(1, 2).transpose(1, 2).reshape(inner.shape))
    moved = weights.clone()
    names = parameters(NETWORK, moved)
    names["w0"][:, 0, 0], names["w1"][:, 0, 0] = names["w1"][:, 0, 0].clone(), names["w0"][:, 0, 0]
    before = model(batch_of(NETWORK, weights))
    torch.testing.assert_close(model(batch_of(NETWORK, shuffled)), before, rtol=1e-5, atol=1e-5)
    assert (model(batch_of(NETWORK, moved)) - before).abs().max() > 1e-3, "layers are sets apart"


def test_set_nn_tells_biases_from_weights() -> None:
    model = build("set_nn", facts_of(NETWORK), outputs=3).eval()
    weights = random_weights(NETWORK, 4)
    swapped = weights.clone()
    names = parameters(NETWORK, swapped)
    bias = names["b1"][:, 0].clone()
    names["b1"][:, 0] = names["w1"][:, 0, 0]
    names["w1"][:, 0, 0] = bias
    difference = model(batch_of(NETWORK, swapped)) - model(batch_of(NETWORK, weights))
    assert difference.abs().max() > 1e-3


# --- StatNN ---


def test_statistics_are_those_of_numpy() -> None:
    values = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    expected = [
        values.numpy().mean(1),
        values.numpy().var(1),
        *np.quantile(values.numpy(), [0, 0.25, 0.5, 0.75, 1], axis=1),
    ]
    np.testing.assert_allclose(statistics(values), np.stack(expected, axis=1), atol=1e-6)


def test_statistics_of_one_entry_and_of_none() -> None:
    one = statistics(torch.tensor([[3.0]]))
    assert one.tolist() == [[3, 0, 3, 3, 3, 3, 3]]
    assert statistics(torch.zeros(2, 0)).tolist() == [[0.0] * 7] * 2


def test_layers_hold_their_weights_and_not_the_padding() -> None:
    network = compile(conv_model((1, 3, 2), (3, 1)))
    weights = random_weights(network, 2)
    named = parameters(network, weights)
    part = batch_of(network, weights).parts[0]
    members = members_of_layers(structure_of(network.plan))
    assert [(len(w), len(b)) for w, b in members] == [(27, 3), (6, 2)]
    for k, (of_weights, of_biases) in enumerate(members):
        found = part.edges.flatten(1)[:, of_weights].sort(1).values
        assert torch.equal(found, named[f"w{k}"].flatten(1).sort(1).values)
        assert torch.equal(part.x[:, of_biases, 0], named[f"b{k}"])


def test_statistics_of_classifiers_are_of_every_parameter_and_of_nothing_else() -> None:
    networks = families()
    facts = facts_of(*networks.values())
    assert facts.scalars == (0, 1, 2), "bias, mean and variance of a norm"
    for name, network in networks.items():
        members = members_of_layers(structure_of(network.plan), facts.scalars)
        found = sum(len(index) for places in members for index in places)
        assert found == sum(param.size for param in network.program.params), name
    model = build("stat_nn", facts, outputs=3, hidden=8).eval()
    batch, names = company(networks)
    together = model(batch)
    for number, (name, network) in enumerate(networks.items()):
        alone = model(batch_of(network, classifier_weights(network, 2, seed=number)))
        places = [k for k, other in enumerate(names) if other == name]
        torch.testing.assert_close(together[places], alone, rtol=1e-5, atol=1e-5)


def test_layers_that_a_network_lacks_are_zeros_before_the_last() -> None:
    deep, shallow = sine(2, 5, 4, 1), sine(2, 3, 1)
    model = build("stat_nn", facts_of(deep, shallow))
    read: list[torch.Tensor] = []
    model.mlp.register_forward_hook(lambda module, given, result: read.append(given[0]))
    weights = random_weights(shallow, 2)
    model(batch_of(shallow, weights))
    layers = read[0].unflatten(1, (3, 2, NUM_STATISTICS))
    named = parameters(shallow, weights)
    assert layers[:, 1].abs().max() == 0
    for place, k in ((0, 0), (2, 1)):
        torch.testing.assert_close(layers[:, place, 0, 0], named[f"w{k}"].mean((1, 2)))
        torch.testing.assert_close(layers[:, place, 1, 0], named[f"b{k}"].mean(1))


def test_statnn_reads_mixed_architectures_in_their_order() -> None:
    deep, shallow = sine(2, 5, 4, 1), sine(2, 3, 1)
    model = build("stat_nn", facts_of(deep, shallow), outputs=3).eval()
    weights = random_weights(deep, 2), random_weights(shallow, 2)
    mixed = model(mixed_batch((deep, weights[0], [0, 3]), (shallow, weights[1], [2, 1])))
    torch.testing.assert_close(mixed[[0, 3]], model(batch_of(deep, weights[0])))
    torch.testing.assert_close(mixed[[2, 1]], model(batch_of(shallow, weights[1])))


def test_statnn_refuses_deeper_networks() -> None:
    deep, shallow = sine(2, 5, 4, 1), sine(2, 3, 1)
    model = build("stat_nn", facts_of(shallow))
    with pytest.raises(OptionError, match=r"3 layers of weights \(it reads 2\)"):
        model(batch_of(deep, random_weights(deep, 1)))
