"""Networks with known symmetries."""

from __future__ import annotations

import numpy as np

from ngc.ir import program as ir
from ngc.ir.program import Program
from tests.symmetry.build import Net


def mlp() -> Program:
    n = Net()
    h = n.act(n.linear(n.input(2, 3), 5, "first"))
    return n.done(n.linear(n.act(n.linear(h, 4, "second")), 2))


def residual_mlp() -> Program:
    n = Net()
    h = n.linear(n.input(2, 3), 5, "stream")
    for k in range(2):
        h = n.combine("add", h, n.linear(n.act(n.linear(h, 6, f"up{k}")), 5))
    return n.done(n.linear(h, 2))


def tied_autoencoder() -> Program:
    n = Net()
    x, outer, inner = n.input(2, 7), n.param(4, 7), n.param(3, 4)
    h = n.act(n.linear(x, 4, "h", outer))
    z = n.act(n.linear(h, 3, "z", inner))
    h = n.act(n.linear(z, 4, weight=inner.transpose((1, 0))))
    return n.done(n.linear(h, 7, weight=outer.transpose((1, 0))))


def applied_twice() -> Program:
    n = Net()
    x, weight = n.input(2, 5), n.param(6, 6)
    h = n.linear(x, 6, "h")
    for _ in range(2):
        h = n.act(n.linear(h, 6, weight=weight))
    return n.done(n.linear(h, 2))


def rnn() -> Program:
    n = Net()
    x = n.input(1, 4, 3)
    enter, again = n.param(5, 3), n.param(5, 5)
    h = ""
    for t in range(4):
        a = n.linear(n.reshape(n.slice(x, 1, t, t + 1), 1, 3), 5, weight=enter, bias=False)
        h = n.act(n.combine("add", a, n.linear(h, 5, weight=again, bias=False)) if h else a)
    return n.done(n.linear(h, 2))


def gru() -> Program:
    """Minimal gated unit; its initial state is an input."""
    n = Net()
    x, h = n.input(1, 4, 3), n.linear(n.input(1, 2, name="start"), 5)
    names = ("gate", "candidate")
    enter, again = ({name: n.param(5, size) for name in names} for size in (3, 5))
    outputs = []
    for t in range(4):
        now = n.reshape(n.slice(x, 1, t, t + 1), 1, 3)

        def reads(name: str, state: str, now: str = now) -> str:
            given = n.linear(now, 5, weight=enter[name], bias=False)
            return n.combine("add", given, n.linear(state, 5, weight=again[name], bias=False))

        gate = n.act(reads("gate", h), "sigmoid")
        new = n.act(reads("candidate", n.combine("mul", gate, h)))
        h = n.combine("add", n.combine("mul", gate, h), new)
        outputs.append(h)
    return n.done(n.linear(n.combine("add", *outputs), 2))


def conv_net() -> Program:
    """Depthwise, pointwise, grouped, pool, flatten."""
    n = Net()
    h = n.act(n.conv(n.input(1, 3, 6, 6), 8, name="depthwise"))
    h = n.act(n.conv(h, 8, groups=8))
    h = n.act(n.conv(h, 12, 1, name="into_groups"))
    h = n.conv(n.act(n.conv(h, 12, groups=3, name="out_of_groups")), 5, 1, name="last")
    h = n.add(
        ir.Pool, (1, 5, 3, 3), x=h, fn="max", kernel=(2, 2), strides=(2, 2), pads=(0,) * 4,
        dilations=(1, 1),
    )  # fmt: skip
    return n.done(n.linear(n.reshape(h, 1, 45), 4))


def shuffle_net() -> Program:
    n = Net()
    h = n.act(n.conv(n.conv(n.input(1, 3, 4, 4), 12, 1), 12, 1, groups=2))
    h = n.transpose(n.reshape(h, 1, 2, 6, 4, 4), 0, 2, 1, 3, 4)
    h = n.act(n.conv(n.reshape(h, 1, 12, 4, 4), 12, 3, groups=12))
    return n.done(n.conv(n.act(n.conv(h, 12, 1, groups=2)), 2, 1))


def group_norm(merged: bool = False) -> Program:
    """With channels and positions on one axis, as exporters write it, or apart."""
    n = Net()
    h = n.conv(n.input(1, 3, 4, 4), 8, name="conv")
    if merged:
        h = n.normalise(n.reshape(h, 1, 2, 64), 2)
    else:
        h = n.normalise(n.reshape(h, 1, 2, 4, 4, 4), 2, 3, 4)
    h = n.shift(n.scale(n.reshape(h, 1, 8, 4, 4), 8, 1, 1), 8, 1, 1)
    return n.done(n.conv(n.act(h), 2))


def squeeze_excite() -> Program:
    n = Net()
    h = n.act(n.conv(n.input(1, 3, 4, 4), 8, name="conv"))
    s = n.add(ir.Reduce, (1, 8), x=h, fn="mean", axes=(2, 3), keepdims=False)
    s = n.act(n.linear(n.act(n.linear(s, 4, "squeeze")), 8), "sigmoid")
    return n.done(n.conv(n.combine("mul", h, n.reshape(s, 1, 8, 1, 1)), 2))


def dense_net() -> Program:
    n = Net()
    h = n.conv(n.input(1, 3, 4, 4), 4, name="stem")
    for k in range(3):
        h = n.concat(1, h, n.conv(n.act(h), 3, name=f"grow{k}"))
    return n.done(n.conv(h, 2))


def gated() -> Program:
    n = Net()
    h = n.linear(n.input(2, 3), 10, "both")
    h = n.combine("mul", n.slice(h, 1, 0, 5), n.act(n.slice(h, 1, 5, 10), "sigmoid"))
    return n.done(n.linear(h, 2))


def attention(
    heads: int = 4,
    key_heads: int = 4,
    width: int = 3,
    rotary: bool = False,
    shared_scale: bool = False,
    fused: bool = False,
) -> Program:
    """Multi-head attention with a residual; grouped queries where key_heads < heads."""
    n, t = Net(), 5
    stream = n.linear(n.input(1, t, 6), 8, "stream")
    h = n.scale(n.normalise(stream, 2), 8)
    rows = {"q": heads, "k": key_heads, "v": key_heads}
    if fused:
        both = n.linear(h, width * sum(rows.values()), "qkv")

    def project(name: str) -> str:
        count = rows[name]
        if fused:
            start = width * sum(rows[r] for r in "qkv"["qkv".index(name) :: -1][1:])
            x = n.slice(both, 2, start, start + width * count)
        else:
            x = n.linear(h, width * count, name)
        x = n.reshape(x, 1, t, count, width)
        if shared_scale and name != "v":
            x = n.scale(n.normalise(x, 3, fn="rms"), width)
        x = n.transpose(x, 0, 2, 1, 3)
        if rotary and name != "v":
            half = width // 2
            turned = n.concat(3, n.act(n.slice(x, 3, half, width), "neg"), n.slice(x, 3, 0, half))
            angle = np.arange(t)[:, None] * 0.3 ** np.tile(np.arange(half), 2)
            cos, sin = n.constant(np.cos(angle)), n.constant(np.sin(angle))
            x = n.combine("add", n.combine("mul", x, cos), n.combine("mul", turned, sin))
        if count < heads:
            x = n.reshape(x, 1, count, 1, t, width)
            x = n.add(ir.Expand, (1, count, heads // count, t, width), x=x)
            x = n.reshape(x, 1, heads, t, width)
        return x

    q, k, v = (project(name) for name in "qkv")
    scores = n.contract(q, k, "bhqd,bhkd->bhqk", "scores")
    scores = n.combine("add", scores, n.constant(np.triu(np.full((t, t), -50.0), 1)))
    weights = n.add(ir.Softmax, n.shape[scores], x=scores, fn="softmax", axis=3)
    mixed = n.transpose(n.contract(weights, v, "bhqk,bhkd->bhqd"), 0, 2, 1, 3)
    out = n.linear(n.reshape(mixed, 1, t, heads * width), 8)
    return n.done(n.linear(n.combine("add", stream, out), 2))


def mixer() -> Program:
    n = Net()
    h = n.linear(n.input(1, 4, 3), 6, "stream")
    tokens = n.transpose(n.normalise(h, 2), 0, 2, 1)
    tokens = n.linear(n.act(n.linear(tokens, 7)), 4)
    h = n.combine("add", h, n.transpose(tokens, 0, 2, 1))
    h = n.combine("add", h, n.linear(n.act(n.linear(h, 8, "up")), 6))
    return n.done(n.linear(h, 2))


def channel_shift() -> Program:
    """Half of the channels move up by one row, half down."""
    n = Net()
    h = n.conv(n.input(1, 3, 5, 5), 6, name="conv")
    up = n.pad(n.slice(n.slice(h, 1, 0, 3), 2, 1, 5), 2, 0, 1)
    down = n.pad(n.slice(n.slice(h, 1, 3, 6), 2, 0, 4), 2, 1, 0)
    return n.done(n.conv(n.concat(1, up, down), 2))


def patch_merging() -> Program:
    """Four neighbouring positions side by side on the axis of features, then a norm."""
    n = Net()
    h = n.linear(n.input(1, 4, 4, 3), 5, "patch")
    rows = [n.slice(h, 1, k, 4, 2) for k in range(2)]
    h = n.concat(3, *(n.slice(row, 2, k, 4, 2) for row in rows for k in range(2)))
    return n.done(n.linear(n.scale(n.normalise(h, 3), 20), 3))


def bias_by_position() -> Program:
    """A flatten with parameters of its own after it."""
    n = Net()
    h = n.reshape(n.conv(n.input(1, 3, 3, 3), 4, name="conv"), 1, 36)
    return n.done(n.linear(n.act(n.shift(h, 36)), 2))


def shared_by_heads() -> Program:
    """One Linear applied to each of three groups of neurons."""
    n = Net()
    h = n.reshape(n.linear(n.input(2, 3), 12, "rows"), 2, 3, 4)
    return n.done(n.linear(n.reshape(n.act(n.linear(h, 5, "shared")), 2, 15), 2))


def constant_factors() -> Program:
    n = Net()
    h = n.linear(n.input(2, 3), 6, "h")
    return n.done(n.linear(n.act(n.combine("mul", h, n.constant([1, 1, 2, 2, 3, 3]))), 2))


def input_by_channel() -> Program:
    """An input whose positions multiply the channels."""
    n = Net()
    x, factors = n.input(1, 3, 4, 4), n.input(1, 1, 6, name="factors")
    factors = n.reshape(n.linear(n.transpose(factors, 0, 2, 1), 1, bias=False), 1, 6, 1, 1)
    return n.done(n.conv(n.combine("mul", n.conv(x, 6), factors), 2))


def positions_as_channels() -> Program:
    """A depthwise convolution whose channels are positions of the neurons."""
    n = Net()
    h = n.transpose(n.conv(n.input(1, 3, 4, 4), 5, name="conv"), 0, 2, 1, 3)
    h = n.act(n.conv(h, 4, 1, groups=4))
    return n.done(n.linear(n.reshape(h, 1, 80), 2))


def product_with_positions() -> Program:
    """A sum over neurons times positions of other neurons."""
    n = Net()
    h = n.reshape(n.linear(n.input(1, 4, 3), 5, "h"), 1, 20)
    h = n.reshape(n.contract(n.linear(h, 20), h, "ab,ab->a"), 1, 1)
    return n.done(n.linear(h, 2))


# What ``describe`` says: (depth, size, copies, first value) of each family.
EXPECTED = {
    "mlp": (mlp, [(0, 5, 1, "first"), (0, 4, 1, "second")]),
    "residual": (residual_mlp, [(0, 5, 1, "stream"), (0, 6, 1, "up0"), (0, 6, 1, "up1")]),
    "tied": (tied_autoencoder, [(0, 4, 1, "h"), (0, 3, 1, "z")]),
    "twice": (applied_twice, [(0, 6, 1, "h")]),
    "conv": (
        conv_net,
        [
            (0, 8, 1, "depthwise"),
            (0, 3, 1, "into_groups"),
            (1, 4, 3, "into_groups"),
            (1, 4, 3, "out_of_groups"),
            (0, 5, 1, "last"),
        ],
    ),
    "squeeze_excite": (squeeze_excite, [(0, 8, 1, "conv"), (0, 4, 1, "squeeze")]),
    "dense_net": (
        dense_net,
        [(0, 4, 1, "stem"), (0, 3, 1, "grow0"), (0, 3, 1, "grow1"), (0, 3, 1, "grow2")],
    ),
    "gated": (gated, [(0, 5, 1, "both")]),
    "group_norm": (group_norm, [(0, 2, 1, "conv"), (1, 4, 2, "conv")]),
    "group_norm_merged": (lambda: group_norm(True), [(0, 2, 1, "conv"), (1, 4, 2, "conv")]),
    "attention": (
        attention,
        [(0, 8, 1, "stream"), (0, 4, 1, "q"), (1, 3, 4, "q"), (1, 3, 4, "v")],
    ),
    "fused_attention": (
        lambda: attention(fused=True),
        [(0, 8, 1, "stream"), (0, 4, 1, "qkv"), (1, 3, 4, "qkv"), (1, 3, 4, "qkv")],
    ),
    "grouped_query": (
        lambda: attention(6, 2),
        [(0, 8, 1, "stream"), (0, 2, 1, "q"), (1, 3, 2, "q"), (1, 3, 2, "q"), (1, 3, 2, "v")],
    ),
    "rotary": (
        lambda: attention(width=4, rotary=True),
        [(0, 8, 1, "stream"), (0, 4, 1, "q"), (1, 4, 4, "v")],
    ),
    "shared_scale": (
        lambda: attention(shared_scale=True),
        [(0, 8, 1, "stream"), (0, 4, 1, "q"), (1, 3, 4, "v"), (0, 3, 1, "q")],
    ),
    "mixer": (mixer, [(0, 6, 1, "stream"), (0, 8, 1, "up")]),
    "channel_shift": (channel_shift, [(0, 3, 1, "conv"), (0, 3, 1, "conv")]),
    "patch_merging": (patch_merging, [(0, 5, 1, "patch")]),
    "bias_by_position": (bias_by_position, [(0, 4, 1, "conv")]),
    "shared_by_heads": (
        shared_by_heads,
        [(0, 3, 1, "rows"), (0, 4, 1, "rows"), (0, 5, 1, "shared")],
    ),
    "constant_factors": (constant_factors, [(0, 2, 1, "h")] * 3),
    "input_by_channel": (input_by_channel, []),
    "product_with_positions": (product_with_positions, []),
    "positions_as_channels": (positions_as_channels, [(0, 5, 1, "conv")]),
}
