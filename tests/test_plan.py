"""Binding puts every weight where the graph says, lifting takes it back bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ngc.plan as plan_module
from ngc.backends.pyg import bind, edge_features, lift
from ngc.errors import LiftError
from ngc.ir.graph import EDGE_KINDS
from ngc.ir.slots import FIRST_SLOT, ONE, ZERO
from ngc.options import Options
from tests.small_programs import CNN, MLP, OPTIONS, PROGRAMS, TIED, label, make, random_weights


@pytest.mark.parametrize("options", OPTIONS, ids=label)
@pytest.mark.parametrize("name", PROGRAMS)
def test_weights_come_back_bit_for_bit(name: str, options: Options) -> None:
    plan = make(PROGRAMS[name], options)
    weights = random_weights(plan.program)
    # Not only numbers: both zeros, NaN, infinity and the smallest number.
    weights[FIRST_SLOT : FIRST_SLOT + 5] = torch.tensor([-0.0, 0.0, torch.nan, -torch.inf, 1e-45])
    lifted = lift(plan, bind(plan, weights))
    assert np.array_equal(lifted.numpy().view(np.int32), weights.numpy().view(np.int32))
    assert plan.covered()[FIRST_SLOT:].all()


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("storage", ["padded", "ragged"])
def test_large_graphs_are_bound_block_by_block(
    name: str, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make(PROGRAMS[name], Options(storage=storage))
    weights = random_weights(plan.program, 3)
    few, one = edge_features(bind(plan, weights)), edge_features(bind(plan, weights[0]))
    monkeypatch.setattr(plan_module, "TABLE_ENTRIES", 0)
    assert torch.equal(edge_features(bind(plan, weights)), few)
    assert torch.equal(edge_features(bind(plan, weights[0])), one)


def test_an_mlp_by_eye() -> None:
    plan = make(MLP)
    graph = bind(plan, torch.arange(plan.program.num_slots).float())
    assert graph.edge_index.tolist() == [
        [0, 1, 0, 1, 0, 1, 2, 3, 4],
        [2, 2, 3, 3, 4, 4, 5, 5, 5],
    ]
    # Slots 2 to 7 are @w row by row, 8 to 10 @b, 11 to 13 @v.
    assert graph.edge_attr.tolist() == [[2.0], [3], [4], [5], [6], [7], [11], [12], [13]]
    assert graph.x[:, 0].tolist() == [0, 0, 8, 9, 10, 0]
    assert graph.x[:, 1:].tolist() == [[0, 1, 0, 0, 0]] * 6


def test_small_kernels_are_centred() -> None:
    plan = make(CNN, Options(flatten="virtual"))
    graph = bind(plan, torch.arange(plan.program.num_slots).float())
    assert graph.edge_attr.shape[1] == 9
    convolution = graph.edge_attr[graph.edge_kind == EDGE_KINDS.index("convolution")]
    assert convolution[0].tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    # @k is 1 x 1 and starts after @a (18) and four times 2.
    assert convolution[2].tolist() == [0, 0, 0, 0, 28, 0, 0, 0, 0]
    assert graph.kernel_size[graph.edge_kind == EDGE_KINDS.index("convolution")].tolist() == [
        *[[1, 3, 3]] * 2,
        *[[1, 1, 1]] * 4,
    ]


def test_ragged_kernels_padded_by_hand_are_the_padded_ones() -> None:
    padded, ragged = (make(CNN, Options(flatten="kernel", storage=s)) for s in ("padded", "ragged"))
    weights = random_weights(padded.program)
    a, b = bind(padded, weights), bind(ragged, weights)
    assert torch.equal(a.edge_index, b.edge_index)
    assert b.edge_taps.tolist() == b.kernel_size.prod(dim=1).tolist()
    height, width = padded.graph.layout.kernel  # type: ignore[union-attr]
    rows = []
    start = 0
    for taps, (_, h, w) in zip(b.edge_taps.tolist(), b.kernel_size.tolist()):
        kernel = b.edge_value[start : start + taps].reshape(h, w)
        top, left = (height - h) // 2, (width - w) // 2
        sides = (left, width - w - left, top, height - h - top)
        rows.append(torch.nn.functional.pad(kernel, sides).reshape(-1))
        start += taps
    assert start == len(b.edge_value)
    assert torch.equal(torch.stack(rows), a.edge_attr)


def test_encoding_ragged_kernels_equals_encoding_padded_ones() -> None:
    """A linear encoder needs only the columns in which a kernel lies."""
    padded, ragged = (make(CNN, Options(flatten="kernel", storage=s)) for s in ("padded", "ragged"))
    weights = random_weights(padded.program)
    torch.manual_seed(0)
    encoder = torch.nn.Linear(padded.edge_width, 5)
    expected = encoder(bind(padded, weights).edge_attr)
    values = bind(ragged, weights).edge_value
    layout = padded.graph.layout
    assert layout is not None
    found, start = [], 0
    for block in ragged.graph.blocks:
        kernels = values[start : start + block.num_edges * block.taps].reshape(-1, block.taps)
        start += kernels.numel()
        columns = torch.from_numpy(layout.columns(block))
        found.append(kernels @ encoder.weight[:, columns].T + encoder.bias)
    torch.testing.assert_close(torch.cat(found), expected)


def test_reversed_edges_carry_the_same_kernels() -> None:
    plan = make(MLP, Options(reverse="append"))
    graph = bind(plan, random_weights(plan.program))
    half = graph.num_edges // 2
    assert torch.equal(graph.edge_index[:, half:], graph.edge_index[:, :half].flip(0))
    assert torch.equal(graph.edge_attr[half:], graph.edge_attr[:half])
    assert graph.edge_reversed.tolist() == [False] * half + [True] * half


def test_both_directions_as_features() -> None:
    """Own weight, weight of the opposite edge, their sum (paper, Sec. 2.4)."""
    plan = make(MLP, Options(reverse="features"))
    graph = bind(plan, torch.arange(plan.program.num_slots).float())
    half = graph.num_edges // 2
    assert graph.edge_attr[0].tolist() == [2, 0, 2]
    assert graph.edge_attr[half].tolist() == [0, 2, 2]


# --- gradients and stacks ---------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["padded", "ragged"])
def test_binding_is_differentiable(storage: str) -> None:
    plan = make(TIED, Options(storage=storage))
    weights = random_weights(plan.program).requires_grad_()
    graph = bind(plan, weights)
    (graph.x.sum() + 2 * edge_features(graph).sum()).backward()
    assert weights.grad is not None
    # Each entry of @w is on two edges, each slope on one node.
    assert weights.grad[FIRST_SLOT:].tolist() == [4.0] * 6 + [1.0] * 3


def test_gradients_of_a_stack_are_those_of_each() -> None:
    plan = make(CNN)
    stack = random_weights(plan.program, 3).requires_grad_()
    batch = bind(plan, stack)
    ((batch.x**2).sum() + (batch.edge_attr**3).sum()).backward()
    for k in range(3):
        one = stack[k].detach().requires_grad_()
        graph = bind(plan, one)
        ((graph.x**2).sum() + (graph.edge_attr**3).sum()).backward()
        torch.testing.assert_close(stack.grad[k], one.grad)  # type: ignore[index]


def test_lifting_is_differentiable() -> None:
    """A model edits the graph; the loss is of the weights that come out."""
    plan = make(MLP)
    graph = bind(plan, random_weights(plan.program))
    factor = torch.tensor(2.0, requires_grad=True)
    graph.x, graph.edge_attr = (
        graph.x * torch.tensor([1.0, 0, 1, 0, 0, 0]),
        graph.edge_attr * factor,
    )
    weights = lift(plan, graph)
    weights.sum().backward()
    assert factor.grad is not None
    torch.testing.assert_close(factor.grad, (graph.edge_attr / factor).sum().detach())


# --- edited graphs ----------------------------------------------------------------------------


def test_disagreeing_places_of_one_entry_are_refused() -> None:
    plan = make(TIED)
    graph = bind(plan, random_weights(plan.program))
    graph.edge_attr[0] += 1
    with pytest.raises(LiftError, match="1 of its entries disagree") as error:
        lift(plan, graph)
    assert 'shared="mean"' in str(error.value)


def test_the_mean_of_disagreeing_places() -> None:
    plan = make(TIED)
    weights = random_weights(plan.program)
    graph = bind(plan, weights)
    graph.edge_attr[0] += 1
    lifted = lift(plan, graph, shared="mean")
    weights[FIRST_SLOT] += 0.5
    torch.testing.assert_close(lifted, weights)


def test_an_edited_constant_is_refused() -> None:
    """The weight of a residual edge is not a parameter."""
    plan = make(CNN, Options(flatten="kernel"))
    graph = bind(plan, random_weights(plan.program))
    (edge, *_) = torch.nonzero(graph.edge_kind == EDGE_KINDS.index("identity")).reshape(-1).tolist()
    graph.edge_attr[edge] *= 2
    with pytest.raises(LiftError, match="constant 0 or 1"):
        lift(plan, graph)


def test_the_mean_keeps_the_constants() -> None:
    plan = make(CNN, Options(flatten="kernel"))
    graph = bind(plan, random_weights(plan.program))
    graph.edge_attr *= 2
    lifted = lift(plan, graph, shared="mean")
    assert lifted[[ZERO, ONE]].tolist() == [0, 1]


def test_entries_without_a_place_come_back_as_zero() -> None:
    """Half of @w is sliced away."""
    plan = make("""
        @w = param float32 [4,2]
        %x = input float32 [1,2]
        %y = linear float32 [1,2] x=%x weight=@w{[2,2] offset=0 strides=[2,1]} spec="bi,oi->bo"
        return y=%y
    """)
    lifted = lift(plan, bind(plan, random_weights(plan.program)))
    assert plan.covered().tolist() == [False] * 2 + [True] * 4 + [False] * 4
    assert lifted[6:].tolist() == [0] * 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", PROGRAMS)
def test_plans_work_on_any_device(name: str) -> None:
    plan = make(PROGRAMS[name])
    weights = random_weights(plan.program, 2)
    here, there = bind(plan, weights), bind(plan, weights.cuda())
    for feature in here.keys():  # noqa: SIM118  (a Batch is no mapping)
        assert there[feature].is_cuda
        assert torch.equal(there[feature].cpu(), here[feature])
    assert torch.equal(lift(plan, bind(plan, weights[0].cuda())).cpu(), weights[0])
