"""What every model of weights must have, as checks that tests of models share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ngc.backends.blocks import scatter_edits, structure_of
from ngc.backends.graphs import Edits
from ngc.compiler import Compilation
from ngc.models.products import Products
from ngc.symmetry import apply, symmetries
from tests.models.networks import batch_of, mixed_batch, permuted, random_weights


def unscaled(model: nn.Module) -> nn.Module:
    """In evaluation, and predicted changes at full size, so that errors show."""
    for name, parameter in model.named_parameters():
        if ".scale." in f".{name}":
            nn.init.ones_(parameter)
    return model.eval()


def tensors(found: Tensor | tuple[Tensor, ...] | Edits) -> list[Tensor]:
    """What a model predicts, as tensors."""
    if isinstance(found, Edits):
        return [*found.nodes, *found.edges]
    return [found] if isinstance(found, Tensor) else list(found)


def changes(model: nn.Module, network: Compilation, weights: Tensor) -> Tensor:
    """Predicted changes of weights [many, slots]."""
    edits = model(batch_of(network, weights))
    assert isinstance(edits, Edits)
    return scatter_edits(network.plan, edits.nodes[0], edits.edges[0])


@torch.no_grad()
def check_graphs_invariant(model: nn.Module, network: Compilation) -> None:
    """Permuting hidden neurons leaves what is predicted of a network as it is."""
    weights = random_weights(network, 4)
    before = model.eval()(batch_of(network, weights))
    assert before.std(0).min() > 1e-3, "networks are not told apart"
    for seed in range(3):
        after = model(batch_of(network, permuted(network, weights, seed)))
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def check_edits_equivariant(model: nn.Module, network: Compilation) -> None:
    """Permuting hidden neurons permutes the changes."""
    weights = random_weights(network, 4)
    before = changes(unscaled(model), network, weights)
    assert before[:, 2:].std(0).min() > 1e-3, "networks are not told apart"
    assert before[:, 2:].std(1).min() > 1e-3, "entries are not told apart"
    for seed in range(3):
        after = changes(model, network, permuted(network, weights, seed))
        torch.testing.assert_close(after, permuted(network, before, seed), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def check_elements_equivariant(
    model: nn.Module, network: Compilation, weights: Tensor, of_nodes: bool
) -> None:
    """A random symmetry element moves the vectors of nodes or edges as it moves these."""
    (before,) = model.eval()(batch_of(network, weights))
    assert before.std(0).max() > 1e-3, "networks are not told apart"
    assert before.std(1).min() > 1e-3, "elements are not told apart"
    for seed in range(3):
        element = symmetries(network.wiring).random_element(seed)
        (after,) = model(batch_of(network, apply(network.wiring, weights, element)))
        nodes, edges = moved_elements(network, element)
        there = after[:, nodes if of_nodes else edges]
        assert (there - after).abs().max() > 1e-3, "nothing has moved"
        torch.testing.assert_close(there, before, rtol=1e-5, atol=1e-5)


def moved_elements(network: Compilation, element: np.ndarray) -> tuple[list[int], list[int]]:
    """Which node and which edge every node and edge becomes."""
    table = network.plan.graph.nodes
    keys = [(n, *at) for n, at in zip(table.neuron.tolist(), table.place.tolist())]
    node_at = {key: k for k, key in enumerate(keys)}
    nodes = [node_at[int(element[n]), *at] for n, *at in keys]
    ends = structure_of(network.plan).features["edge_index"].T.tolist()
    edge_at = {(source, target): k for k, (source, target) in enumerate(ends)}
    assert len(edge_at) == len(ends), "parallel edges"
    return nodes, [edge_at[nodes[source], nodes[target]] for source, target in ends]


def check_gradients(model: nn.Module, network: Compilation) -> None:
    """Every parameter gets a gradient from what is predicted."""
    torch.manual_seed(0)
    found = model.train()(batch_of(network, random_weights(network, 8)))
    numbers = tensors(found)
    sum(((x - 0.5) ** 2).sum() for x in numbers).backward()  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
def check_batch_mates(model: nn.Module, network: Compilation) -> None:
    """What is predicted of a network does not depend on the others in the batch."""
    weights = random_weights(network, 4)
    together = model.eval()(batch_of(network, weights))
    for k in range(len(weights)):
        alone = model(batch_of(network, weights[k : k + 1]))
        torch.testing.assert_close(alone[0], together[k], rtol=1e-5, atol=1e-5)


# Two sine networks of different depth and width, as sizes of their layers.
MIXED = (2, 8, 8, 1), (2, 5, 6, 4, 1)


@torch.no_grad()
def check_mixed_batch(model: nn.Module, one: Compilation, other: Compilation) -> None:
    """What is predicted of a network, its nodes or its edges does not depend on networks of another
    architecture in the batch; vectors of graphs come in the order of the batch."""
    weights, others = random_weights(one, 3), random_weights(other, 2)
    places = [0, 3, 4], [2, 1]
    mixed = model.eval()(mixed_batch((one, weights, places[0]), (other, others, places[1])))
    apart = [model(batch_of(one, weights)), model(batch_of(other, others))]
    for part, (expected, at) in enumerate(zip(apart, places)):
        if isinstance(mixed, Tensor):
            pairs = [(mixed[at], expected)]
        elif isinstance(mixed, Edits):
            pairs = [(mixed.nodes[part], expected.nodes[0]), (mixed.edges[part], expected.edges[0])]
        else:
            pairs = [(mixed[part], expected[0])]
        for found, alone in pairs:
            torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-6)


def num_parameters(model: nn.Module) -> int:
    """Trainable ones."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def check_only_products_are_low(
    model: nn.Module, network: Compilation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under autocast matrix products are in low precision and nothing else of the edge functions
    is; gradients are finite."""
    found: set[tuple[torch.dtype, torch.dtype]] = set()
    now = Products.now

    def noted(example: Tensor) -> Products:
        products = now(example)
        found.add((products.low, products.high))
        return products

    monkeypatch.setattr(Products, "now", noted)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch_of(network, random_weights(network, 4)))
    output.float().square().sum().backward()
    assert found == {(torch.bfloat16, torch.float32)}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
