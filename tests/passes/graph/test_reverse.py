"""Edges -> edges, then each of them from target to source."""

from __future__ import annotations

from tests.passes.graph.golden import golden, unchanged

LINEAR = """
    @w = param float32 [1,2]
    %x = input float32 [1,2]
    %y = linear float32 [1,1] x=%x weight=@w spec="bi,oi->bo"
    return y=%y
"""


def test_reversed_edges_follow_in_the_same_order() -> None:
    graph = golden(
        LINEAR,
        "number reverse",
        """
        %x input input [2] nodes=0..2 layer=0
        %y sum output [1] nodes=2..3 layer=1
        %x -> %y : linear [2,1] weight=@w
        %x -> %y : linear [2,1] weight=@w reverse
        """,
        reverse="append",
    )
    assert [block.edge_index().tolist() for block in graph.blocks] == [
        [[0, 1], [2, 2]],
        [[2, 2], [0, 1]],
    ]


def test_without_the_option_nothing_changes() -> None:
    unchanged(LINEAR, "number reverse", reverse="none")
