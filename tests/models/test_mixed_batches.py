"""Batches that mix image classifiers of many architectures."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ngc.models import Facts, build, chunks, pair_chunks
from ngc.models.block_flows import Join, Stacks
from ngc.symmetry import apply, symmetries
from tests.models.classifiers import Layer, classifier, classifier_weights, company, families
from tests.models.networks import batch_of, facts_of, parameters, random_weights
from tests.models.properties import tensors

NETWORKS = families()
NAMES = list(NETWORKS)
PATHS = [("ng_gnn", "blocks"), ("ng_gnn", "lists"), ("ng_t", "chunked"), ("ng_t", "direct")]
SMALL: dict[str, dict[str, Any]] = {
    "ng_gnn": {"width": 16, "layers": 3},
    "ng_t": {"node_width": 16, "edge_width": 8, "attention_width": 16, "node_hidden": 16,
             "edge_hidden": 8, "heads": 2, "head": (8,), "layers": 3},
}  # fmt: skip


@cache
def known() -> Facts:
    return facts_of(*NETWORKS.values())


def model_of(name: str, path: str, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    chosen = SMALL[name] | {"activations": True, "dropout": 0.0, "outputs": 3} | settings
    return build(name, known(), path=path, **chosen).eval()


@pytest.mark.parametrize(("name", "path"), PATHS)
@pytest.mark.parametrize("probes", [0, 2])
@torch.no_grad()
def test_a_network_is_judged_alike_alone_and_in_any_batch(
    name: str, path: str, probes: int
) -> None:
    model = model_of(name, path, probes=probes)
    batch, names = company(NETWORKS)
    together = model(batch)
    assert together.std(0).min() > 1e-3, "networks are not told apart"
    for number, (architecture, network) in enumerate(NETWORKS.items()):
        weights = classifier_weights(network, 2, seed=number)
        places = [k for k, other in enumerate(names) if other == architecture]
        for k, place in enumerate(places):
            alone = model(batch_of(network, weights[k : k + 1]))
            torch.testing.assert_close(alone[0], together[place], rtol=1e-5, atol=1e-5)
    few, names = company({name: NETWORKS[name] for name in NAMES[:2]})  # the same two first
    found = model(few)
    for k, architecture in enumerate(names):
        row = NAMES.index(architecture) + len(NAMES) * (k // 2)
        torch.testing.assert_close(found[k], together[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "path"), PATHS)
@torch.no_grad()
def test_the_order_of_neurons_does_not_matter_in_company(name: str, path: str) -> None:
    model = model_of(name, path, probes=2)
    moved = {}
    for number, (architecture, network) in enumerate(NETWORKS.items()):
        weights = classifier_weights(network, 2, seed=number)
        element = symmetries(network.wiring).random_element(number + 1)
        moved[architecture] = apply(network.wiring, weights, element)
        assert not torch.equal(moved[architecture], weights), architecture
    before = model(company(NETWORKS)[0])
    after = model(company(NETWORKS, weights=moved)[0])
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["ng_gnn", "ng_t"])
@pytest.mark.parametrize(
    ("predicts", "readout"),
    [("graph", "outputs"), ("graph", "attention"), ("nodes", "outputs"), ("edges", "outputs"),
     ("edits", "outputs")],
)  # fmt: skip
def test_the_paths_agree_on_mixed_batches(
    name: str, predicts: str, readout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(chunks.CHUNK_ENTRIES, "cpu", 2048)
    monkeypatch.setitem(pair_chunks.CHUNK_ENTRIES, "cpu", 2048)
    batch, results = company(NETWORKS, double=True)[0], []
    for path in (path for of, path in PATHS if of == name):
        model = model_of(name, path, predicts=predicts, readout=readout).double()
        found = tensors(model(batch))
        sum((x**2).sum() for x in found).backward()  # type: ignore[union-attr]
        results.append([*found, *(p.grad for p in model.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("name", "path"), PATHS)
@torch.no_grad()
def test_kernels_that_sum_to_zero_are_edges_in_company(name: str, path: str) -> None:
    network, found = NETWORKS["plain"], []
    kernel = torch.tensor([1.0, -2, 1, 2, 0, -2, -1, 2, -1]).view(3, 3)
    assert kernel.sum() == 0
    for kernels in (kernel, torch.zeros(3, 3)):
        weights = classifier_weights(network, 2)
        parameters(network, weights)["w0"][:] = kernels
        batch, names = company(NETWORKS, weights={"plain": weights})
        found.append(model_of(name, path)(batch))
    others = [k for k, other in enumerate(names) if other != "plain"]
    changed = (found[0] - found[1]).abs().amax(1)
    assert changed[names.index("plain")] > 1e-4
    assert changed[others].max() == 0


# --- stacks of blocks ---


def stacks(outputs_only: bool = True) -> Stacks:
    return Stacks.of_batch(company(NETWORKS)[0], 4, outputs_only)


def test_blocks_of_one_size_are_worked_on_together() -> None:
    found = stacks()
    grids = [(stack.grid, stack.reverse) for stack in found.stacks]
    assert len(grids) == len({*grids})
    blocks = [part.structure.blocks for part in company(NETWORKS)[0].parts]
    assert sum(len(stack.members) for stack in found.stacks) == 2 * sum(len(b) for b in blocks)
    assert len(grids) < 2 * sum(len(b) for b in blocks)


def test_edges_of_stacks_are_those_of_the_graphs() -> None:
    """Sources and targets, gathered from the stacks, are edge_index with its reversed twin."""
    batch, expected, node = company(NETWORKS)[0], [], 0
    for part in batch.parts:
        index = part.structure.features["edge_index"]
        for _ in range(len(part)):
            expected += [*(index + node).T.tolist(), *(index.flip(0) + node).T.tolist()]
            node += part.structure.num_nodes
    found = []
    for stack in stacks(outputs_only=False).stacks:
        shape = (len(stack.target), *stack.grid)
        source = stack.at_source(stack.source[..., None])[..., 0].expand(shape)
        target = stack.at_target(stack.target[..., None])[..., 0].expand(shape)
        found += torch.stack([source, target], dim=-1).flatten(0, 3).tolist()
    assert sorted(found) == sorted(expected)


def test_the_last_layers_read_less() -> None:
    found = stacks()
    sizes = [sum(found.live(layer)) for layer in range(5)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[3] < sizes[0]
    assert sizes[4] == 0
    assert len({stacks(outputs_only=False).live(layer) for layer in range(5)}) == 1


def test_small_kernels_cost_no_columns_of_large_ones() -> None:
    """1x1, 3x3 and 7x7 in kernels padded to 7x7."""
    taps = {len(columns) for stack in stacks().stacks for columns, _, _ in stack.runs()}
    assert taps == {1, 9, 25, 49}
    (part,) = batch_of(NETWORKS["kernels"], random_weights(NETWORKS["kernels"], 1)).parts
    for block in part.structure.blocks:
        values = part.values(block).flatten(0, 3)
        filled = [k for k in range(49) if values[:, k].any()]
        assert filled == list(block.columns)


def test_stacks_of_one_architecture_are_kept_for_a_few_sizes() -> None:
    network = classifier(Layer(2), Layer(3))
    batches = [batch_of(network, random_weights(network, many)) for many in (1, 2, 3, 4, 5)]
    first = [Stacks.of_batch(batch, 4, True) for batch in batches]
    again = [Stacks.of_batch(batch, 4, True) for batch in reversed(batches)]
    assert [a is b for a, b in zip(first, reversed(again))] == [False, True, True, True, True]
    assert len(batches[0].parts[0].structure.kept["stacks"]) == 4


def test_rows_are_joined_node_by_node() -> None:
    ends = [torch.tensor([3, 0, 3]), torch.tensor([3, 4])]
    join = Join.of(ends, (2, 5), num_nodes=6)
    rows: Tensor = torch.tensor([[1.0], [2], [-4], [8], [16]])
    assert join.sum(rows).flatten().tolist() == [2, 0, 0, 5, 16, 0]
    assert join.least(rows).flatten().tolist() == [2, 0, 0, -4, 16, 0]
    assert join.most(rows).flatten().tolist() == [2, 0, 0, 8, 16, 0]
    assert join.degree.flatten().tolist() == [2, 1, 1, 9, 5, 1]
    assert join.degrees.flatten().tolist() == [2, 2, 2, 5, 5]
