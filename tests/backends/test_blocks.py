"""Batches for learned models: the same graphs as PyTorch Geometric's, block by block; and edits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ngc.backends.blocks import bind_blocks, bind_part, join, scatter_edits, structure_of
from ngc.backends.pyg import bind
from ngc.compiler import Compilation, compile
from ngc.errors import OptionError
from ngc.models.list_edges import kernels_with_reversed, with_reversed
from tests.models.networks import random_weights, sine, sine_model

CNN = Path(__file__).parents[2] / "examples" / "mnist_cnn.onnx"
CNN_KINDS = [{"flatten": "kernel"}, {"flatten": "repeat"}, {"linear_as": "separate"}]


def cnn(**options: str) -> Compilation:
    return compile(CNN, reverse="features", **options)


@pytest.mark.parametrize("options", CNN_KINDS, ids=str)
def test_blocks_hold_every_edge_once_and_in_order(options: dict[str, str]) -> None:
    structure = structure_of(cnn(**options).plan)
    source, target = structure.features["edge_index"]
    start = 0
    for block in structure.blocks:
        assert block.start == start
        grid = block.grid
        edges = slice(block.start, block.stop)
        sources = block.src.nodes[:, None, :].expand(grid)
        targets = block.dst.nodes[:, :, None].expand(grid)
        assert torch.equal(source[edges].unflatten(0, grid), sources)
        assert torch.equal(target[edges].unflatten(0, grid), targets)
        start = block.stop
    assert start == structure.num_edges > 0


@pytest.mark.parametrize("reverse", ["none", "append", "features"])
def test_the_numbers_are_those_of_bind(reverse: str) -> None:
    network = compile(sine_model((2, 4, 3, 1)), reverse=reverse)
    weights = random_weights(network, 3)
    (part,) = bind_blocks(network.plan, weights).parts
    expected = bind(network.plan, weights)
    assert torch.equal(part.x.flatten(0, 1), expected.x)
    found = kernels_with_reversed(part.structure, part.edges)
    assert torch.equal(found.flatten(0, 1), expected.edge_attr)
    one = bind(network.plan, weights[0])
    assert torch.equal(with_reversed(part.structure), one.edge_index)


def test_ends_are_read_alike_as_views_and_by_number() -> None:
    structure = structure_of(cnn(flatten="repeat").plan)
    ends = [e for block in structure.blocks for e in (block.src, block.dst)]
    assert any(e.start is None for e in ends)
    assert any(e.start is not None for e in ends)
    values = torch.arange(structure.num_nodes * 2.0).reshape(1, -1, 2)
    for end in ends:
        assert torch.equal(end.read(values), values[:, end.nodes])


def test_ranks_count_from_zero_for_each_role() -> None:
    deep, flat = (structure_of(sine(*sizes).plan) for sizes in ((2, 4, 3, 2), (2, 4, 2)))
    assert deep.rank.tolist() == [0, 1, 0, 0, 0, 0, 1, 1, 1, 0, 1]
    assert flat.rank.tolist() == [0, 1, 0, 0, 0, 0, 0, 1]


def test_masks_tell_parameters_from_constants() -> None:
    structure = structure_of(cnn(flatten="kernel").plan)
    identity = next(
        b for b in structure.blocks if not structure.weight_mask[b.start : b.stop].any()
    )
    edges = structure.features["edge_kind"][identity.start]
    assert int(edges) == identity.kind
    assert structure.weight_mask.any()
    assert structure.scalar_mask[:, 1].any()  # means of BatchNorms
    assert not structure.scalar_mask[structure.features["node_role"] == 0].any()


def test_degree_counts_reversed_edges() -> None:
    assert structure_of(sine(2, 4, 1).plan).degree.tolist() == [0, 0, 2, 2, 2, 2, 4]
    both = structure_of(compile(sine_model((2, 4, 1)), reverse="append").plan)
    assert both.degree.tolist() == [4, 4, 3, 3, 3, 3, 4]


def test_parts_keep_the_order_of_the_batch() -> None:
    one, other = sine(2, 4, 1), sine(2, 3, 3, 1)
    parts = [
        (bind_part(one.plan, random_weights(one, 2)), torch.tensor([3, 0])),
        (bind_part(other.plan, random_weights(other, 2)), torch.tensor([1, 2])),
    ]
    batch = join(parts)
    rows = [torch.tensor([[3.0], [0.0]]), torch.tensor([[1.0], [2.0]])]
    assert batch.restored(rows).flatten().tolist() == [0, 1, 2, 3]
    sizes = torch.bincount(batch.graph_of).tolist()
    assert sizes == [7, 9, 9, 7]
    assert [len(piece) for piece in batch.split(batch.x)] == [2, 2]


def test_ragged_kernels_are_refused() -> None:
    network = compile(sine_model((2, 4, 1)), storage="ragged")
    with pytest.raises(OptionError, match=r"ragged\n  try: storage=padded"):
        bind_blocks(network.plan, random_weights(network, 1))


# --- edits ---


@pytest.mark.parametrize("options", CNN_KINDS, ids=str)
def test_what_is_on_the_graph_comes_back_as_weights(options: dict[str, str]) -> None:
    network = cnn(**options)
    weights = network.weights.repeat(2, 1)
    (part,) = bind_blocks(network.plan, weights).parts
    found = scatter_edits(network.plan, part.x, part.edges)
    assert not found[:, :2].any()  # constants do not change
    torch.testing.assert_close(found[:, 2:], weights[:, 2:], rtol=1e-5, atol=1e-7)


def test_entries_that_share_a_parameter_give_their_mean() -> None:
    network = cnn(flatten="repeat")
    (part,) = bind_blocks(network.plan, network.weights[None]).parts
    slots = network.plan.slot_table("edge_slots")
    slot = int(slots[slots >= 2].mode().values)  # the one on most edges
    places = (slots == slot).nonzero()
    assert len(places) > 2
    edges = torch.zeros_like(part.edges)
    edges[0, places[0, 0], places[0, 1]] = 6.0
    found = scatter_edits(network.plan, torch.zeros_like(part.x), edges)
    assert found[0, slot] == pytest.approx(6.0 / len(places))
    assert int((found != 0).sum()) == 1


def test_edits_are_differentiable() -> None:
    network = sine(2, 4, 1)
    (part,) = bind_blocks(network.plan, random_weights(network, 2)).parts
    x, edges = part.x.double().requires_grad_(), part.edges.double().requires_grad_()
    scattered = lambda x, edges: scatter_edits(network.plan, x, edges)  # noqa: E731
    assert torch.autograd.gradcheck(scattered, (x, edges))


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 100_000), (1, 2, 3)])
def test_weights_of_another_architecture_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match="weights have shape"):
        bind_blocks(sine(2, 4, 1).plan, torch.zeros(shape))
