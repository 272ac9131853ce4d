"""A handful of small programs, with which plans and graphs are tested."""

# ruff: noqa: E501  (program text)
from __future__ import annotations

import torch

from ngc.compiler import make_plan
from ngc.ir.check import check
from ngc.ir.program import Program
from ngc.ir.slots import FIRST_SLOT
from ngc.options import CHOICES, Options
from ngc.plan import Plan
from tests.passes.program.golden import program_of

MLP = """
    @w = param float32 [3,2]
    @b = param float32 [3]
    @v = param float32 [1,3]
    %x = input float32 [1,2]
    %h = linear float32 [1,3] x=%x weight=@w spec="bi,oi->bo"
    %s = shift float32 [1,3] x=%h term=@b
    %r = activation float32 [1,3] x=%s fn="sin"
    %y = linear float32 [1,1] x=%r weight=@v spec="bi,oi->bo"
    return y=%y
"""
# Convolutions of two sizes, BatchNorm, a residual, pooling, a flatten of channels last.
CNN = """
    @a = param float32 [2,1,3,3]
    @g = param float32 [2]
    @h = param float32 [2]
    @m = param float32 [2]
    @s = param float32 [2]
    @k = param float32 [2,2,1,1]
    @w = param float32 [3,8]
    @b = param float32 [3]
    %x = input float32 [1,1,4,4]
    %c = convolution float32 [1,2,4,4] x=%x weight=@a strides=[1,1] pads=[1,1,1,1] dilations=[1,1] groups=1
    %n = batch_norm float32 [1,2,4,4] x=%c scale=@g bias=@h mean=@m var=@s epsilon=1e-05
    %r = activation float32 [1,2,4,4] x=%n fn="relu"
    %d = convolution float32 [1,2,4,4] x=%r weight=@k strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1
    %u = combine float32 [1,2,4,4] xs=[%r,%d] fn="add"
    %p = pool float32 [1,2,2,2] x=%u fn="max" kernel=[2,2] strides=[2,2] pads=[0,0,0,0] dilations=[1,1]
    %t = transpose float32 [1,2,2,2] x=%p perm=[0,2,3,1]
    %f = reshape float32 [1,8] x=%t
    %z = linear float32 [1,3] x=%f weight=@w spec="bi,oi->bo"
    %y = shift float32 [1,3] x=%z term=@b
    return y=%y
"""
# One slot on several edges: the decoder is the encoder transposed.
TIED = """
    @w = param float32 [2,3]
    @s = param float32 [3]
    %x = input float32 [1,3]
    %h = linear float32 [1,2] x=%x weight=@w spec="bi,oi->bo"
    %d = linear float32 [1,3] x=%h weight=@w spec="bo,oi->bi"
    %y = prelu float32 [1,3] x=%d slope=@s
    return y=%y
"""
# A table of tokens, one of positions, mixing of positions, normalisation.
TOKENS = """
    @e = param float32 [3,2]
    @p = param float32 [4,2]
    @m = param float32 [5,4]
    @g = param float32 [2]
    @b = param float32 [2]
    %i = input int64 [1,4]
    %e = embedding float32 [1,4,2] ids=%i weight=@e
    %h = shift float32 [1,4,2] x=%e term=@p
    %n = normalise float32 [1,4,2] x=%h fn="standard" axes=[2] epsilon=1e-05
    %s = scale float32 [1,4,2] x=%n factor=@g
    %l = shift float32 [1,4,2] x=%s term=@b
    %y = linear float32 [1,5,2] x=%l weight=@m spec="bti,st->bsi"
    return y=%y
"""
PROGRAMS = {"mlp": MLP, "cnn": CNN, "tied": TIED, "tokens": TOKENS}

# Every value of every option, and combinations of those that meet in a plan.
OPTIONS = [
    Options(**{name: value})
    for name, values in CHOICES.items()
    for value in values
    if name != "norm"  # changes the program, not the graph
] + [
    Options(flatten=flatten, storage=storage, reverse=reverse, linear_as=linear_as)
    for flatten in ("repeat", "virtual", "kernel")
    for storage, reverse in (("ragged", "append"), ("padded", "append"), ("padded", "features"))
    for linear_as in ("conv1x1", "separate")
]


def label(options: Options) -> str:
    """The options that are not at their default."""
    default = Options().to_dict()
    changed = (f"{k}={v}" for k, v in options.to_dict().items() if v != default[k])
    return ",".join(changed) or "default"


def make(body: str, options: Options | None = None) -> Plan:
    program = program_of(body)
    check(program)
    return make_plan(program, options or Options())


def random_weights(program: Program, *many: int, seed: int = 0) -> torch.Tensor:
    """Weights [*many, slots]."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(*many, program.num_slots, generator=generator)
    weights[..., :FIRST_SLOT] = torch.tensor([0.0, 1.0])
    return weights
