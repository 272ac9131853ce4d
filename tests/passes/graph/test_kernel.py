"""One size for all kernels, smaller ones centred (paper, Fig. 6)."""

# ruff: noqa: E501  (program text)
from __future__ import annotations

import pytest

from ngc.errors import BudgetError, OptionError
from ngc.ir.graph import EdgeBlock, Layout, aligned
from ngc.ir.text import parse_program
from ngc.options import Options
from ngc.passes.graph.pipeline import build_graph
from ngc.passes.wire import wire
from tests.passes.graph.golden import golden, graph_after, unchanged

CNN = """
    @a = param float32 [1,1,3,3]
    @b = param float32 [1,1,5,1]
    @w = param float32 [1,1]
    %x = input float32 [1,1,7,5]
    %p = convolution float32 [1,1,5,3] x=%x weight=@a strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
    %q = convolution float32 [1,1,1,3] x=%p weight=@b strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
    %m = reduce float32 [1,1] x=%q fn="mean" axes=[2,3] keepdims=false
    %y = linear float32 [1,1] x=%m weight=@w spec="bi,oi->bo"
    return y=%y
"""


def layout(**options: object) -> tuple[Layout, dict[str, EdgeBlock]]:
    _, graph, _ = graph_after(CNN, "merge-pool", "number", "kernel", **options)
    assert graph.layout is not None
    return graph.layout, {block.kind + str(block.taps): block for block in graph.blocks}


def test_the_largest_size_of_each_axis() -> None:
    golden(
        CNN,
        "merge-pool kernel",
        """
        %x input input [1] nodes=0..1 layer=0
        %p sum hidden [1] nodes=1..2 layer=1
        %q sum hidden [1] nodes=2..3 layer=2 pool=mean
        %y sum output [1] nodes=3..4 layer=3
        %x -> %p : convolution [1,1] kernel=3x3 weight=@a
        %p -> %q : convolution [1,1] kernel=5x1 weight=@b
        %q -> %y : linear [1,1] weight=@w
        layout 5x3
        """,
    )


def test_kernels_are_centred() -> None:
    found, blocks = layout()
    # Columns of a kernel of 5 x 3, row by row.
    assert found.columns(blocks["convolution9"]).tolist() == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert found.columns(blocks["convolution5"]).tolist() == [1, 4, 7, 10, 13]
    assert found.columns(blocks["linear1"]).tolist() == [7]


def test_an_odd_remainder_is_at_the_end() -> None:
    found, blocks = layout(kernel=(6, 4))
    assert found.columns(blocks["convolution9"])[0] == 1 * 4 + 0
    assert found.columns(blocks["linear1"]).tolist() == [2 * 4 + 1]


def test_a_given_size() -> None:
    found, _ = layout(kernel=(7, 7))
    assert found.kernel == (7, 7)
    assert found.width == 49


def test_a_kernel_larger_than_the_given_size_is_refused() -> None:
    with pytest.raises(OptionError, match="its kernel 5x1 is larger than the kernel size 3x3") as e:
        layout(kernel=(3, 3))
    assert "--kernel 5x1" in str(e.value)


def test_linear_layers_in_a_column_of_their_own() -> None:
    found, blocks = layout(linear_as="separate")
    assert found.width == 16
    assert found.columns(blocks["linear1"]).tolist() == [15]
    assert found.columns(blocks["convolution5"]).tolist() == [1, 4, 7, 10, 13]


def test_kernels_of_fewer_axes_lie_along_the_last() -> None:
    assert aligned((3,), 2) == (1, 3)
    assert aligned((1, 3, 5), 2) == (3, 5)
    assert aligned((), 3) == (1, 1, 1)


def test_without_kernels_there_is_one_column() -> None:
    _, graph, _ = graph_after(
        """
        @w = param float32 [2,2]
        %x = input float32 [1,2]
        %y = linear float32 [1,2] x=%x weight=@w spec="bi,oi->bo"
        return y=%y
        """,
        "kernel",
    )
    assert graph.layout == Layout(())
    assert Layout(()).width == 1


def test_a_laid_out_graph_stays() -> None:
    unchanged(CNN, "kernel kernel")


def test_padding_beyond_the_budget_is_refused_with_a_way_out() -> None:
    text = """program p {
  @w = param float32 [4,3,3,3]
  %x = input float32 [1,3,5,5]
  %y = convolution float32 [1,4,3,3] x=%x weight=@w strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
  return y=%y
}
"""
    wiring = wire(parse_program(text))
    with pytest.raises(BudgetError, match="12 edges with kernels padded to 3x3 have 108 entries"):
        build_graph(wiring, Options(storage="padded"), max_taps=100)
    assert build_graph(wiring, Options(storage="ragged"), max_taps=100).layout is None
