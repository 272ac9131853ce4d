"""Operations over axes: along positions neurons keep apart, along neurons they meet."""

# ruff: noqa: E501  (program text)
from __future__ import annotations

import pytest

from ngc.errors import UnsupportedOp
from ngc.passes.wire import wire
from tests.passes.program.golden import program_of
from tests.passes.wire.truth import blocks, edges, neurons, wired

HIDDEN = """
    @v = param float32 [4,2]
    %x = input float32 [1,2]
    %h = linear float32 [1,4] x=%x weight=@v spec="bi,oi->bo"
"""
MAP = """
    @k = param float32 [2,1,1,1]
    %x = input float32 [1,1,4,4]
    %c = convolution float32 [1,2,4,4] x=%x weight=@k strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
"""


@pytest.mark.parametrize(
    "line",
    [
        '%y = pool float32 [1,2,2,2] x=%c fn="max" kernel=[2,2] strides=[2,2] pads=[0,0,0,0] dilations=[1,1]',
        '%y = reduce float32 [1,2,1,1] x=%c fn="mean" axes=[2,3] keepdims=true',
        '%y = cumulate float32 [1,2,4,4] x=%c fn="sum" axis=3',
        '%y = topk float32 [1,2,4,2] x=%c axis=3 largest=true result="values"',
        "%y = resize float32 [1,2,2,4] x=%c axes=[2] matrices=[float32[2,4]{0.5,0.5,0,0,0,0,0.5,0.5}]",
    ],
)
def test_over_positions_each_channel_keeps_to_itself(line: str) -> None:
    w = wired(MAP + line + "\nreturn y=%y")
    assert blocks(w, "y") == ["pool 2x[1,1]"]
    assert neurons(w, "y") == [[[[0]], [[1]]]]


def test_reduced_axes_that_go() -> None:
    w = wired(
        MAP + '%y = reduce float32 [1,2] x=%c fn="sum" axes=[2,3] keepdims=false\nreturn y=%y'
    )
    assert neurons(w, "y") == [[0, 1]]


def test_over_neurons_one_reads_all() -> None:
    w = wired(
        HIDDEN + '%y = reduce float32 [1,1] x=%h fn="mean" axes=[1] keepdims=true\nreturn y=%y'
    )
    assert blocks(w, "y") == ["reduce [4,1]"]
    assert edges(w, "y").keys() == {(0, 0), (1, 0), (2, 0), (3, 0)}


def test_over_part_of_the_neurons() -> None:
    w = wired(
        HIDDEN
        + """
    %g = reshape float32 [1,2,2] x=%h
    %y = reduce float32 [1,2] x=%g fn="max" axes=[2] keepdims=false
    return y=%y
    """,
        exact=False,
    )
    assert blocks(w, "y") == ["reduce 2x[2,1]"]
    assert edges(w, "y").keys() == {(0, 0), (1, 0), (2, 1), (3, 1)}


def test_over_neurons_and_positions() -> None:
    w = wired(
        MAP + '%y = reduce float32 [1] x=%c fn="sum" axes=[1,2,3] keepdims=false\nreturn y=%y'
    )
    assert blocks(w, "y") == ["reduce [2,1]"]


def test_over_no_axis() -> None:
    w = wired(HIDDEN + '%y = reduce float32 [1,4] x=%h fn="sum" axes=[] keepdims=true\nreturn y=%y')
    assert blocks(w, "y") == ["pool 4x[1,1]"]


def test_a_repeated_neuron_is_read_once() -> None:
    w = wired(
        HIDDEN
        + """
    %t = take float32 [1,3] x=%h axis=1 index=int64[3]{0,0,1}
    %y = reduce float32 [1,1] x=%t fn="sum" axes=[1] keepdims=true
    return y=%y
    """
    )
    assert edges(w, "y").keys() == {(0, 0), (1, 0)}


def test_a_place_along_neurons_fixes_them() -> None:
    w = wired(
        HIDDEN + '%y = reduce int64 [1,1] x=%h fn="argmax" axes=[1] keepdims=true\nreturn y=%y',
        exact=False,
    )
    assert w.fixed[-1].tolist() == w.index["h"].ids.reshape(-1).tolist()


@pytest.mark.parametrize(
    "line",
    [
        '%y = cumulate float32 [1,4] x=%h fn="sum" axis=1',
        '%y = topk float32 [1,4] x=%h axis=1 largest=true result="values"',
        "%y = resize float32 [1,4] x=%h axes=[1] matrices=[float32[4,4]{1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}]",
    ],
)
def test_where_order_counts_all_read_all(line: str) -> None:
    w = wired(HIDDEN + line + "\nreturn y=%y", exact=False)
    assert blocks(w, "y") == ["mix [4,4]"]
    assert w.fixed[-2].tolist() == w.index["h"].ids.reshape(-1).tolist()
    assert w.fixed[-1].tolist() == w.index["y"].ids.reshape(-1).tolist()


def test_pooling_over_neurons_that_differ_by_position() -> None:
    w = wired(
        HIDDEN
        + """
    %m = reshape float32 [1,1,4] x=%h
    %y = pool float32 [1,1,3] x=%m fn="mean" kernel=[2] strides=[2] pads=[1,1] dilations=[1]
    return y=%y
    """
    )
    assert neurons(w, "y") == [[[0, 1, 2]]]
    assert edges(w, "y").keys() == {(0, 0), (1, 1), (2, 1), (3, 2)}


def test_a_gate_over_channels() -> None:
    """Squeeze and excite."""
    w = wired(
        MAP.replace("@k", "@a = param float32 [1,2]\n@b = param float32 [2,1]\n@k", 1)
        + """
    %p = reduce float32 [1,2] x=%c fn="mean" axes=[2,3] keepdims=false
    %s = linear float32 [1,1] x=%p weight=@a spec="bi,oi->bo"
    %r = activation float32 [1,1] x=%s fn="tanh"
    %e = linear float32 [1,2] x=%r weight=@b spec="bi,oi->bo"
    %g = activation float32 [1,2] x=%e fn="sigmoid"
    %u = reshape float32 [1,2,1,1] x=%g
    %y = combine float32 [1,2,4,4] xs=[%c,%u] fn="mul"
    return y=%y
    """
    )
    assert neurons(w, "y") == [[[[0]], [[1]]]]
    assert blocks(w, "y") == ["product 2x[1,1]", "product 2x[1,1]"]


# --- picking by data --------------------------------------------------------------------------


def test_picking_positions() -> None:
    w = wired(
        """
    @v = param float32 [2,3]
    %i = input int64 [2]
    %x = input float32 [1,5,3]
    %h = linear float32 [1,5,2] x=%x weight=@v spec="bti,oi->bto"
    %y = gather float32 [1,2,2] x=%h ids=%i fn="axis" axis=1
    return y=%y
    """,
        exact=False,
    )
    assert neurons(w, "y") == [[[0, 1]]]
    assert blocks(w, "y") == ["gather 2x[1,1]", "condition 2x[1,1]"]


def test_picking_neurons_reads_all_of_them() -> None:
    w = wired(
        HIDDEN
        + """
    %i = input int64 [2]
    %y = gather float32 [1,2] x=%h ids=%i fn="axis" axis=1
    return y=%y
    """,
        exact=False,
    )
    assert blocks(w, "y") == ["gather [4,1]", "condition [1,1]"]
    assert any(set(w.index["h"].ids.reshape(-1).tolist()) <= set(f.tolist()) for f in w.fixed)


def test_picking_elements_along_positions() -> None:
    w = wired(
        """
    @v = param float32 [2,3]
    %i = input int64 [1,1,2]
    %x = input float32 [1,5,3]
    %h = linear float32 [1,5,2] x=%x weight=@v spec="bti,oi->bto"
    %y = gather float32 [1,1,2] x=%h ids=%i fn="elements" axis=1
    return y=%y
    """,
        exact=False,
    )
    assert neurons(w, "y") == [[[0, 1]]]


def test_picking_elements_from_part_of_the_neurons_is_refused() -> None:
    program = program_of("""
    @v = param float32 [2,3]
    %i = input int64 [1,1,1]
    %x = input float32 [1,5,3]
    %h = linear float32 [1,5,2] x=%x weight=@v spec="bti,oi->bto"
    %y = gather float32 [1,1,1] x=%h ids=%i fn="elements" axis=1
    return y=%y
    """)
    with pytest.raises(UnsupportedOp, match="picking elements from part of the neurons"):
        wire(program)


def test_picking_by_coordinates_reads_everything() -> None:
    w = wired(
        HIDDEN
        + """
    %i = input int64 [3,2]
    %m = reshape float32 [2,2] x=%h
    %y = gather float32 [3] x=%m ids=%i fn="nd" axis=0
    return y=%y
    """,
        exact=False,
    )
    assert blocks(w, "y") == ["gather [4,1]", "condition [1,1]"]


def test_writing_along_neurons_makes_one_for_each_entry() -> None:
    w = wired(
        HIDDEN
        + """
    %v = topk float32 [1,2] x=%h axis=1 largest=true result="values"
    %i = topk int64 [1,2] x=%h axis=1 largest=true result="indices"
    %zero = constant float32 [1,4] data=float32[1,4]{0,0,0,0}
    %y = scatter float32 [1,4] x=%zero ids=%i updates=%v fn="write" axis=1
    return y=%y
    """,
        exact=False,
    )
    assert neurons(w, "y") == [[0, 1, 2, 3]]
    assert blocks(w, "y") == ["identity 4x[1,1]", "condition [2,4]", "gather [2,4]"]


def test_writing_into_one_entry_reads_all_that_may_be_written() -> None:
    body = """
    %i = input int64 [1,4]
    %zero = constant float32 [1,1] data=float32[1,1]{0}
    %y = scatter float32 [1,1] x=%zero ids=%i updates=%h fn="add" axis=1
    return y=%y
    """
    w = wire(program_of(HIDDEN + body))
    assert blocks(w, "y") == ["identity [1,1]", "condition [1,1]", "gather [4,1]"]


def test_writing_along_positions_keeps_neurons_apart() -> None:
    w = wired(
        """
    @v = param float32 [2,3]
    %i = input int64 [1,1,2]
    %x = input float32 [1,5,3]
    %z = input float32 [1,1,3]
    %h = linear float32 [1,5,2] x=%x weight=@v spec="bti,oi->bto"
    %u = linear float32 [1,1,2] x=%z weight=@v spec="bti,oi->bto"
    %y = scatter float32 [1,5,2] x=%h ids=%i updates=%u fn="add" axis=1
    return y=%y
    """,
        exact=False,
    )
    assert neurons(w, "y") == [[[0, 1]]]
    assert blocks(w, "y") == ["identity 2x[1,1]", "condition 2x[1,1]", "gather 2x[1,1]"]
