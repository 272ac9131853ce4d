"""Neuron, then activation -> a neuron with the activation as its category."""

# ruff: noqa: E501  (program text)
from __future__ import annotations

import pytest

from tests.passes.graph.golden import golden, unchanged

LINEAR = """
    @w = param float32 [2,2]
    @s = param float32 [2]
    %x = input float32 [1,2]
    %h = linear float32 [1,2] x=%x weight=@w spec="bi,oi->bo"
    %y = activation float32 [1,2] x=%h fn="relu"
    return y=%y
"""


def test_an_activation_is_a_category_of_the_neuron() -> None:
    golden(
        LINEAR,
        "activation",
        """
        %x input input [2] nodes=0..2 layer=0
        %h sum output [2] nodes=2..4 layer=1 act=relu
        %x -> %h : linear [2,2] weight=@w
        """,
    )


def test_the_slope_of_prelu_is_on_the_neuron() -> None:
    golden(
        LINEAR.replace(
            'activation float32 [1,2] x=%h fn="relu"', "prelu float32 [1,2] x=%h slope=@s"
        ),
        "activation",
        """
        %x input input [2] nodes=0..2 layer=0
        %h sum output [2] nodes=2..4 layer=1 act=prelu slope=@s
        %x -> %h : linear [2,2] weight=@w
        """,
    )


def test_a_softmax_is_an_activation() -> None:
    golden(
        LINEAR.replace(
            'activation float32 [1,2] x=%h fn="relu"',
            'softmax float32 [1,2] x=%h fn="softmax" axis=1',
        ),
        "activation",
        """
        %x input input [2] nodes=0..2 layer=0
        %h sum output [2] nodes=2..4 layer=1 act=softmax
        %x -> %h : linear [2,2] weight=@w
        """,
    )


def test_a_second_activation_keeps_neurons() -> None:
    golden(
        LINEAR.replace(
            "return y=%y", '%z = activation float32 [1,2] x=%y fn="exp"\n    return z=%z'
        ),
        "activation",
        """
        %x input input [2] nodes=0..2 layer=0
        %h sum hidden [2] nodes=2..4 layer=1 act=relu
        %z sum output [2] nodes=4..6 layer=2 act=exp
        %x -> %h : linear [2,2] weight=@w
        %h -> %z : identity 2x[1,1] weight=1
        """,
    )


def test_an_activation_of_an_input_stays() -> None:
    unchanged(LINEAR.replace("x=%h fn", "x=%x fn"), "activation")


def test_a_value_read_elsewhere_too_stays() -> None:
    """SiLU's gate written out: x * sigmoid(x)."""
    unchanged(LINEAR.replace("return", "return h=%h"), "activation")


POOL = """
    @k = param float32 [2,1,1,1]
    %x = input float32 [1,1,4,4]
    %c = convolution float32 [1,2,4,4] x=%x weight=@k strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
    %p = pool float32 [1,2,2,2] x=%c fn="{pool}" kernel=[2,2] strides=[2,2] pads=[0,0,0,0] dilations=[1,1]
    %y = activation float32 [1,2,2,2] x=%p fn="{fn}"
    return y=%y
"""


def test_an_increasing_activation_may_follow_the_largest() -> None:
    """relu(max_pool(x)) is max_pool(relu(x)): one graph for both."""
    golden(
        POOL.format(pool="max", fn="relu"),
        "merge-pool activation",
        """
        %x input input [1] nodes=0..1 layer=0
        %c sum output [2] nodes=1..3 layer=1 act=relu pool=max
        %x -> %c : convolution [1,2] kernel=1x1 weight=@k
        """,
    )


@pytest.mark.parametrize(("pool", "fn"), [("mean", "relu"), ("max", "silu"), ("max", "sin")])
def test_any_other_activation_after_a_pooling_stays(pool: str, fn: str) -> None:
    """relu(mean(x)) is not mean(relu(x)): the graphs differ."""
    unchanged(POOL.format(pool=pool, fn=fn), "merge-pool activation")
