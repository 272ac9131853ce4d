"""Nodes by layer, then by operation; groups of nodes that are alike."""

from __future__ import annotations

from tests.passes.graph.golden import golden, unchanged

SKIP = """
    @w = param float32 [2,2]
    @v = param float32 [1,4]
    %x = input float32 [1,2]
    %h = linear float32 [1,2] x=%x weight=@w spec="bi,oi->bo"
    %z = input float32 [1,2]
    %c = concat float32 [1,4] xs=[%z,%h] axis=1
    %y = linear float32 [1,1] x=%c weight=@v spec="bi,oi->bo"
    return y=%y
"""


def test_inputs_come_first_and_layers_are_longest_paths() -> None:
    graph = golden(
        SKIP,
        "number",
        """
        %x input input [2] nodes=0..2 layer=0
        %z input input [2] nodes=2..4 layer=0
        %h sum hidden [2] nodes=4..6 layer=1
        %y sum output [1] nodes=6..7 layer=2
        %x -> %h : linear [2,2] weight=@w
        %z,%h -> %y : linear [4,1] weight=@v
        """,
    )
    assert graph.blocks[1].src.tolist() == [[2, 3, 4, 5]]


def test_numbered_nodes_stay() -> None:
    unchanged(SKIP, "number number")
