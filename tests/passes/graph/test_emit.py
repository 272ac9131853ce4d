"""Every neuron of the program is a node, every bundle of wires a block of edges."""

from __future__ import annotations

import numpy as np

from ngc.ir.graph import ACTIVATIONS, EDGE_KINDS, NO_SCALAR, NODE_KINDS, POOLS
from tests.passes.graph.golden import golden


def test_one_node_for_each_neuron() -> None:
    graph = golden(
        """
        @w = param float32 [3,2]
        @b = param float32 [3]
        %x = input float32 [1,2]
        %h = linear float32 [1,3] x=%x weight=@w spec="bi,oi->bo"
        %s = shift float32 [1,3] x=%h term=@b
        %y = activation float32 [1,3] x=%s fn="sin"
        return y=%y
        """,
        "",
        """
        %x input input [2] nodes=0..2 layer=0
        %h sum hidden [3] nodes=2..5 layer=1
        %s sum hidden [3] nodes=5..8 layer=2 bias=@b
        %y sum output [3] nodes=8..11 layer=3 act=sin
        %x -> %h : linear [2,3] weight=@w
        %h -> %s : identity 3x[1,1] weight=1
        %s -> %y : identity 3x[1,1] weight=1
        """,
    )
    assert graph.nodes.scalars[0].tolist() == list(NO_SCALAR)
    assert graph.nodes.scalars[6].tolist() == [9, *NO_SCALAR[1:]]  # the second bias


def test_statistics_of_batch_norm_are_on_its_neurons() -> None:
    graph = golden(
        """
        @g = param float32 [2]
        @b = param float32 [2]
        @m = param float32 [2]
        @v = param float32 [2]
        %x = input float32 [1,2,3]
        %y = batch_norm float32 [1,2,3] x=%x scale=@g bias=@b mean=@m var=@v epsilon=1e-05
        return y=%y
        """,
        "",
        """
        %x input input [2] nodes=0..2 layer=0
        %y norm output [2] nodes=2..4 layer=1 bias=@b mean=@m var=@v
        %x -> %y : norm 2x[1,1] weight=@g
        """,
    )
    assert graph.nodes.scalars[2:].tolist() == [[4, 6, 8, 0, 0, 0], [5, 7, 9, 0, 0, 0]]


def test_kinds_of_nodes() -> None:
    golden(
        """
        @e = param float32 [3,2]
        @p = param float32 [4,2]
        @s = param float32 [2]
        %i = input int64 [1,4]
        %e = embedding float32 [1,4,2] ids=%i weight=@e
        %p = shift float32 [1,4,2] x=%e term=@p
        %k = constant float32 [1] data=float32[1]{2.0}
        %m = combine float32 [1,4,2] xs=[%p,%k] fn="max"
        %r = prelu float32 [1,4,2] x=%m slope=@s
        %y = reduce float32 [1,4] x=%r fn="max" axes=[2] keepdims=false
        return y=%y
        """,
        "",
        """
        %i input input [1] nodes=0..1 layer=0
        %p position hidden [4] nodes=1..5 layer=0
        %k constant hidden [1] nodes=5..6 layer=0
        %e token hidden [3] nodes=6..9 layer=1
        %e.sum sum hidden [2] nodes=9..11 layer=2
        %p.sum sum hidden [2] nodes=11..13 layer=3
        %m maximum hidden [2] nodes=13..15 layer=4
        %r sum hidden [2] nodes=15..17 layer=5 act=prelu slope=@s
        %y reduce output [1] nodes=17..18 layer=6 pool=max
        %i -> %e : token [1,3] weight=1
        %e -> %e.sum : embedding [3,2] weight=@e
        %e.sum -> %p.sum : identity 2x[1,1] weight=1
        %p -> %p.sum : position_bias [4,2] weight=@p
        %p.sum -> %m : maximum 2x[1,1] weight=1
        %k -> %m : maximum 2x[1,1] weight=1
        %m -> %r : identity 2x[1,1] weight=1
        %r -> %y : reduce [2,1] weight=1
        """,
    )


def test_names_of_categories_are_distinct() -> None:
    """Files and trained models hold their places."""
    for names in (ACTIVATIONS, EDGE_KINDS, NODE_KINDS, POOLS):
        assert len(np.unique(names)) == len(names)
