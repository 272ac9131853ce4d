"""LayerNorm's scale -> the edge into its neuron; GroupNorm and RMSNorm alike."""

from __future__ import annotations

from tests.passes.graph.golden import golden, unchanged

NORM = """
    @w = param float32 [2,1]
    @g = param float32 [2]
    %x = input float32 [1,1]
    %h = linear float32 [1,2] x=%x weight=@w spec="bi,oi->bo"
    %n = normalise float32 [1,2] x=%h fn="rms" axes=[1] epsilon=1e-05
    %y = scale float32 [1,2] x=%n factor=@g
    return y=%y
"""


def test_the_scale_is_on_diagonal_edges() -> None:
    graph = golden(
        NORM,
        "merge-norm-scale",
        """
        %x input input [1] nodes=0..1 layer=0
        %h sum hidden [2] nodes=1..3 layer=1
        %n norm output [2] nodes=3..5 layer=2
        %x -> %h : linear [1,2] weight=@w
        %h -> %n : norm 2x[1,1] weight=@g
        """,
    )
    assert graph.blocks[1].slots.numpy().reshape(-1).tolist() == [4, 5]


def test_the_rest_of_a_layer_norm_follows() -> None:
    golden(
        NORM.replace("%y = scale", "%s = scale").replace(
            "return",
            "%y = shift float32 [1,2] x=%s term=@w{[2] offset=0 strides=[1]}\n    return",
        ),
        "merge-norm-scale merge-bias",
        """
        %x input input [1] nodes=0..1 layer=0
        %h sum hidden [2] nodes=1..3 layer=1
        %n norm output [2] nodes=3..5 layer=2 bias=@w
        %x -> %h : linear [1,2] weight=@w
        %h -> %n : norm 2x[1,1] weight=@g
        """,
    )


def test_a_scale_of_anything_else_stays() -> None:
    unchanged(NORM.replace("x=%n factor", "x=%h factor"), "merge-norm-scale")


def test_a_normalised_value_read_elsewhere_too_stays() -> None:
    unchanged(NORM.replace("return", "return n=%n"), "merge-norm-scale")


def test_a_divided_norm_stays() -> None:
    unchanged(NORM.replace("factor=@g", 'factor=@g fn="div"'), "merge-norm-scale")
