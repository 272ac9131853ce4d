"""x + f(x) -> identity edges of weight one, straight into the neurons of f."""

from __future__ import annotations

from tests.passes.graph.golden import golden, unchanged

RESIDUAL = """
    @w = param float32 [2,2]
    @v = param float32 [2,2]
    %x = input float32 [1,2]
    %a = linear float32 [1,2] x=%x weight=@w spec="bi,oi->bo"
    %b = linear float32 [1,2] x=%a weight=@v spec="bi,oi->bo"
    %y = combine float32 [1,2] xs=[%b,%a] fn="add"
    return y=%y
"""


def test_a_skip_ends_in_the_neurons_that_are_added_to() -> None:
    golden(
        RESIDUAL,
        "residual",
        """
        %x input input [2] nodes=0..2 layer=0
        %a sum hidden [2] nodes=2..4 layer=1
        %b sum output [2] nodes=4..6 layer=2
        %x -> %a : linear [2,2] weight=@w
        %a -> %b : linear [2,2] weight=@v
        %a -> %b : identity 2x[1,1] weight=1
        """,
    )


def test_the_order_of_the_operands_does_not_matter() -> None:
    golden(
        RESIDUAL.replace("[%b,%a]", "[%a,%b]"),
        "residual",
        """
        %x input input [2] nodes=0..2 layer=0
        %a sum hidden [2] nodes=2..4 layer=1
        %b sum output [2] nodes=4..6 layer=2
        %x -> %a : linear [2,2] weight=@w
        %a -> %b : linear [2,2] weight=@v
        %a -> %b : identity 2x[1,1] weight=1
        """,
    )


def test_a_downsampled_skip_reads_its_own_source() -> None:
    """Not chained in sequence: both branches read the input."""
    golden(
        """
        @w = param float32 [2,2]
        @v = param float32 [2,2]
        %x = input float32 [1,2]
        %a = linear float32 [1,2] x=%x weight=@w spec="bi,oi->bo"
        %r = activation float32 [1,2] x=%a fn="relu"
        %d = linear float32 [1,2] x=%x weight=@v spec="bi,oi->bo"
        %y = combine float32 [1,2] xs=[%r,%d] fn="add"
        return y=%y
        """,
        "residual activation",
        """
        %x input input [2] nodes=0..2 layer=0
        %a sum hidden [2] nodes=2..4 layer=1 act=relu
        %d sum output [2] nodes=4..6 layer=2
        %x -> %a : linear [2,2] weight=@w
        %x -> %d : linear [2,2] weight=@v
        %a -> %d : identity 2x[1,1] weight=1
        """,
    )


def test_fewer_channels_reach_only_the_shared_ones() -> None:
    graph = golden(
        """
        @w = param float32 [4,2]
        %x = input float32 [1,2]
        %a = linear float32 [1,4] x=%x weight=@w spec="bi,oi->bo"
        %p = pad float32 [1,4] x=%x pads=[0,0,0,2]
        %y = combine float32 [1,4] xs=[%a,%p] fn="add"
        return y=%y
        """,
        "residual",
        """
        %x input input [2] nodes=0..2 layer=0
        %p constant hidden [1] nodes=2..3 layer=0
        %a sum output [4] nodes=3..7 layer=1
        %x -> %a : linear [2,4] weight=@w
        %x -> %a : identity 2x[1,1] weight=1
        """,
    )
    assert graph.blocks[1].edge_index().tolist() == [[0, 1], [3, 4]]


def test_a_subtracted_value_keeps_its_sign() -> None:
    golden(
        RESIDUAL.replace('fn="add"', 'fn="sub"'),
        "residual",
        """
        %x input input [2] nodes=0..2 layer=0
        %a sum hidden [2] nodes=2..4 layer=1
        %b sum output [2] nodes=4..6 layer=2
        %x -> %a : linear [2,2] weight=@w
        %a -> %b : linear [2,2] weight=@v
        %a -> %b : negative 2x[1,1] weight=1
        """,
    )


def test_what_others_read_is_not_added_to() -> None:
    unchanged(RESIDUAL.replace("return", "return b=%b"), "residual")


def test_activations_are_not_added_to() -> None:
    body = """
        @w = param float32 [2,2]
        %x = input float32 [1,2]
        %a = linear float32 [1,2] x=%x weight=@w spec="bi,oi->bo"
        %r = activation float32 [1,2] x=%a fn="relu"
        %y = combine float32 [1,2] xs=[%r,%x] fn="add"
        return y=%y
    """
    unchanged(body, "residual")


def test_products_stay() -> None:
    unchanged(RESIDUAL.replace('fn="add"', 'fn="mul"'), "residual")


def test_twice_the_same_value_stays() -> None:
    body = RESIDUAL.replace("[%b,%a]", "[%b,%b]")
    unchanged(body, "residual")
