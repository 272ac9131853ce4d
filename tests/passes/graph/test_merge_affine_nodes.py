"""a x + b with plain numbers -> x: plain numbers are not on the graph."""

from __future__ import annotations

from tests.passes.graph.golden import golden, unchanged

SIREN = """
    @w = param float32 [3,2]
    %x = input float32 [1,2]
    %h = linear float32 [1,3] x=%x weight=@w spec="bi,oi->bo"
    %a = activation float32 [1,3] x=%h fn="affine" a=[30.0,0.0]
    %y = activation float32 [1,3] x=%a fn="sin"
    return y=%y
"""


def test_a_multiple_is_the_neuron() -> None:
    golden(
        SIREN,
        "merge-affine-nodes",
        """
        %x input input [2] nodes=0..2 layer=0
        %h sum hidden [3] nodes=2..5 layer=1
        %y sum output [3] nodes=5..8 layer=2 act=sin
        %x -> %h : linear [2,3] weight=@w
        %h -> %y : identity 3x[1,1] weight=1
        """,
    )


def test_a_multiple_of_an_input_is_the_input() -> None:
    golden(
        """
        @w = param float32 [1,2]
        %x = input uint8 [1,2]
        %f = cast float32 [1,2] x=%x
        %a = activation float32 [1,2] x=%f fn="affine" a=[0.00392156862745098,0.0]
        %y = linear float32 [1,1] x=%a weight=@w spec="bi,oi->bo"
        return y=%y
        """,
        "merge-affine-nodes",
        """
        %x input input [2] nodes=0..2 layer=0
        %y sum output [1] nodes=2..3 layer=1
        %x -> %y : linear [2,1] weight=@w
        """,
    )


def test_a_value_read_elsewhere_too_keeps_its_neurons() -> None:
    unchanged(SIREN.replace("return", "return h=%h"), "merge-affine-nodes")


def test_other_activations_stay() -> None:
    unchanged(SIREN.replace('"affine" a=[30.0,0.0]', '"tanh"'), "merge-affine-nodes")
