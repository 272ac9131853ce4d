"""One id for each hidden layer, one for each input and output neuron."""

from __future__ import annotations

import pytest

from tests.passes.graph.golden import graph_after, unchanged

MLP = """
    @u = param float32 [3,2]
    @v = param float32 [3,3]
    @w = param float32 [2,3]
    %x = input float32 [1,2]
    %a = linear float32 [1,3] x=%x weight=@u spec="bi,oi->bo"
    %b = linear float32 [1,3] x=%a weight=@v spec="bi,oi->bo"
    %y = linear float32 [1,2] x=%b weight=@w spec="bi,oi->bo"
    return y=%y
"""


def test_ids() -> None:
    _, graph, _ = graph_after(MLP, "number", "positions")
    assert graph.nodes.position_id.tolist() == [0, 1, 2, 2, 2, 3, 3, 3, 4, 5]


def test_nodes_with_ids_stay() -> None:
    unchanged(MLP, "number positions positions")


def test_without_ids() -> None:
    with pytest.raises(KeyError):  # the pass does not run
        graph_after(MLP, "number", "positions", pos="none")
