"""Neuron, then pooling -> a pooled neuron."""

# ruff: noqa: E501  (program text)
from __future__ import annotations

from tests.passes.graph.golden import golden, unchanged

POOL = """
    @k = param float32 [2,1,1,1]
    %x = input float32 [1,1,4,4]
    %c = convolution float32 [1,2,4,4] x=%x weight=@k strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
    %y = pool float32 [1,2,2,2] x=%c fn="max" kernel=[2,2] strides=[2,2] pads=[0,0,0,0] dilations=[1,1]
    return y=%y
"""


def test_pooling_is_a_category_of_the_neuron() -> None:
    golden(
        POOL,
        "merge-pool",
        """
        %x input input [1] nodes=0..1 layer=0
        %c sum output [2] nodes=1..3 layer=1 pool=max
        %x -> %c : convolution [1,2] kernel=1x1 weight=@k
        """,
    )


def test_a_second_pooling_keeps_neurons() -> None:
    golden(
        POOL.replace(
            "return y=%y",
            '%z = reduce float32 [1,2] x=%y fn="mean" axes=[2,3] keepdims=false\n    return z=%z',
        ),
        "merge-pool",
        """
        %x input input [1] nodes=0..1 layer=0
        %c sum hidden [2] nodes=1..3 layer=1 pool=max
        %z reduce output [2] nodes=3..5 layer=2 pool=mean
        %x -> %c : convolution [1,2] kernel=1x1 weight=@k
        %c -> %z : pool 2x[1,1] weight=1
        """,
    )


def test_a_pooled_input_stays() -> None:
    unchanged(
        """
        %x = input float32 [1,3,2]
        %y = reduce float32 [1,3] x=%x fn="mean" axes=[2] keepdims=false
        return y=%y
        """,
        "merge-pool",
    )


def test_reduced_neurons_stay() -> None:
    unchanged(
        POOL.replace(
            POOL.split("\n")[4],
            '    %y = reduce float32 [1,1,4,4] x=%c fn="max" axes=[1] keepdims=true',
        ),
        "merge-pool",
    )
