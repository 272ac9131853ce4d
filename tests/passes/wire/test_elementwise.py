"""Operations that work entry by entry: which neurons they read, where their parameters hang."""

# ruff: noqa: E501  (program text)
from __future__ import annotations

import numpy as np
import pytest

from ngc.passes.wire import Wiring
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
TOKENS = """
    @v = param float32 [4,2]
    %x = input float32 [1,3,2]
    %h = linear float32 [1,3,4] x=%x weight=@v spec="bti,oi->bto"
"""


def scalars(w: Wiring, name: str) -> dict[str, list[int]]:
    """Slots by role, counted without the two constants."""
    number = [op.out.name for op in w.program.ops].index(name)
    return {s.role: (s.slots - 2).tolist() for s in w.scalars if s.op == number}


def test_an_activation_has_one_neuron_for_each_it_reads() -> None:
    w = wired(HIDDEN + '%y = activation float32 [1,4] x=%h fn="tanh"\nreturn y=%y')
    assert blocks(w, "y") == ["identity 4x[1,1]"]
    assert edges(w, "y") == {(k, k): [-1] for k in range(4)}  # the constant 1


def test_an_activation_of_a_repeated_neuron_is_one_neuron() -> None:
    w = wired(
        HIDDEN
        + """
    %t = take float32 [1,3] x=%h axis=1 index=int64[3]{2,0,2}
    %y = activation float32 [1,3] x=%t fn="tanh"
    return y=%y
    """
    )
    assert neurons(w, "y") == [[0, 1, 0]]
    assert edges(w, "y").keys() == {(2, 0), (0, 1)}


def test_a_bias() -> None:
    w = wired(
        "@b = param float32 [4]\n" + HIDDEN + "%y = shift float32 [1,4] x=%h term=@b\nreturn y=%y"
    )
    assert scalars(w, "y") == {"bias": [0, 1, 2, 3]}


@pytest.mark.parametrize(
    ("fn", "role", "edge"), [("sub", "sub_bias", "identity"), ("rsub", "bias", "negative")]
)
def test_a_subtracted_parameter(fn: str, role: str, edge: str) -> None:
    w = wired(
        "@b = param float32 [4]\n"
        + HIDDEN
        + f'%y = shift float32 [1,4] x=%h term=@b fn="{fn}"\nreturn y=%y'
    )
    assert scalars(w, "y") == {role: [0, 1, 2, 3]}
    assert blocks(w, "y") == [f"{edge} 4x[1,1]"]


def test_a_bias_of_channels() -> None:
    w = wired(
        "@b = param float32 [2]\n"
        + MAP
        + """
    %y = shift float32 [1,2,2,3] x=%c term=@b{[2,1,1] offset=0 strides=[1,0,0]}
    return y=%y
    """
    )
    assert scalars(w, "y") == {"bias": [0, 1]}


def test_one_bias_for_all() -> None:
    w = wired(
        "@b = param float32 [1]\n" + HIDDEN + "%y = shift float32 [1,4] x=%h term=@b\nreturn y=%y"
    )
    assert scalars(w, "y") == {"bias": [0] * 4}


def test_a_bias_that_differs_by_position() -> None:
    """A position table: one-hot positions, and the table's columns as their edges."""
    w = wired(
        "@b = param float32 [3,4]\n"
        + TOKENS
        + "%y = shift float32 [1,3,4] x=%h term=@b\nreturn y=%y"
    )
    assert blocks(w, "y") == ["identity 4x[1,1]", "position_bias [3,4]"]
    table = w.wires[-1].slots.numpy()[0, :, :, 0]
    assert (table.T - 2).tolist() == np.arange(12).reshape(3, 4).tolist()
    assert neurons(w, "y") == [[[0, 1, 2, 3]]]


def test_a_bias_that_makes_neurons_differ() -> None:
    """Only the parameter has features: each is a neuron."""
    w = wired("""
    @b = param float32 [3]
    %x = input float32 [1,1]
    %y = shift float32 [1,3] x=%x term=@b
    return y=%y
    """)
    assert neurons(w, "y") == [[0, 1, 2]]
    assert edges(w, "y").keys() == {(0, 0), (0, 1), (0, 2)}


@pytest.mark.parametrize(
    ("fn", "kind"), [("mul", "scale"), ("div", "divide"), ("rdiv", "reciprocal")]
)
def test_a_factor_is_on_the_diagonal(fn: str, kind: str) -> None:
    w = wired(
        "@g = param float32 [4]\n"
        + HIDDEN
        + f'%y = scale float32 [1,4] x=%h factor=@g fn="{fn}"\nreturn y=%y'
    )
    assert blocks(w, "y") == [f"{kind} 4x[1,1]"]
    assert edges(w, "y") == {(k, k): [k] for k in range(4)}


def test_a_factor_that_differs_by_position_is_a_kernel() -> None:
    w = wired(
        "@g = param float32 [3,4]\n"
        + TOKENS
        + "%y = scale float32 [1,3,4] x=%h factor=@g\nreturn y=%y"
    )
    assert blocks(w, "y") == ["scale 4x[1,1] 3"]
    assert edges(w, "y")[1, 1] == [1, 5, 9]


def test_the_slope_of_prelu() -> None:
    w = wired(
        "@s = param float32 [2,1,1]\n"
        + MAP
        + "%y = prelu float32 [1,2,2,3] x=%c slope=@s\nreturn y=%y"
    )
    assert scalars(w, "y") == {"slope": [0, 1]}


BATCH_NORM = """
    @g = param float32 [2]
    @b = param float32 [2]
    @m = param float32 [2]
    @v = param float32 [2]
""" + MAP  # fmt: skip


def test_batch_norm_is_diagonal() -> None:
    """Scale on the edge, the three others on the neuron; not sources that fan out."""
    program = (
        BATCH_NORM
        + """
    %y = batch_norm float32 [1,2,2,3] x=%c scale=@g bias=@b mean=@m var=@v epsilon=1e-05
    return y=%y
    """
    )
    w = wired(program)
    assert blocks(w, "y") == ["norm 2x[1,1]"]
    assert edges(w, "y") == {(0, 0): [0], (1, 1): [1]}
    assert scalars(w, "y") == {"bias": [2, 3], "mean": [4, 5], "var": [6, 7]}


def test_batch_norm_of_a_flattened_map() -> None:
    """Each channel's statistics follow its neurons, here one for each position of a channel."""
    w = wired(
        """
    @g = param float32 [2]
    @b = param float32 [2]
    @m = param float32 [2]
    @v = param float32 [2]
    @w = param float32 [6,1]
    %x = input float32 [1,1]
    %h = linear float32 [1,6] x=%x weight=@w spec="bi,oi->bo"
    %c = reshape float32 [1,2,3] x=%h
    %y = batch_norm float32 [1,2,3] x=%c scale=@g bias=@b mean=@m var=@v epsilon=1e-05
    return y=%y
    """,
        exact=False,
    )
    assert [k[0] for k in edges(w, "y").values()] == [0, 0, 0, 1, 1, 1]
    assert scalars(w, "y")["mean"] == [4, 4, 4, 5, 5, 5]


def test_a_normalisation_is_diagonal() -> None:
    w = wired(
        HIDDEN
        + '%y = normalise float32 [1,4] x=%h fn="standard" axes=[1] epsilon=1e-05\nreturn y=%y'
    )
    assert blocks(w, "y") == ["norm 4x[1,1]"]


def test_groups_of_a_normalisation_are_kept() -> None:
    """GroupNorm: sets of neurons that are normalised together."""
    w = wired(
        HIDDEN
        + """
    %g = reshape float32 [1,2,2] x=%h
    %y = normalise float32 [1,2,2] x=%g fn="standard" axes=[2] epsilon=1e-05
    return y=%y
    """
    )
    ((_, sets),) = w.sets
    assert (sets - sets.min()).tolist() == [[0, 1], [2, 3]]


def test_a_sum_reads_both() -> None:
    w = wired(
        HIDDEN
        + """
    %a = activation float32 [1,4] x=%h fn="tanh"
    %y = combine float32 [1,4] xs=[%a,%h] fn="add"
    return y=%y
    """
    )
    assert blocks(w, "y") == ["identity 4x[1,1]", "identity 4x[1,1]"]
    assert edges(w, "y").keys() == {(k, k) for k in range(4)} | {(k - 4, k) for k in range(4)}


@pytest.mark.parametrize(
    ("fn", "kinds"),
    [
        ("sub", ["identity", "negative"]),
        ("mul", ["product", "product"]),
        ("div", ["product", "quotient"]),
        ("max", ["maximum", "maximum"]),
        ("min", ["minimum", "minimum"]),
        ("pow", ["base", "exponent"]),
        ("fmod", ["operand", "operand"]),
    ],
)
def test_kinds_of_operands(fn: str, kinds: list[str]) -> None:
    w = wired(
        HIDDEN
        + f"""
    %a = activation float32 [1,4] x=%h fn="sigmoid"
    %y = combine float32 [1,4] xs=[%a,%h] fn="{fn}"
    return y=%y
    """,
        exact=False,
    )
    assert [b.kind for b in w.wires[-2:]] == kinds


def test_the_condition_of_a_where() -> None:
    w = wired(
        """
    @v = param float32 [2,2]
    %m = input bool [1,2]
    %x = input float32 [1,2]
    %h = linear float32 [1,2] x=%x weight=@v spec="bi,oi->bo"
    %y = combine float32 [1,2] xs=[%m,%h,%x] fn="where"
    return y=%y
    """,
        exact=False,
    )
    assert [b.kind for b in w.wires[-3:]] == ["condition", "identity", "identity"]


def test_padded_channels_of_a_shortcut_are_not_added() -> None:
    """The first operand has fewer channels, filled up with zeros (ResNet for CIFAR, option A)."""
    w = wired("""
    @v = param float32 [4,2]
    %x = input float32 [1,2]
    %h = linear float32 [1,4] x=%x weight=@v spec="bi,oi->bo"
    %p = pad float32 [1,4] x=%x pads=[0,1,0,1]
    %y = combine float32 [1,4] xs=[%p,%h] fn="add"
    return y=%y
    """)
    assert blocks(w, "y") == ["identity 2x[1,1]", "identity 4x[1,1]"]
    first = w.wires[-2]
    assert (first.dst - first.dst.min()).reshape(-1).tolist() == [0, 1]
    assert first.src.reshape(-1).tolist() == [0, 1]


def test_the_gates_of_swiglu_read_their_own_halves() -> None:
    w = wired("""
    @w = param float32 [4,2]
    %x = input float32 [1,2]
    %h = linear float32 [1,4] x=%x weight=@w spec="bi,oi->bo"
    %a = slice float32 [1,2] x=%h starts=[0,0] steps=[1,1]
    %b = slice float32 [1,2] x=%h starts=[0,2] steps=[1,1]
    %s = activation float32 [1,2] x=%a fn="sigmoid"
    %g = combine float32 [1,2] xs=[%a,%s] fn="mul"
    %y = combine float32 [1,2] xs=[%g,%b] fn="mul"
    return y=%y
    """)
    h = int(w.index["h"].ids.min())
    assert (w.index["a"].ids - h).tolist() == [[0, 1]]
    assert (w.index["b"].ids - h).tolist() == [[2, 3]]
    assert (w.wires[-1].src.reshape(-1) - h).tolist() == [2, 3]


def test_modulation_by_another_input() -> None:
    """FiLM: scale and shift of channels computed from a condition."""
    w = wired(
        MAP.replace("@k", "@w = param float32 [4,3]\n@k", 1)
        + """
    %z = input float32 [1,3]
    %f = linear float32 [1,4] x=%z weight=@w spec="bi,oi->bo"
    %a = slice float32 [1,2] x=%f starts=[0,0] steps=[1,1]
    %g = reshape float32 [1,2,1,1] x=%a
    %b = slice float32 [1,2] x=%f starts=[0,2] steps=[1,1]
    %s = reshape float32 [1,2,1,1] x=%b
    %m = combine float32 [1,2,2,3] xs=[%c,%g] fn="mul"
    %y = combine float32 [1,2,2,3] xs=[%m,%s] fn="add"
    return y=%y
    """
    )
    assert neurons(w, "y") == [[[[0]], [[1]]]]
    f = int(w.index["f"].ids.min())
    assert (w.wires[-1].src.reshape(-1) - f).tolist() == [2, 3]


ATTENTION = """
    @q = param float32 [4,2]
    @k = param float32 [{keys},2]
    @v = param float32 [{keys},2]
    @o = param float32 [2,4]
    %x = input float32 [1,3,2]
    %q = linear float32 [1,3,4] x=%x weight=@q spec="bti,oi->bto"
    %k = linear float32 [1,3,{keys}] x=%x weight=@k spec="bti,oi->bto"
    %v = linear float32 [1,3,{keys}] x=%x weight=@v spec="bti,oi->bto"
    %qh = reshape float32 [1,3,{heads},{d}] x=%q
    %kh = reshape float32 [1,3,{groups},{d}] x=%k
    %vh = reshape float32 [1,3,{groups},{d}] x=%v
    %qt = transpose float32 [1,{heads},3,{d}] x=%qh perm=[0,2,1,3]
    %kt = transpose float32 [1,{groups},3,{d}] x=%kh perm=[0,2,1,3]
    %vt = transpose float32 [1,{groups},3,{d}] x=%vh perm=[0,2,1,3]
    %ku = reshape float32 [1,{groups},1,3,{d}] x=%kt
    %vu = reshape float32 [1,{groups},1,3,{d}] x=%vt
    %ke = expand float32 [1,{groups},{times},3,{d}] x=%ku
    %ve = expand float32 [1,{groups},{times},3,{d}] x=%vu
    %kr = reshape float32 [1,{heads},3,{d}] x=%ke
    %vr = reshape float32 [1,{heads},3,{d}] x=%ve
    %s = contract float32 [1,{heads},3,3] a=%qt b=%kr spec="bhqd,bhkd->bhqk"
    %p = softmax float32 [1,{heads},3,3] x=%s fn="softmax" axis=3
    %c = contract float32 [1,{heads},3,{d}] a=%p b=%vr spec="bhqk,bhkd->bhqd"
    %ct = transpose float32 [1,3,{heads},{d}] x=%c perm=[0,2,1,3]
    %cf = reshape float32 [1,3,4] x=%ct
    %y = linear float32 [1,3,2] x=%cf weight=@o spec="bti,oi->bto"
    return y=%y
"""


def attention(heads: int, groups: int) -> Wiring:
    d = 4 // heads
    return wired(
        ATTENTION.format(heads=heads, groups=groups, times=heads // groups, d=d, keys=groups * d)
    )


def test_heads_can_be_told_apart() -> None:
    """Two and four heads give different graphs: one score neuron for each head."""
    two, four = attention(2, 2), attention(4, 4)
    assert blocks(two, "s") == ["product 2x[2,1]", "product 2x[2,1]"]
    assert blocks(four, "s") == ["product 4x[1,1]", "product 4x[1,1]"]
    assert blocks(two, "c") == ["product 4x[1,1]", "product 4x[1,1]"]


def test_query_and_key_neurons_are_paired() -> None:
    w = attention(2, 2)
    q, k = (int(w.index[name].ids.min()) for name in "qk")
    a, b = w.ties[0]
    assert list(zip((a - q).tolist(), (b - k).tolist())) == [(0, 0), (1, 1), (2, 2), (3, 3)]


def test_grouped_queries_share_keys() -> None:
    """Four query heads over two key heads: heads 0 and 1 read key 0, heads 2 and 3 key 1."""
    w = attention(4, 2)
    number = [op.out.name for op in w.program.ops].index("s")
    of_query, of_key = (b for b in w.wires if b.op == number)
    q, k = (int(w.index[name].ids.min()) for name in "qk")
    assert (of_query.src - q).reshape(-1).tolist() == [0, 1, 2, 3]
    assert (of_key.src - k).reshape(-1).tolist() == [0, 0, 1, 1]


def test_the_projection_out_reads_the_heads() -> None:
    """Not the queries."""
    w = attention(4, 2)
    assert sorted(w.wires[-1].src[0].tolist()) == sorted(w.index["c"].ids.reshape(-1).tolist())


def test_neurons_of_a_softmax_over_neurons_are_fixed() -> None:
    w = wired(HIDDEN + '%y = softmax float32 [1,4] x=%h fn="softmax" axis=1\nreturn y=%y')
    assert w.fixed[-1].tolist() == w.index["y"].ids.reshape(-1).tolist()


def test_rotary_halves() -> None:
    """Slice, Slice, Neg, Concat, Mul, Mul, Add with tables."""
    w = wired(
        TOKENS
        + """
    %cos = constant float32 [3,4] data=float32[3,4]{1,2,3,4,5,6,7,8,9,10,11,12}
    %a = slice float32 [1,3,2] x=%h starts=[0,0,0] steps=[1,1,1]
    %b = slice float32 [1,3,2] x=%h starts=[0,0,2] steps=[1,1,1]
    %n = activation float32 [1,3,2] x=%b fn="neg"
    %r = concat float32 [1,3,4] xs=[%n,%a] axis=2
    %p = combine float32 [1,3,4] xs=[%h,%cos] fn="mul"
    %q = combine float32 [1,3,4] xs=[%r,%cos] fn="mul"
    %y = combine float32 [1,3,4] xs=[%p,%q] fn="add"
    return y=%y
    """
    )
    h, n = (int(w.index[name].ids.min()) for name in "hn")
    assert w.index["r"].ids.reshape(-1).tolist() == [n, n + 1, h, h + 1]
