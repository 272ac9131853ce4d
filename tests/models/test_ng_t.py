"""NG-T: its size, its two forms, what it must be blind to, and what it may cost."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from ngc.backends.blocks import scatter_edits
from ngc.compiler import Compilation, compile
from ngc.errors import OptionError
from ngc.models import Facts, pair_chunks
from ngc.models.ng_t import NgT
from ngc.models.pair_update import Dropout
from ngc.models.pairs import pair_bytes
from ngc.symmetry import apply, symmetries
from tests.models.networks import (
    batch_of,
    conv_model,
    facts_of,
    model_of,
    noisy,
    random_weights,
    sine,
    sine_model,
)
from tests.models.properties import (
    MIXED,
    check_batch_mates,
    check_edits_equivariant,
    check_elements_equivariant,
    check_gradients,
    check_graphs_invariant,
    check_mixed_batch,
    check_only_products_are_low,
    num_parameters,
    tensors,
)

CNN = Path(__file__).parents[2] / "examples" / "mnist_cnn.onnx"

# Entries of a chunk: all graphs at once, a few at a time, a few rows of one graph.
CHUNKS = {"one": 2**30, "graphs": 12_000, "rows": 1_000}


@cache
def cnn() -> Compilation:
    """A trained classifier with BatchNorm and a residual."""
    return compile(CNN, flatten="kernel")


def small(facts: Facts, **settings: object) -> NgT:
    torch.manual_seed(0)
    chosen: dict[str, Any] = {
        "node_width": 16, "edge_width": 8, "attention_width": 24, "node_hidden": 20,
        "edge_hidden": 12, "heads": 4, "head": (16,), "layers": 3, "dropout": 0.0,
    }  # fmt: skip
    return NgT(facts, **(chosen | settings)).eval()


def networks(name: str) -> tuple[Compilation, Tensor]:
    if name == "inr":
        return sine(2, 8, 8, 1), random_weights(sine(2, 8, 8, 1), 5)
    return cnn(), noisy(cnn(), 3)


# --- sizes: those of the paper ---


@pytest.mark.parametrize(("probes", "expected"), [(0, 376_586), (16, 381_482), (64, 393_866)])
@pytest.mark.parametrize("heads", [4, 8])
def test_inr_classification_has_the_papers_size(probes: int, expected: int, heads: int) -> None:
    model = NgT(facts_of(sine(2, 32, 32, 1)), probes=probes, heads=heads)
    assert num_parameters(model) == expected


def test_style_editing_has_the_papers_size() -> None:
    model = NgT(facts_of(sine(2, 32, 32, 1)), predicts="edits")
    assert num_parameters(model) == 391_112


# --- two forms, one function ---


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("name", ["inr", "cnn"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"readout": "mean"}, {"predicts": "edits"}, {"predicts": "nodes"}, {"predicts": "edges"},
     {"layers": 1}],
)  # fmt: skip
@torch.no_grad()
def test_the_forms_agree(
    name: str, chunk: str, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pair_chunks.CHUNK_ENTRIES, "cpu", CHUNKS[chunk])
    compiled, weights = networks(name)
    models = [small(facts_of(compiled), path=path, **settings) for path in ("chunked", "direct")]
    models[1].load_state_dict(models[0].state_dict())
    found, expected = (tensors(model(batch_of(compiled, weights))) for model in models)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize(
    "settings",
    [{}, {"readout": "max", "sigma": 0}, {"predicts": "edits"}, {"predicts": "edges"},
     {"heads": 1}],
)  # fmt: skip
def test_gradients_of_the_forms_agree(
    chunk: str, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pair_chunks.CHUNK_ENTRIES, "cpu", CHUNKS[chunk])
    compiled, weights = networks("inr")
    gradients = []
    for path in ("chunked", "direct"):
        model = small(facts_of(compiled), path=path, **settings).double()
        given = weights.double().requires_grad_()
        sum((x**2).sum() for x in tensors(model(batch_of(compiled, given)))).backward()  # type: ignore[union-attr]
        gradients.append([given.grad, *(p.grad for p in model.parameters())])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_chunks_cover_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (1, 7, 20, 64, 1000):
        monkeypatch.setitem(pair_chunks.CHUNK_ENTRIES, "cpu", limit)
        seen = torch.zeros(3, 10)
        for graphs, rows in pair_chunks.pair_chunks(3, 10, 2, torch.device("cpu")):
            seen[graphs, rows] += 1
            assert seen[graphs, rows].numel() * 2 <= max(limit, 2)
        assert (seen == 1).all()


@pytest.mark.parametrize("reverse", ["append", "features"])
@torch.no_grad()
def test_reversed_edges_change_nothing(reverse: str) -> None:
    plain = sine(2, 8, 8, 1)
    other = compile(sine_model((2, 8, 8, 1)), reverse=reverse)
    weights = random_weights(plain, 3)
    expected = small(facts_of(plain))(batch_of(plain, weights))
    found = small(facts_of(other))(batch_of(other, weights))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_low_precision_stays_near() -> None:
    compiled, weights = networks("inr")
    model = small(facts_of(compiled), node_width=32, edge_width=16)
    batch = batch_of(compiled, weights)
    expected = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(batch)
    found.float().square().sum().backward()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.03)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# --- dropout ---


def test_dropout_leaves_out_and_scales() -> None:
    rows = torch.zeros(1000, 64)
    mask = Dropout(0.2, seed=5).mask(rows, 3)
    assert mask is not None
    assert mask.unique().tolist() == pytest.approx([0, 256 / 205])
    assert (mask == 0).float().mean() == pytest.approx(51 / 256, abs=0.01)
    torch.testing.assert_close(Dropout(0.2, seed=5).mask(rows, 3), mask)
    for other in (Dropout(0.2, seed=6).mask(rows, 3), Dropout(0.2, seed=5).mask(rows, 4)):
        assert other is not None
        assert not torch.equal(mask, other)
    assert Dropout(0.0, seed=5).mask(rows, 3) is None


def test_gradients_see_the_dropout_of_the_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pair_chunks.CHUNK_ENTRIES, "cpu", CHUNKS["graphs"])
    compiled, weights = networks("inr")
    model = small(facts_of(compiled), dropout=0.3).double().train()
    batch = batch_of(compiled, weights.double())

    def loss() -> Tensor:
        torch.manual_seed(1)
        return model(batch).square().sum()  # type: ignore[no-any-return]

    torch.manual_seed(2)
    other = model(batch).square().sum()
    assert abs((loss() - other).item()) > 1e-3, "dropout does nothing"
    parameter = model.edge_updates[0].first.weight
    (gradient,) = torch.autograd.grad(loss(), [parameter])
    step = 1e-5 * torch.randn_like(parameter)
    with torch.no_grad():
        parameter += step
        above = loss()
        parameter -= 2 * step
        below = loss()
    torch.testing.assert_close(above - below, 2 * (gradient * step).sum(), rtol=1e-6, atol=0)


# --- what it must be blind to ---


def test_graph_outputs_do_not_see_the_order_of_neurons() -> None:
    check_graphs_invariant(small(facts_of(sine(2, 8, 8, 1)), probes=4), sine(2, 8, 8, 1))


def test_edits_follow_the_order_of_neurons() -> None:
    model = small(facts_of(sine(2, 8, 8, 1)), predicts="edits", probes=4)
    for scale in (model.edit_readout.node_scale, model.edit_readout.edge_scale):  # type: ignore[union-attr]
        nn.init.ones_(scale)
    check_edits_equivariant(model, sine(2, 8, 8, 1))


@torch.no_grad()
def test_a_residual_network_may_be_permuted() -> None:
    compiled, weights = networks("cnn")
    group = symmetries(compiled.wiring)
    graph = small(facts_of(compiled), activations=True)
    edits = small(facts_of(compiled), predicts="edits")
    for scale in (edits.edit_readout.node_scale, edits.edit_readout.edge_scale):  # type: ignore[union-attr]
        scale.fill_(1.0)

    def changes(weights: Tensor) -> Tensor:
        found = edits(batch_of(compiled, weights))
        return scatter_edits(compiled.plan, found.nodes[0], found.edges[0])

    before, edited = graph(batch_of(compiled, weights)), changes(weights)
    assert before.std(0).max() > 1e-3, "networks are not told apart"
    assert edited[:, 2:].std(1).min() > 1e-3
    for seed in range(2):
        element = group.random_element(seed)
        moved = apply(compiled.wiring, weights, element)
        assert not torch.equal(moved, weights)
        after = graph(batch_of(compiled, moved))
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
        expected = apply(compiled.wiring, edited, element)
        torch.testing.assert_close(changes(moved), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["inr", "cnn"])
@pytest.mark.parametrize("predicts", ["nodes", "edges"])
def test_vectors_of_nodes_and_edges_follow_the_order_of_neurons(predicts: str, name: str) -> None:
    network, weights = networks(name)
    model = small(facts_of(network), predicts=predicts, outputs=3, probes=4)
    check_elements_equivariant(model, network, weights, predicts == "nodes")


def test_batch_mates_do_not_matter() -> None:
    check_batch_mates(small(facts_of(sine(2, 8, 8, 1)), probes=3), sine(2, 8, 8, 1))


@pytest.mark.parametrize("path", ["chunked", "direct"])
@pytest.mark.parametrize("readout", ["outputs", "mean", "max", "attention"])
@pytest.mark.parametrize("answers", [False, True])
def test_architectures_mix_in_a_batch(path: str, readout: str, answers: bool) -> None:
    one, other = (sine(*sizes) for sizes in MIXED)
    facts = facts_of(one, other)
    model = small(facts, path=path, readout=readout, probes=2, answers=answers)
    check_mixed_batch(model, one, other)


@pytest.mark.parametrize("path", ["chunked", "direct"])
@pytest.mark.parametrize("predicts", ["nodes", "edges", "edits"])
def test_elements_of_mixed_architectures_are_those_of_each(path: str, predicts: str) -> None:
    one, other = (sine(*sizes) for sizes in MIXED)
    check_mixed_batch(small(facts_of(one, other), path=path, predicts=predicts), one, other)


# --- edges ---


@torch.no_grad()
def test_a_kernel_that_sums_to_zero_is_an_edge() -> None:
    compiled = compile(conv_model((1, 2, 1), (3, 1)))
    weights = random_weights(compiled, 1).repeat(2, 1)
    first = next(p for p in compiled.program.params if p.name == "w0")
    kernel = torch.tensor([1.0, -2, 1, 2, 0, -2, -1, 2, -1])
    assert kernel.sum() == 0
    weights[:, first.offset : first.offset + 9] = torch.stack([kernel, torch.zeros(9)])
    found = small(facts_of(compiled))(batch_of(compiled, weights))
    assert (found[0] - found[1]).abs().max() > 1e-4


@torch.no_grad()
def test_edges_count_in_their_direction() -> None:
    """Networks whose only difference is which way their weights run are told apart."""
    compiled = sine(1, 2, 1)
    weights = torch.zeros(2, compiled.program.num_slots)
    weights[:, 1] = 1
    names = {p.name: p.offset for p in compiled.program.params}
    weights[0, names["w0"]] = weights[1, names["w1"]] = 1.0
    found = small(facts_of(compiled), layers=1, positions=False)(batch_of(compiled, weights))
    assert (found[0] - found[1]).abs().max() > 1e-4  # the output attends to its incoming edge


@pytest.mark.parametrize("path", ["chunked", "direct"])
@torch.no_grad()
def test_parallel_edges_add_up(path: str) -> None:
    """x + conv(x) is read like the convolution that it is."""
    conv = helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1])
    add = helper.make_node("Add", ["x", "c"], ["y"])
    shapes = {"w": (2, 2, 3, 3)}
    plain = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    residual = compile(model_of([conv, add], shapes, (1, 2, 4, 4), (1, 2, 4, 4)))
    alone = compile(model_of([plain], shapes, (1, 2, 4, 4), (1, 2, 4, 4)))
    assert residual.plan.num_edges == 6
    assert alone.plan.num_edges == 4
    weights = random_weights(alone, 3)
    without = weights.clone()
    without[:, 2:].unflatten(1, (2, 2, 9))[:, [0, 1], [0, 1], 4] -= 1
    model = small(facts_of(alone), path=path)
    expected = model(batch_of(alone, weights))
    torch.testing.assert_close(model(batch_of(residual, without)), expected, rtol=1e-5, atol=1e-5)
    assert (model(batch_of(alone, without)) - expected).abs().max() > 1e-4


# --- what it learns from, and what it costs ---


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
        {"layers": 1},
    ],
)
def test_every_parameter_gets_a_gradient(settings: dict[str, object]) -> None:
    check_gradients(small(facts_of(sine(2, 8, 8, 1)), **settings), sine(2, 8, 8, 1))


@pytest.mark.parametrize("settings", [{}, {"readout": "mean"}, {"predicts": "edits"}])
def test_training_keeps_no_more_pairs_than_stated(settings: dict[str, object]) -> None:
    compiled = sine(2, 20, 20, 1)
    nodes, many = 43, 6
    model = small(facts_of(compiled), **settings)
    one = 4 * many * nodes**2 * 8
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.nbytes() >= one // 2:  # the attention of four heads, features are eight
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(batch_of(compiled, random_weights(compiled, many)))
    stated = pair_bytes(many, nodes, 8 + 4, layers=3, training=True)
    assert 2 * one <= sum(kept.values()) <= stated - 3 * one  # three are for gradients


def test_too_many_pairs_are_refused() -> None:
    compiled = sine(2, 8, 8, 1)
    batch = batch_of(compiled, random_weights(compiled, 4))
    model = small(facts_of(compiled), pair_memory=1e-4)
    with pytest.raises(OptionError) as error:
        model(batch)
    text = str(error.value)
    assert "pairs of neurons of 4 graphs, the largest with 19, take 0.000387 GiB" in text
    assert "pair_memory allows 0.0001" in text
    assert "ng_gnn" in text
    with torch.no_grad():  # without gradients one layer's pairs are enough
        small(facts_of(compiled), pair_memory=2e-4)(batch)


# --- refusals ---


def test_wrong_settings_are_refused() -> None:
    facts = facts_of(sine(2, 8, 8, 1))
    for settings in (
        {"path": "blocks"},
        {"predicts": "pairs"},
        {"readout": "sum"},
        {"answers": True},
        {"heads": 5},
        {"layers": 0},
    ):
        with pytest.raises(OptionError):
            small(facts, **settings)


def test_other_numbers_of_outputs_are_refused() -> None:
    two = sine(2, 8, 8, 2)
    for path in ("chunked", "direct"):
        model = small(facts_of(sine(2, 8, 8, 1)), positions=False, path=path)
        with pytest.raises(OptionError, match=r"2 output neurons \(its readout reads 1\)"):
            model(batch_of(two, random_weights(two, 1)))


def test_only_products_are_in_low_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    network = sine(2, 8, 8, 1)
    check_only_products_are_low(small(facts_of(network)), network, monkeypatch)
