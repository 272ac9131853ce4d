"""Sum plus a parameter -> the sum's bias."""

from __future__ import annotations

from tests.passes.graph.golden import golden, unchanged

BIAS = """
    @w = param float32 [2,2]
    @b = param float32 [2]
    @c = param float32 [2]
    %x = input float32 [1,2]
    %h = linear float32 [1,2] x=%x weight=@w spec="bi,oi->bo"
    %y = shift float32 [1,2] x=%h term=@b
    return y=%y
"""


def test_a_bias_is_on_the_neuron() -> None:
    graph = golden(
        BIAS,
        "merge-bias",
        """
        %x input input [2] nodes=0..2 layer=0
        %h sum output [2] nodes=2..4 layer=1 bias=@b
        %x -> %h : linear [2,2] weight=@w
        """,
    )
    assert graph.nodes.scalars[2:, 0].tolist() == [6, 7]


def test_a_second_bias_keeps_neurons() -> None:
    golden(
        BIAS.replace("return y=%y", "%z = shift float32 [1,2] x=%y term=@c\n    return z=%z"),
        "merge-bias",
        """
        %x input input [2] nodes=0..2 layer=0
        %h sum hidden [2] nodes=2..4 layer=1 bias=@b
        %z sum output [2] nodes=4..6 layer=2 bias=@c
        %x -> %h : linear [2,2] weight=@w
        %h -> %z : identity 2x[1,1] weight=1
        """,
    )


def test_a_table_of_positions_ends_in_the_neurons() -> None:
    golden(
        """
        @w = param float32 [2,3]
        @p = param float32 [4,2]
        %x = input float32 [1,4,3]
        %h = linear float32 [1,4,2] x=%x weight=@w spec="bti,oi->bto"
        %y = shift float32 [1,4,2] x=%h term=@p
        return y=%y
        """,
        "merge-bias",
        """
        %x input input [3] nodes=0..3 layer=0
        %y position hidden [4] nodes=3..7 layer=0
        %h sum output [2] nodes=7..9 layer=1
        %x -> %h : linear [3,2] weight=@w
        %y -> %h : position_bias [4,2] weight=@p
        """,
    )


def test_a_bias_after_an_activation_stays() -> None:
    unchanged(
        BIAS.replace("shift", "shift")
        .replace("x=%h term", "x=%r term")
        .replace("    %y", '    %r = activation float32 [1,2] x=%h fn="relu"\n    %y', 1),
        "merge-bias",
    )


def test_a_bias_of_an_input_stays() -> None:
    unchanged(BIAS.replace("x=%h term", "x=%x term"), "merge-bias")


def test_a_parameter_less_the_neuron_stays() -> None:
    unchanged(BIAS.replace("term=@b", 'term=@b fn="rsub"'), "merge-bias")


def test_a_value_read_elsewhere_too_stays() -> None:
    unchanged(BIAS.replace("return", "return h=%h"), "merge-bias")
