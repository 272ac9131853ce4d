"""Which neurons a weighted operation joins, by which kernels. Every program here is also proven
true by running it (``truth.py``)."""

# ruff: noqa: E501  (program text)
from __future__ import annotations

import pytest

from ngc.errors import BudgetError
from ngc.passes.wire import wire
from tests.passes.program.golden import program_of
from tests.passes.wire.truth import blocks, edges, neurons, wired

# --- an axis of neurons is contracted ---------------------------------------------------------


def test_a_linear_layer_is_one_dense_block() -> None:
    w = wired("""
        @w = param float32 [2,3]
        %x = input float32 [1,3]
        %y = linear float32 [1,2] x=%x weight=@w spec="bi,oi->bo"
        return y=%y
    """)
    assert blocks(w, "y") == ["linear [3,2]"]
    assert edges(w, "y") == {(0, 0): [0], (1, 0): [1], (2, 0): [2], (0, 1): [3], (1, 1): [4], (2, 1): [5]}  # fmt: skip


def test_a_transposed_weight_joins_the_same_neurons() -> None:
    """Gemm with transB=0: @w [in, out]."""
    w = wired("""
        @w = param float32 [3,2]
        %x = input float32 [1,3]
        %y = linear float32 [1,2] x=%x weight=@w spec="bi,io->bo"
        return y=%y
    """)
    assert edges(w, "y") == {(0, 0): [0], (1, 0): [2], (2, 0): [4], (0, 1): [1], (1, 1): [3], (2, 1): [5]}  # fmt: skip


def test_tokens_are_positions() -> None:
    w = wired("""
        @w = param float32 [2,3]
        %x = input float32 [2,5,3]
        %y = linear float32 [2,5,2] x=%x weight=@w spec="bti,oi->bto"
        return y=%y
    """, x=(2,))  # fmt: skip
    assert neurons(w, "y") == [[[0, 1]]]
    assert blocks(w, "y") == ["linear [3,2]"]


def test_weights_on_the_left() -> None:
    """W x with features in rows."""
    w = wired("""
        @w = param float32 [2,3]
        %x = input float32 [3,4]
        %y = linear float32 [2,4] x=%x weight=@w spec="it,oi->ot"
        return y=%y
    """)
    assert neurons(w, "x") == [[0], [1], [2]]
    assert neurons(w, "y") == [[0], [1]]


def test_two_output_axes() -> None:
    """The projection of heads as Keras writes it: abc,cde->abde."""
    w = wired("""
        @w = param float32 [3,2,2]
        %x = input float32 [1,5,3]
        %y = linear float32 [1,5,2,2] x=%x weight=@w spec="btc,cde->btde"
        return y=%y
    """)
    assert neurons(w, "y") == [[[[0, 1], [2, 3]]]]
    assert blocks(w, "y") == ["linear [3,4]"]


def test_two_contracted_axes() -> None:
    """The projection out of the heads: abcd,cde->abe."""
    w = wired("""
        @v = param float32 [3,2,2]
        @w = param float32 [2,2,3]
        %x = input float32 [1,5,3]
        %h = linear float32 [1,5,2,2] x=%x weight=@v spec="btc,cde->btde"
        %y = linear float32 [1,5,3] x=%h weight=@w spec="btcd,cde->bte"
        return y=%y
    """)
    assert blocks(w, "y") == ["linear [4,3]"]
    assert [k[0] for k in edges(w, "y").values()][:4] == [12, 15, 18, 21]


def test_a_weight_for_each_head() -> None:
    """Grouped: heads keep apart."""
    w = wired("""
        @v = param float32 [2,2,3]
        @w = param float32 [2,2,2]
        %x = input float32 [1,3]
        %h = linear float32 [1,2,2] x=%x weight=@v spec="bi,hoi->bho"
        %y = linear float32 [1,2,2] x=%h weight=@w spec="bhi,hoi->bho"
        return y=%y
    """)
    assert blocks(w, "y") == ["linear 2x[2,2]"]
    assert edges(w, "y") == {(0, 0): [12], (1, 0): [13], (0, 1): [14], (1, 1): [15], (2, 2): [16], (3, 2): [17], (2, 3): [18], (3, 3): [19]}  # fmt: skip


def test_a_weight_for_each_position_is_a_kernel() -> None:
    w = wired("""
        @w = param float32 [4,2,3]
        %x = input float32 [1,4,3]
        %y = linear float32 [1,4,2] x=%x weight=@w spec="bti,toi->bto"
        return y=%y
    """, x=(2,), exact=False)  # fmt: skip
    assert blocks(w, "y") == ["linear [3,2] 4"]
    assert edges(w, "y")[1, 0] == [1, 7, 13, 19]


# --- an axis of positions is contracted -------------------------------------------------------


def test_token_mixing_keeps_the_neurons_apart() -> None:
    """The token mixer of an MLP-Mixer: a positional operator [5, 4] on each diagonal edge."""
    w = wired("""
        @v = param float32 [2,3]
        @w = param float32 [5,4]
        %x = input float32 [1,4,3]
        %h = linear float32 [1,4,2] x=%x weight=@v spec="bti,oi->bto"
        %y = linear float32 [1,5,2] x=%h weight=@w spec="bti,st->bsi"
        return y=%y
    """)
    assert neurons(w, "y") == [[[0, 1]]]
    assert blocks(w, "y") == ["positional 2x[1,1] 5x4"]
    assert edges(w, "y")[0, 0] == edges(w, "y")[1, 1] == list(range(6, 26))


def test_mixing_of_two_axes_of_positions() -> None:
    w = wired("""
        @v = param float32 [2,3]
        @w = param float32 [2,2,4]
        %x = input float32 [1,2,2,3]
        %h = linear float32 [1,2,2,2] x=%x weight=@v spec="bsti,oi->bsto"
        %y = linear float32 [1,4,2] x=%h weight=@w spec="bsti,stu->bui"
        return y=%y
    """)
    assert blocks(w, "y") == ["positional 2x[1,1] 4x4"]
    assert edges(w, "y")[0, 0] == [6, 10, 14, 18, 7, 11, 15, 19, 8, 12, 16, 20, 9, 13, 17, 21]


# --- an axis of both is contracted: flatten ---------------------------------------------------

FLATTEN = """
    @k = param float32 [2,1,1,1]
    @w = param float32 [2,8]
    %x = input float32 [1,1,2,2]
    %c = convolution float32 [1,2,2,2] x=%x weight=@k strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
"""


def test_flatten_of_channels_first() -> None:
    """Weights of one channel are contiguous."""
    w = wired(
        FLATTEN
        + """
    %f = reshape float32 [1,8] x=%c
    %y = linear float32 [1,2] x=%f weight=@w spec="bi,oi->bo"
    return y=%y
    """
    )
    assert blocks(w, "y") == ["linear_positions [2,2] 2x2"]
    assert edges(w, "y") == {
        (0, 0): [2, 3, 4, 5], (1, 0): [6, 7, 8, 9],
        (0, 1): [10, 11, 12, 13], (1, 1): [14, 15, 16, 17],
    }  # fmt: skip


def test_flatten_of_channels_last() -> None:
    """Weights of one channel are two apart."""
    w = wired(
        FLATTEN
        + """
    %t = transpose float32 [1,2,2,2] x=%c perm=[0,2,3,1]
    %f = reshape float32 [1,8] x=%t
    %y = linear float32 [1,2] x=%f weight=@w spec="bi,oi->bo"
    return y=%y
    """
    )
    assert blocks(w, "y") == ["linear_positions [2,2] 2x2"]
    assert edges(w, "y") == {
        (0, 0): [2, 4, 6, 8], (1, 0): [3, 5, 7, 9],
        (0, 1): [10, 12, 14, 16], (1, 1): [11, 13, 15, 17],
    }  # fmt: skip


def test_flatten_of_width_before_height() -> None:
    """A kernel lies as the positions do in the axis that is contracted."""
    w = wired(
        FLATTEN.replace("[1,2,2,2]", "[1,2,1,4]").replace("[1,1,2,2]", "[1,1,1,4]")
        + """
    %t = transpose float32 [1,4,1,2] x=%c perm=[0,3,2,1]
    %f = reshape float32 [1,8] x=%t
    %y = linear float32 [1,2] x=%f weight=@w spec="bi,oi->bo"
    return y=%y
    """
    )
    assert edges(w, "y")[1, 0] == [3, 5, 7, 9]


def test_a_skip_concatenated_twice_joins_into_one_edge() -> None:
    """One neuron at two places of the contracted axis: an edge with two entries."""
    w = wired("""
        @w = param float32 [1,5]
        %x = input float32 [1,3]
        %s = slice float32 [1,2] x=%x starts=[0,1] steps=[1,1]
        %c = concat float32 [1,5] xs=[%x,%s] axis=1
        %y = linear float32 [1,1] x=%c weight=@w spec="bi,oi->bo"
        return y=%y
    """)
    assert blocks(w, "y") == ["linear [1,1]", "linear_positions [2,1] 2"]
    assert edges(w, "y") == {(0, 0): [0], (1, 0): [1, 3], (2, 0): [2, 4]}


def test_neurons_at_different_counts_in_different_groups() -> None:
    w = wired("""
        @w = param float32 [2,1,3]
        %x = input float32 [1,4]
        %s = take float32 [1,6] x=%x axis=1 index=int64[6]{0,0,1,1,2,3}
        %h = reshape float32 [1,2,3] x=%s
        %y = linear float32 [1,2,1] x=%h weight=@w spec="bhi,hoi->bho"
        return y=%y
    """)
    assert edges(w, "y") == {(0, 0): [0, 1], (1, 0): [2], (1, 1): [3], (2, 1): [4], (3, 1): [5]}


def test_positions_that_are_neurons_share_weights() -> None:
    """Each token of a flattened image is a set of neurons; one weight, edges for each token."""
    w = wired("""
        @w = param float32 [2,2]
        %x = input float32 [1,6]
        %t = reshape float32 [1,3,2] x=%x
        %y = linear float32 [1,3,2] x=%t weight=@w spec="bti,oi->bto"
        return y=%y
    """, x=(1,))  # fmt: skip
    assert blocks(w, "y") == ["linear 3x[2,2]"]
    assert neurons(w, "y") == [[[0, 1], [2, 3], [4, 5]]]
    assert edges(w, "y")[4, 5] == edges(w, "y")[0, 1] == [2]


def test_repeated_rows_are_the_same_neurons() -> None:
    """Heads repeated by Expand (grouped-query attention) are projected once."""
    w = wired("""
        @v = param float32 [2,2,3]
        @w = param float32 [2,2]
        %x = input float32 [1,3]
        %k = linear float32 [1,2,2] x=%x weight=@v spec="bi,hoi->bho"
        %u = reshape float32 [1,2,1,2] x=%k
        %e = expand float32 [1,2,2,2] x=%u
        %q = reshape float32 [1,4,2] x=%e
        %y = linear float32 [1,4,2] x=%q weight=@w spec="bhi,oi->bho"
        return y=%y
    """)
    assert neurons(w, "y") == [[[0, 1], [0, 1], [2, 3], [2, 3]]]
    assert blocks(w, "y") == ["linear 2x[2,2]"]


def test_tied_weights_are_the_same_slots() -> None:
    """An autoencoder whose decoder is the encoder transposed."""
    w = wired("""
        @w = param float32 [2,3]
        %x = input float32 [1,3]
        %h = linear float32 [1,2] x=%x weight=@w spec="bi,oi->bo"
        %y = linear float32 [1,3] x=%h weight=@w spec="bo,oi->bi"
        return y=%y
    """)
    encoder, decoder = edges(w, "h"), edges(w, "y")
    assert decoder == {(o, i): kernel for (i, o), kernel in encoder.items()}


def test_an_outer_product_has_no_contraction() -> None:
    w = wired("""
        @w = param float32 [3]
        %x = input float32 [1,2]
        %y = linear float32 [1,2,3] x=%x weight=@w spec="bi,o->bio"
        return y=%y
    """)
    assert neurons(w, "y") == [[[0, 1, 2], [3, 4, 5]]]
    assert edges(w, "y")[1, 4] == [1]


# --- convolutions -----------------------------------------------------------------------------


def convolution(
    weight: str, source: str, out: str, groups: int = 1, strides: str = "", pads: str = "",
    mnemonic: str = "convolution",
) -> str:  # fmt: skip
    rank = source.count(",") - 1
    ones, zeros = ",".join("1" * rank), ",".join("0" * 2 * rank)
    return f"""
        @w = param float32 {weight}
        %x = input float32 {source}
        %y = {mnemonic} float32 {out} x=%x weight=@w strides=[{strides or ones}] pads=[{pads or zeros}] dilations=[{ones}] groups={groups}
        return y=%y
    """


def test_a_convolution_joins_channels() -> None:
    w = wired(convolution("[3,2,2,2]", "[1,2,4,5]", "[1,3,3,4]"))
    assert blocks(w, "y") == ["convolution [2,3] 2x2"]
    assert neurons(w, "y") == [[[[0]], [[1]], [[2]]]]
    assert edges(w, "y")[1, 2] == [20, 21, 22, 23]


@pytest.mark.parametrize(
    ("strides", "pads", "out"), [("2,1", "1,0,0,2", "[1,2,2,6]"), ("1,2", "1,1,1,1", "[1,2,5,3]")]
)
def test_strides_and_pads_leave_the_edges_alone(strides: str, pads: str, out: str) -> None:
    w = wired(convolution("[2,1,2,2]", "[1,1,4,5]", out, strides=strides, pads=pads))
    assert edges(w, "y") == {(0, 0): [0, 1, 2, 3], (0, 1): [4, 5, 6, 7]}


def test_a_convolution_in_one_dimension() -> None:
    w = wired(convolution("[2,2,3]", "[1,2,5]", "[1,2,3]"))
    assert blocks(w, "y") == ["convolution [2,2] 3"]
    assert edges(w, "y")[1, 1] == [9, 10, 11]


def test_a_convolution_in_three_dimensions() -> None:
    w = wired(convolution("[2,1,2,1,2]", "[1,1,2,2,3]", "[1,2,1,2,2]"))
    assert blocks(w, "y") == ["convolution [1,2] 2x1x2"]


def test_depthwise_convolution_is_diagonal() -> None:
    w = wired(convolution("[3,1,2,2]", "[1,3,4,4]", "[1,3,3,3]", groups=3))
    assert blocks(w, "y") == ["convolution 3x[1,1] 2x2"]
    assert edges(w, "y") == {(0, 0): [0, 1, 2, 3], (1, 1): [4, 5, 6, 7], (2, 2): [8, 9, 10, 11]}


def test_grouped_convolution_is_block_diagonal() -> None:
    w = wired(convolution("[4,1,1,1]", "[1,2,2,2]", "[1,4,2,2]", groups=2))
    assert edges(w, "y") == {(0, 0): [0], (0, 1): [1], (1, 2): [2], (1, 3): [3]}


def test_transposed_convolution_has_in_before_out() -> None:
    """Its weight is [in, out, ...], other than a convolution's."""
    w = wired(convolution("[2,3,2,2]", "[1,2,3,3]", "[1,3,4,4]", mnemonic="convolution_transpose"))
    assert blocks(w, "y") == ["convolution_transpose [2,3] 2x2"]
    assert edges(w, "y")[1, 0] == [12, 13, 14, 15]
    assert edges(w, "y")[0, 2] == [8, 9, 10, 11]


def test_grouped_transposed_convolution() -> None:
    w = wired(
        convolution(
            "[4,1,2]", "[1,4,3]", "[1,2,6]", groups=2, strides="2",
            mnemonic="convolution_transpose",
        )
    )  # fmt: skip
    assert edges(w, "y") == {(0, 0): [0, 1], (1, 0): [2, 3], (2, 1): [4, 5], (3, 1): [6, 7]}


def test_channels_last_behind_transposes() -> None:
    w = wired("""
        @w = param float32 [2,3,1,1]
        %x = input float32 [1,4,4,3]
        %t = transpose float32 [1,3,4,4] x=%x perm=[0,3,1,2]
        %c = convolution float32 [1,2,4,4] x=%t weight=@w strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
        %y = transpose float32 [1,4,4,2] x=%c perm=[0,2,3,1]
        return y=%y
    """)
    assert neurons(w, "x") == [[[[0, 1, 2]]]]
    assert neurons(w, "y") == [[[[0, 1]]]]


def test_concatenated_channels() -> None:
    """DenseNet: a convolution over its input and what an earlier one made of it."""
    w = wired("""
        @v = param float32 [2,1,1,1]
        @w = param float32 [1,3,1,1]
        %x = input float32 [1,1,2,2]
        %a = convolution float32 [1,2,2,2] x=%x weight=@v strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
        %c = concat float32 [1,3,2,2] xs=[%a,%x] axis=1
        %y = convolution float32 [1,1,2,2] x=%c weight=@w strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
        return y=%y
    """)
    x, a, y = (int(w.index[name].ids.min()) for name in "xay")
    block = w.wires[-1]
    assert block.src.tolist() == [[a, a + 1, x]]
    assert block.dst.tolist() == [[y]]


def test_one_channel_twice() -> None:
    """Concatenating a map with itself: one edge, its kernel both kernels."""
    w = wired("""
        @w = param float32 [1,2,2,1]
        %x = input float32 [1,1,3,3]
        %c = concat float32 [1,2,3,3] xs=[%x,%x] axis=1
        %y = convolution float32 [1,1,2,3] x=%c weight=@w strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
        return y=%y
    """)
    assert blocks(w, "y") == ["convolution_positions [1,1] 2x2x1"]
    assert edges(w, "y") == {(0, 0): [0, 1, 2, 3]}


def test_a_convolution_over_neurons_that_differ_by_position() -> None:
    """A vector reshaped to a map: each position has neurons of its own, weights are shared."""
    w = wired("""
        @v = param float32 [4,2]
        @w = param float32 [1,1,2,2]
        %x = input float32 [1,2]
        %h = linear float32 [1,4] x=%x weight=@v spec="bi,oi->bo"
        %m = reshape float32 [1,1,2,2] x=%h
        %y = convolution float32 [1,1,2,1] x=%m weight=@w strides=[1,1] pads=[0,0,1,0] dilations=[1,1] groups=1
        return y=%y
    """)
    assert neurons(w, "y") == [[[[0], [1]]]]
    # The second window hangs over the border: nothing is read there.
    assert edges(w, "y") == {(0, 0): [8], (1, 0): [9], (2, 0): [10], (3, 0): [11], (2, 1): [8], (3, 1): [9]}  # fmt: skip
    assert len(w.births) == 3


def test_a_transposed_convolution_over_neurons_that_differ_by_position() -> None:
    """The generator of a GAN: Linear, Reshape, ConvTranspose."""
    w = wired("""
        @v = param float32 [8,2]
        @w = param float32 [2,1,2,2]
        %x = input float32 [1,2]
        %h = linear float32 [1,8] x=%x weight=@v spec="bi,oi->bo"
        %m = reshape float32 [1,2,2,2] x=%h
        %y = convolution_transpose float32 [1,1,4,4] x=%m weight=@w strides=[2,2] pads=[0,0,0,0] dilations=[1,1] groups=1
        return y=%y
    """)
    assert neurons(w, "y")[0][0][0] == [0, 1, 2, 3]
    assert edges(w, "y")[0, 0] == [16]
    assert edges(w, "y")[4, 1] == [21]
    assert len(edges(w, "y")) == 32


def test_windows_beyond_the_budget_are_refused() -> None:
    program = program_of("""
        @w = param float32 [1,1,2,2]
        %x = input float32 [1,1,2,2]
        %y = convolution float32 [1,1,1,1] x=%x weight=@w strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
        return y=%y
    """)
    with pytest.raises(BudgetError, match="a convolution over neurons that differ by position"):
        wire(program, {"x": (2, 3)}, max_elements=63)
    assert wire(program, {"x": (2, 3)}, max_elements=64).num_neurons == 5


# --- embeddings -------------------------------------------------------------------------------


def test_an_embedding_reads_one_hot_neurons() -> None:
    w = wired("""
        @w = param float32 [3,2]
        %i = input int64 [1,4]
        %y = embedding float32 [1,4,2] ids=%i weight=@w
        return y=%y
    """)
    assert blocks(w, "y") == ["token [1,3]", "embedding [3,2]"]
    assert neurons(w, "y") == [[[0, 1]]]
    _, embedding = (block for block in w.wires)
    assert embedding.slots.numpy()[0, :, :, 0].tolist() == [[2, 4, 6], [3, 5, 7]]


def test_a_tied_output_head_shares_the_table() -> None:
    w = wired("""
        @w = param float32 [3,2]
        %i = input int64 [1,4]
        %e = embedding float32 [1,4,2] ids=%i weight=@w
        %y = linear float32 [1,4,3] x=%e weight=@w spec="bti,vi->btv"
        return y=%y
    """)
    _, embedding, head = w.wires
    assert (head.slots.numpy()[0, :, :, 0] == embedding.slots.numpy()[0, :, :, 0].T).all()
