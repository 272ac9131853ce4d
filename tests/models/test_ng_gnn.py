"""NG-GNN: its size, its two forms, and what it must be blind to."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ngc.backends.blocks import scatter_edits
from ngc.backends.graphs import Edits, GraphBatch
from ngc.compiler import Compilation, compile
from ngc.errors import OptionError
from ngc.models import Facts, chunks
from ngc.models.ng_gnn import NgGnn
from ngc.symmetry import apply, symmetries
from tests.models.networks import (
    batch_of,
    conv_model,
    facts_of,
    noisy,
    random_weights,
    sine_model,
)
from tests.models.properties import (
    MIXED,
    check_batch_mates,
    check_elements_equivariant,
    check_gradients,
    check_mixed_batch,
    check_only_products_are_low,
    num_parameters,
    tensors,
)

CNN = Path(__file__).parents[2] / "examples" / "mnist_cnn.onnx"


@cache
def inr(*sizes: int) -> Compilation:
    return compile(sine_model(sizes), reverse="features")


@cache
def cnn(flatten: str = "kernel") -> Compilation:
    """A trained classifier with BatchNorm and a residual."""
    return compile(CNN, reverse="features", flatten=flatten)


def small(facts: Facts, **settings: object) -> NgGnn:
    torch.manual_seed(0)
    chosen: dict[str, Any] = {"width": 16, "layers": 3, "dropout": 0.0} | settings
    return NgGnn(facts, **chosen).eval()


# --- sizes: those of the paper ---


@pytest.mark.parametrize(("probes", "expected"), [(0, 331_466), (64, 348_746)])
def test_inr_classification_has_the_papers_size(probes: int, expected: int) -> None:
    assert num_parameters(NgGnn(facts_of(inr(2, 32, 32, 1)), probes=probes)) == expected


@pytest.mark.parametrize(("probes", "expected"), [(0, 1_186_696), (64, 1_221_128)])
def test_style_editing_has_the_papers_size(probes: int, expected: int) -> None:
    facts = facts_of(inr(2, 32, 32, 1))
    model = NgGnn(facts, predicts="edits", width=128, sigma=0, probes=probes)
    assert num_parameters(model) == expected


# --- two forms, one function ---


def networks(name: str) -> tuple[Compilation, Tensor]:
    if name == "inr":
        return inr(2, 8, 8, 1), random_weights(inr(2, 8, 8, 1), 5)
    if name == "separate":
        compiled = compile(CNN, reverse="features", flatten="virtual", linear_as="separate")
        return compiled, noisy(compiled, 2)
    return cnn(name), noisy(cnn(name), 3)


@pytest.mark.parametrize(
    ("name", "reverse"),
    [("inr", "features"), ("inr", "append"), ("inr", "none"), ("kernel", "features"),
     ("virtual", "features"), ("separate", "features")],
)  # fmt: skip
def test_blocks_and_lists_agree(name: str, reverse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, weights = networks(name)
    if reverse != "features":
        compiled = compile(sine_model((2, 8, 8, 1)), reverse=reverse)
    monkeypatch.setitem(chunks.CHUNK_ENTRIES, "cpu", 4096)  # several chunks
    facts = facts_of(compiled)
    batch = batch_of(compiled, weights)
    blocks, lists = small(facts, path="blocks", probes=4), small(facts, path="lists", probes=4)
    lists.load_state_dict(blocks.state_dict())
    found, expected = blocks(batch), lists(batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("predicts", ["graph", "nodes", "edges", "edits"])
def test_gradients_of_blocks_and_lists_agree(
    predicts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(chunks.CHUNK_ENTRIES, "cpu", 4096)
    compiled, weights = networks("inr")
    weights = weights.double()
    gradients = []
    for path in ("blocks", "lists"):
        model = small(facts_of(compiled), path=path, predicts=predicts).double()
        given = weights.clone().requires_grad_()
        found = model(batch_of(compiled, given))
        sum((x**2).sum() for x in tensors(found)).backward()  # type: ignore[union-attr]
        gradients.append([given.grad, *(p.grad for p in model.parameters())])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_edges_that_tie_for_an_extreme_share_its_gradient() -> None:
    compiled = inr(2, 8, 8, 1)
    weights = random_weights(compiled, 2).double()
    weights[:, 2:] = 0.5  # all neurons of a layer are alike, and so are their messages
    gradients = []
    for path in ("blocks", "lists"):
        model = small(facts_of(compiled), path=path).double()
        model(batch_of(compiled, weights)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_low_precision_stays_near() -> None:
    compiled, weights = networks("inr")
    model = small(facts_of(compiled), width=32)
    batch = batch_of(compiled, weights)
    expected = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(batch)
    found.float().square().sum().backward()
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_only_products_are_in_low_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    network = inr(2, 8, 8, 1)
    check_only_products_are_low(small(facts_of(network)), network, monkeypatch)


# --- what it must be blind to ---


@pytest.mark.parametrize("name", ["inr", "kernel", "repeat"])
@torch.no_grad()
def test_graph_outputs_do_not_see_the_order_of_neurons(name: str) -> None:
    compiled, weights = networks(name)
    model = small(facts_of(compiled), probes=4, activations=True)
    before = model(batch_of(compiled, weights))
    assert before.std(0).max() > 2e-3, "networks are not told apart"
    group = symmetries(compiled.wiring)
    for seed in range(2):
        moved = apply(compiled.wiring, weights, group.random_element(seed))
        assert not torch.equal(moved, weights)
        after = model(batch_of(compiled, moved))
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["inr", "kernel"])
@torch.no_grad()
def test_edits_follow_the_order_of_neurons(name: str) -> None:
    compiled, weights = networks(name)
    model = small(facts_of(compiled), predicts="edits", probes=4)
    for scale in (model.edit_readout.node_scale, model.edit_readout.edge_scale):  # type: ignore[union-attr]
        scale.fill_(1.0)

    def edit(weights: Tensor) -> Tensor:
        edits = model(batch_of(compiled, weights))
        assert isinstance(edits, Edits)
        return scatter_edits(compiled.plan, edits.nodes[0], edits.edges[0])

    before = edit(weights)
    assert before[:, 2:].std(1).min() > 1e-4
    element = symmetries(compiled.wiring).random_element(1)
    after = edit(apply(compiled.wiring, weights, element))
    expected = apply(compiled.wiring, before, element)
    torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["inr", "kernel"])
@pytest.mark.parametrize("predicts", ["nodes", "edges"])
def test_vectors_of_nodes_and_edges_follow_the_order_of_neurons(predicts: str, name: str) -> None:
    network, weights = networks(name)
    model = small(facts_of(network), predicts=predicts, outputs=3, probes=4)
    check_elements_equivariant(model, network, weights, predicts == "nodes")


def test_batch_mates_do_not_matter() -> None:
    check_batch_mates(small(facts_of(inr(2, 8, 8, 1)), probes=3), inr(2, 8, 8, 1))


@pytest.mark.parametrize("path", ["blocks", "lists"])
@pytest.mark.parametrize("readout", ["outputs", "mean", "max", "attention"])
@pytest.mark.parametrize("answers", [False, True])
def test_architectures_mix_in_a_batch(path: str, readout: str, answers: bool) -> None:
    one, other = (inr(*sizes) for sizes in MIXED)
    facts = facts_of(one, other)
    model = small(facts, path=path, readout=readout, probes=2, answers=answers)
    check_mixed_batch(model, one, other)


@pytest.mark.parametrize("path", ["blocks", "lists"])
@pytest.mark.parametrize("predicts", ["nodes", "edges", "edits"])
def test_elements_of_mixed_architectures_are_those_of_each(path: str, predicts: str) -> None:
    one, other = (inr(*sizes) for sizes in MIXED)
    check_mixed_batch(small(facts_of(one, other), path=path, predicts=predicts), one, other)


def test_convolutional_networks_mix_in_a_batch() -> None:
    one = compile(conv_model((1, 3, 1), (3, 3)), reverse="features")
    other = compile(conv_model((1, 2, 4, 1), (3, 3, 3)), reverse="features")
    check_mixed_batch(small(facts_of(one, other), probes=2), one, other)


@torch.no_grad()
def test_a_kernel_that_sums_to_zero_is_an_edge() -> None:
    compiled = compile(conv_model((1, 2, 1), (3, 1)), reverse="features")
    model = small(facts_of(compiled))
    weights = random_weights(compiled, 1).repeat(2, 1)
    first = next(p for p in compiled.program.params if p.name == "w0")
    kernel = torch.tensor([1.0, -2, 1, 2, 0, -2, -1, 2, -1])
    assert kernel.sum() == 0
    weights[:, first.offset : first.offset + 9] = torch.stack([kernel, torch.zeros(9)])
    found = model(batch_of(compiled, weights))
    assert (found[0] - found[1]).abs().max() > 1e-4


@pytest.mark.parametrize(
    "settings",
    [
        {"probes": 3},
        {"probes": 3, "answers": True, "head": (5,)},
        {"predicts": "edits"},
        {"predicts": "nodes"},
        {"predicts": "edges"},
        {"readout": "attention"},
        {"activations": True, "sigma": 0},
    ],
)
def test_every_parameter_gets_a_gradient(settings: dict[str, object]) -> None:
    check_gradients(small(facts_of(inr(2, 8, 8, 1)), **settings), inr(2, 8, 8, 1))


def test_residual_layers_have_no_parameters_of_their_own() -> None:
    facts = facts_of(inr(2, 8, 8, 1))
    plain, residual = small(facts), small(facts, residual=True)
    residual.load_state_dict(plain.state_dict())
    batch = batch_of(inr(2, 8, 8, 1), random_weights(inr(2, 8, 8, 1), 2))
    assert (plain(batch) - residual(batch)).abs().max() > 1e-3


def test_the_head_has_the_sizes_that_are_asked_for() -> None:
    head = small(facts_of(inr(2, 8, 8, 1)), probes=3, answers=True, head=(7, 5)).graph_readout
    assert head is not None
    found = [tuple(p.shape) for name, p in head.named_parameters() if name.endswith("weight")]
    assert found == [(7, 16 + 3), (5, 7), (10, 5)]


def test_probes_are_learned() -> None:
    compiled = inr(2, 8, 8, 1)
    model = small(facts_of(compiled), probes=3)
    model(batch_of(compiled, random_weights(compiled, 4))).square().sum().backward()
    probes = model.node_encoder.probes
    assert probes is not None
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in probes.probes)


# --- refusals ---


def message(model: NgGnn, batch: GraphBatch) -> str:
    with pytest.raises(OptionError) as error:
        model(batch)
    return str(error.value)


def test_deeper_networks_than_in_training_are_refused() -> None:
    deep = inr(2, 4, 4, 4, 1)
    batch = batch_of(deep, random_weights(deep, 1))
    facts = facts_of(inr(2, 8, 8, 1))
    found = message(small(facts), batch)
    assert "3 hidden layers (its positions know 2)" in found
    assert "positions: false" in found
    small(facts, positions=False)(batch)  # the way out that the message names


def test_other_numbers_of_outputs_are_refused() -> None:
    two = inr(2, 8, 8, 2)
    model = small(facts_of(inr(2, 8, 8, 1)), positions=False)
    assert "2 output neurons (its readout reads 1)" in message(
        model, batch_of(two, random_weights(two, 1))
    )
    answers = small(
        facts_of(inr(2, 8, 8, 1)), positions=False, readout="mean", probes=2, answers=True
    )
    assert "2 output neurons (its readout reads 1)" in message(
        answers, batch_of(two, random_weights(two, 1))
    )


def test_an_unknown_activation_is_read_as_no_activation_known() -> None:
    model = small(facts_of(inr(2, 8, 8, 1)), activations=True, positions=False, readout="mean")
    relu = compile(conv_model((1, 2, 1), (1, 1)), reverse="features")
    batch = batch_of(relu, random_weights(relu, 1))
    found = model(batch)
    assert model.node_encoder.activation.num_embeddings == 2  # none and sin
    with torch.no_grad():
        model.node_encoder.activation.weight[1] += 1  # of sin
        assert torch.equal(model(batch), found)
        model.node_encoder.activation.weight[0] += 1  # of inputs and outputs
        assert not torch.equal(model(batch), found)


def test_weights_of_another_precision_are_refused() -> None:
    network = inr(2, 8, 8, 1)
    model = small(facts_of(network))
    double = random_weights(network, 1).double()
    found = message(model, batch_of(network, double))
    assert "weights of torch.float64 for a model of torch.float32" in found
    assert "weights.float()" in found


def test_graphs_reversed_in_another_way_are_refused() -> None:
    network = compile(sine_model((2, 8, 8, 1)))
    model = small(facts_of(inr(2, 8, 8, 1)))
    found = message(model, batch_of(network, random_weights(network, 1)))
    assert "reverse=none (it reads features)" in found


def test_wrong_settings_are_refused() -> None:
    facts = facts_of(inr(2, 8, 8, 1))
    for settings in ({"path": "dense"}, {"predicts": "pairs"}, {"readout": "sum"},
                     {"answers": True}):  # fmt: skip
        with pytest.raises(OptionError):
            small(facts, **settings)
