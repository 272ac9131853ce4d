"""A Linear over a flattened map: copies of neurons, neurons between, or positions as kernels."""

# ruff: noqa: E501  (program text)
from __future__ import annotations

import pytest

from ngc.errors import BudgetError
from ngc.passes.graph.flatten import Flatten
from tests.passes.graph.golden import golden, graph_after, unchanged

CNN = """
    @k = param float32 [2,1,3,3]
    @w = param float32 [1,8]
    %x = input float32 [1,1,4,4]
    %c = convolution float32 [1,2,2,2] x=%x weight=@k strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
    %f = reshape float32 [1,8] x=%c
    %y = linear float32 [1,1] x=%f weight=@w spec="bi,oi->bo"
    return y=%y
"""
CHANNELS_LAST = CNN.replace(
    "    %f = reshape float32 [1,8] x=%c",
    "    %t = transpose float32 [1,2,2,2] x=%c perm=[0,2,3,1]\n    %f = reshape float32 [1,8] x=%t",
)
PLACES = [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_repeat_copies_the_neurons_with_their_edges() -> None:
    graph = golden(
        CNN,
        "flatten",
        """
        %x input input [1] nodes=0..1 layer=0
        %c sum hidden [8] nodes=1..9 layer=1 places=2x2
        %y sum output [1] nodes=9..10 layer=2
        %x -> %c : convolution 4x[1,2] kernel=3x3 weight=@k
        %c -> %y : linear [8,1] weight=@w
        """,
        flatten="repeat",
    )
    assert graph.nodes.place[1:9].tolist() == PLACES * 2
    convolution, linear = graph.blocks
    # At each position, an edge into the copy of either channel, with that channel's kernel.
    assert convolution.dst.tolist() == [[1, 5], [2, 6], [3, 7], [4, 8]]
    assert convolution.slots.numpy()[3, :, 0, 0].tolist() == [2, 11]
    assert linear.src.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert linear.slots.numpy().reshape(-1).tolist() == list(range(20, 28))


def test_repeat_of_channels_last() -> None:
    """The same nodes; the Linear's weights are read across."""
    _, graph, _ = graph_after(CHANNELS_LAST, "flatten", "number", flatten="repeat")
    assert graph.nodes.place[1:9].tolist() == PLACES * 2
    assert graph.blocks[1].slots.numpy().reshape(-1).tolist() == [20, 22, 24, 26, 21, 23, 25, 27]


def test_virtual_puts_a_layer_between() -> None:
    graph = golden(
        CNN,
        "flatten",
        """
        %x input input [1] nodes=0..1 layer=0
        %c sum hidden [2] nodes=1..3 layer=1
        %c.flatten flatten hidden [8] nodes=3..11 layer=2 places=2x2
        %y sum output [1] nodes=11..12 layer=3
        %x -> %c : convolution [1,2] kernel=3x3 weight=@k
        %c -> %c.flatten : flatten 2x[1,4] weight=1
        %c.flatten -> %y : linear [8,1] weight=@w
        """,
        flatten="virtual",
    )
    assert graph.nodes.place[3:11].tolist() == PLACES * 2


def test_kernel_leaves_the_graph_as_it_is() -> None:
    unchanged(CNN, "flatten", flatten="kernel")


@pytest.mark.parametrize("strategy", ["repeat", "virtual"])
def test_without_a_flatten_nothing_changes(strategy: str) -> None:
    unchanged(
        """
        @w = param float32 [1,2]
        %x = input float32 [1,2]
        %y = linear float32 [1,1] x=%x weight=@w spec="bi,oi->bo"
        return y=%y
        """,
        "flatten",
        flatten=strategy,
    )


def test_neurons_that_others_read_stay_beside_their_copies() -> None:
    golden(
        CNN.replace("return", '%z = activation float32 [1,2,2,2] x=%c fn="relu"\n    return z=%z'),
        "flatten",
        """
        %x input input [1] nodes=0..1 layer=0
        %c sum hidden [2] nodes=1..3 layer=1
        %c.sum sum hidden [8] nodes=3..11 layer=1 places=2x2
        %y sum output [1] nodes=11..12 layer=2
        %z sum output [2] nodes=12..14 layer=2 act=relu
        %x -> %c : convolution [1,2] kernel=3x3 weight=@k
        %x -> %c.sum : convolution 4x[1,2] kernel=3x3 weight=@k
        %c.sum -> %y : linear [8,1] weight=@w
        %c -> %z : identity 2x[1,1] weight=1
        """,
        flatten="repeat",
    )


def test_copies_of_an_output_are_no_outputs() -> None:
    _, graph, _ = graph_after(CNN.replace("return", "return c=%c"), "flatten", flatten="repeat")
    assert (graph.nodes.role == 2).sum() == 3


def test_two_readers_share_the_copies() -> None:
    body = CNN.replace("@w", "@v = param float32 [1,8]\n    @w", 1).replace(
        "return", '%z = linear float32 [1,1] x=%f weight=@v spec="bi,oi->bo"\n    return z=%z'
    )
    golden(
        body,
        "flatten",
        """
        %x input input [1] nodes=0..1 layer=0
        %c sum hidden [8] nodes=1..9 layer=1 places=2x2
        %y sum output [1] nodes=9..10 layer=2
        %z sum output [1] nodes=10..11 layer=2
        %x -> %c : convolution 4x[1,2] kernel=3x3 weight=@k
        %c -> %y : linear [8,1] weight=@w
        %c -> %z : linear [8,1] weight=@v
        """,
        flatten="repeat",
    )


def test_inputs_stay_as_many_as_they_are() -> None:
    """An input that a convolution reads too, by channels: neurons between, not copies."""
    golden(
        """
        @k = param float32 [1,2,1,1]
        @w = param float32 [1,8]
        %x = input float32 [1,2,2,2]
        %c = convolution float32 [1,1,2,2] x=%x weight=@k strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
        %f = reshape float32 [1,8] x=%x
        %y = linear float32 [1,1] x=%f weight=@w spec="bi,oi->bo"
        return y=%y c=%c
        """,
        "flatten",
        """
        %x input input [2] nodes=0..2 layer=0
        %x.flatten flatten hidden [8] nodes=2..10 layer=1 places=2x2
        %c sum output [1] nodes=10..11 layer=1
        %y sum output [1] nodes=11..12 layer=2
        %x -> %c : convolution [2,1] kernel=1x1 weight=@k
        %x -> %x.flatten : flatten 2x[1,4] weight=1
        %x.flatten -> %y : linear [8,1] weight=@w
        """,
        flatten="repeat",
    )


def test_one_flatten_behind_another() -> None:
    """Patches are flattened, then all tokens: copies have the edges of the first flatten too."""
    body = """
        @k = param float32 [2,1,1]
        @v = param float32 [2,4]
        @w = param float32 [1,4]
        %x = input float32 [1,1,4]
        %c = convolution float32 [1,2,4] x=%x weight=@k strides=[1] pads=[0,0] dilations=[1] groups=1
        %s = reshape float32 [1,2,2,2] x=%c
        %t = transpose float32 [1,2,2,2] x=%s perm=[0,2,1,3]
        %p = reshape float32 [1,2,4] x=%t
        %h = linear float32 [1,2,2] x=%p weight=@v spec="bti,oi->bto"
        %f = reshape float32 [1,4] x=%h
        %y = linear float32 [1,1] x=%f weight=@w spec="bi,oi->bo"
        return y=%y
    """
    golden(
        body,
        "flatten",
        """
        %x input input [1] nodes=0..1 layer=0
        %c sum hidden [4] nodes=1..5 layer=1 places=1x2
        %h sum hidden [4] nodes=5..9 layer=2 places=1x2
        %y sum output [1] nodes=9..10 layer=3
        %x -> %c : convolution 2x[1,2] kernel=1 weight=@k
        %c -> %h : linear 2x[4,2] weight=@v
        %h -> %y : linear [4,1] weight=@w
        """,
        flatten="repeat",
    )


def test_residual_edges_are_copied_too() -> None:
    _, graph, _ = graph_after(
        """
        @k = param float32 [2,2,1,1]
        @w = param float32 [1,8]
        %x = input float32 [1,2,2,2]
        %c = convolution float32 [1,2,2,2] x=%x weight=@k strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
        %s = combine float32 [1,2,2,2] xs=[%c,%x] fn="add"
        %f = reshape float32 [1,8] x=%s
        %y = linear float32 [1,1] x=%f weight=@w spec="bi,oi->bo"
        return y=%y
        """,
        *("residual", "flatten"),
        flatten="repeat",
    )
    kinds = [(block.kind, block.num_edges) for block in graph.in_order()]
    assert kinds == [("convolution", 16), ("identity", 8), ("linear", 8)]


def test_copies_beyond_the_budget_are_refused() -> None:
    _, graph, _ = graph_after(CNN)
    with pytest.raises(
        BudgetError, match=r"flatten=repeat copies edges to 90 weights \(limit 80\)"
    ):
        Flatten("repeat", max_taps=80)(graph)
