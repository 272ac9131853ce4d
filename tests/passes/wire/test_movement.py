"""Data movement passes neurons on; only joins and paddings of neurons make new ones."""

# ruff: noqa: E501  (program text)
from __future__ import annotations

import pytest

from tests.passes.wire.truth import blocks, edges, neurons, wired

HIDDEN = """
    @v = param float32 [4,2]
    %x = input float32 [1,2]
    %h = linear float32 [1,4] x=%x weight=@v spec="bi,oi->bo"
"""
MAP = """
    @k = param float32 [2,1,1,1]
    %x = input float32 [1,1,2,3]
    %c = convolution float32 [1,2,2,3] x=%x weight=@k strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
"""


def test_views_make_no_neurons() -> None:
    w = wired(
        HIDDEN
        + """
    %a = reshape float32 [2,2] x=%h
    %b = transpose float32 [2,2] x=%a perm=[1,0]
    %c = slice float32 [2,2] x=%b starts=[1,0] steps=[-1,1]
    %y = select float32 [3] x=%c index=int64[3]{3,0,0}
    return y=%y
    """
    )
    assert neurons(w, "b") == [[0, 2], [1, 3]]
    assert neurons(w, "c") == [[1, 3], [0, 2]]
    assert (w.index["y"].ids - w.index["h"].ids.min()).tolist() == [2, 1, 1]
    assert w.num_neurons == 6


def test_inputs_have_a_neuron_for_each_feature() -> None:
    w = wired(HIDDEN + "return y=%h")
    assert neurons(w, "x") == [[0, 1]]
    assert w.fixed[0].tolist() == [0, 1]


def test_a_parameter_as_an_activation_has_biases() -> None:
    """A class token."""
    w = wired("""
    @t = param float32 [1,1,3]
    @w = param float32 [2,3]
    %t = parameter float32 [1,1,3] data=@t
    %y = linear float32 [1,1,2] x=%t weight=@w spec="bti,oi->bto"
    return y=%y
    """)
    assert neurons(w, "t") == [[[0, 1, 2]]]
    assert w.scalars[0].slots.tolist() == [2, 3, 4]


def test_a_parameter_that_differs_by_position() -> None:
    """Learned queries: features as neurons, positions one-hot."""
    w = wired("""
    @t = param float32 [1,2,3]
    @w = param float32 [2,3]
    %t = parameter float32 [1,2,3] data=@t
    %y = linear float32 [1,2,2] x=%t weight=@w spec="bti,oi->bto"
    return y=%y
    """)
    assert neurons(w, "t") == [[[0, 1, 2]]]
    assert blocks(w, "t") == ["position_bias [2,3]"]
    assert w.wires[0].slots.numpy()[0, :, :, 0].tolist() == [[2, 5], [3, 6], [4, 7]]


def test_a_parameter_repeated_for_a_batch_differs_by_no_position() -> None:
    w = wired("""
    @t = param float32 [1,1,3]
    @w = param float32 [2,3]
    %t = parameter float32 [4,1,3] data=@t{[4,1,3] offset=0 strides=[0,0,1]}
    %y = linear float32 [4,1,2] x=%t weight=@w spec="bti,oi->bto"
    return y=%y
    """)
    assert neurons(w, "t") == [[[0, 1, 2]]]
    assert w.scalars[0].slots.tolist() == [2, 3, 4]
    assert w.num_neurons == 3 + 2


def test_a_constant_is_one_neuron() -> None:
    w = wired(
        HIDDEN
        + """
    %k = constant float32 [1,4] data=float32[1,4]{1,2,3,4}
    %y = combine float32 [1,4] xs=[%h,%k] fn="mul"
    return y=%y
    """
    )
    assert neurons(w, "k") == [[0]]
    assert blocks(w, "y") == ["product 4x[1,1]", "product 4x[1,1]"]


def test_padding_of_positions_makes_no_neurons() -> None:
    w = wired(MAP + "%y = pad float32 [1,2,4,3] x=%c pads=[0,0,1,0,0,0,1,0]\nreturn y=%y")
    assert w.index["y"].ids.reshape(-1).tolist() == w.index["c"].ids.reshape(-1).tolist()


@pytest.mark.parametrize("value", ["0.0", "1.0"])
def test_padding_of_neurons_is_one_constant_neuron(value: str) -> None:
    w = wired(HIDDEN + f"%y = pad float32 [1,7] x=%h pads=[0,1,0,2] value={value}\nreturn y=%y")
    h = int(w.index["h"].ids.min())
    assert (w.index["y"].ids - h).tolist() == [[4, 0, 1, 2, 3, 4, 4]]


def test_concatenated_features() -> None:
    w = wired(
        HIDDEN
        + """
    %y = concat float32 [1,6] xs=[%h,%x] axis=1
    return y=%y
    """
    )
    assert w.index["y"].ids.tolist() == [[2, 3, 4, 5, 0, 1]]


def test_concatenated_positions_make_neurons_that_read_both() -> None:
    """A class token before the patches."""
    w = wired("""
    @t = param float32 [1,1,2]
    @v = param float32 [2,3]
    @w = param float32 [2,2]
    %x = input float32 [1,4,3]
    %h = linear float32 [1,4,2] x=%x weight=@v spec="bti,oi->bto"
    %t = parameter float32 [1,1,2] data=@t
    %c = concat float32 [1,5,2] xs=[%t,%h] axis=1
    %y = linear float32 [1,5,2] x=%c weight=@w spec="bti,oi->bto"
    return y=%y
    """)
    assert neurons(w, "c") == [[[0, 1]]]
    assert blocks(w, "c") == ["identity 2x[1,1]", "identity 2x[1,1]"]


def test_a_value_concatenated_with_itself_along_positions() -> None:
    w = wired(MAP + "%y = concat float32 [1,2,4,3] xs=[%c,%c] axis=2\nreturn y=%y")
    assert w.index["y"].ids.shape == (1, 2, 1, 1)
    assert w.num_neurons == 3


def test_concatenated_positions_of_single_neurons() -> None:
    """Nothing but the axis tells the entries apart."""
    w = wired("""
    @w = param float32 [3]
    %a = input float32 [1,1]
    %b = input float32 [1,2]
    %c = concat float32 [1,3] xs=[%a,%b] axis=1
    %y = scale float32 [1,3] x=%c factor=@w
    return y=%y
    """)
    assert neurons(w, "c") == [[0, 1, 2]]
    assert edges(w, "y") == {(0, 0): [0], (1, 1): [1], (2, 2): [2]}


def test_rolled_windows() -> None:
    """Slice, Slice, Concat along positions, as shifted windows are written."""
    w = wired(
        MAP
        + """
    %a = slice float32 [1,2,2,1] x=%c starts=[0,0,0,2] steps=[1,1,1,1]
    %b = slice float32 [1,2,2,2] x=%c starts=[0,0,0,0] steps=[1,1,1,1]
    %y = concat float32 [1,2,2,3] xs=[%a,%b] axis=3
    return y=%y
    """
    )
    assert w.index["y"].ids.reshape(-1).tolist() == w.index["c"].ids.reshape(-1).tolist()


def test_pixel_shuffle() -> None:
    """DepthToSpace: four channels become the four pixels of one."""
    w = wired("""
    @k = param float32 [4,1,1,1]
    @w = param float32 [1,1,2,2]
    %x = input float32 [1,1,2,2]
    %c = convolution float32 [1,4,2,2] x=%x weight=@k strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
    %a = reshape float32 [1,1,2,2,2,2] x=%c
    %b = transpose float32 [1,1,2,2,2,2] x=%a perm=[0,1,4,2,5,3]
    %d = reshape float32 [1,1,4,4] x=%b
    %y = convolution float32 [1,1,3,3] x=%d weight=@w strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
    return y=%y
    """)
    assert neurons(w, "d") == [[[[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]]]]
    # Neurons repeat with period two in both directions.
    assert len(w.index["y"].ids.reshape(-1)) == 9
    assert len(set(w.index["y"].ids.reshape(-1).tolist())) == 4
