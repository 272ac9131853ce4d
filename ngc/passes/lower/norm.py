"""Normalisations: statistics over axes become a Normalise, learned scale and shift stay their own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir

from ngc.ir import program as ir
from ngc.ir.program import Value
from ngc.passes.lower.base import Builder, Known, Operand, lowers


def normalise(
    b: Builder, x: Operand, fn: str, axes: Sequence[int], epsilon: float = 0.0, a: tuple = ()
) -> Value:
    x = b.value(x)
    return b.emit(
        ir.Normalise, x.shape, x.dtype, x=x.name, fn=fn, axes=tuple(axes), epsilon=epsilon, a=a
    )


def scaled(b: Builder, y: Operand, scale: Operand | None, bias: Operand | None) -> Operand:
    """y * scale + bias; both broadcast to y."""
    for fn, operand in (("mul", scale), ("add", bias)):
        if operand is None:
            continue
        if b.broadcast(y, operand) != y.shape:
            raise b.misshapen(f"scale or bias {list(operand.shape)} for {list(y.shape)}")
        if not isinstance(operand, Known):
            y = b.combine(fn, y, operand)
        elif fn == "mul":
            y = b.scale(y, operand)
        else:
            y = b.shift(y, operand)
    return y


def per_channel(b: Builder, x: Operand, operand: Operand) -> Operand:
    """[c] as [c, 1, ...], to broadcast along axis 1."""
    if operand.shape != (x.shape[1],):
        raise b.misshapen(f"{list(operand.shape)} entries for {x.shape[1]} channels")
    return b.reshape(operand, (x.shape[1], *(1 for _ in x.shape[2:])))


@lowers("BatchNormalization", since=1)
def batch_normalization(
    b: Builder, node: onnx_ir.Node, x: Operand, scale: Operand, bias: Operand, mean: Operand, var: Operand
) -> Operand:
    """In inference, with running statistics."""
    if node.attributes.get_int("training_mode", 0):
        raise b.refuse("training_mode=1 normalises by the batch", "export the model in eval mode")
    if node.attributes.get_int("spatial", 1) == 0:
        raise b.refuse("spatial=0 (one statistic for each position)")
    if len(x.shape) < 2:
        raise b.misshapen(f"input {list(x.shape)} has no channels")
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    operands = {"scale": scale, "bias": bias, "mean": mean, "var": var}
    x = b.value(x)
    if all(isinstance(operand, Known) for operand in operands.values()):
        for operand in operands.values():
            per_channel(b, x, operand)
        slots = {name: b.slots(o) for name, o in operands.items() if isinstance(o, Known)}
        return b.emit(ir.BatchNorm, x.shape, x.dtype, x=x.name, epsilon=epsilon, **slots)
    # Statistics that depend on the input: (x - mean) / sqrt(var + epsilon) * scale + bias.
    mean, var = per_channel(b, x, mean), per_channel(b, x, var)
    deviation = b.activation(b.activation(b.value(var), "affine", 1.0, epsilon), "sqrt")
    y: Operand = b.combine("div", b.combine("sub", x, mean), deviation)
    return scaled(b, y, per_channel(b, x, scale), per_channel(b, x, bias))


@lowers("InstanceNormalization", since=1)
def instance_normalization(
    b: Builder, node: onnx_ir.Node, x: Operand, scale: Operand, bias: Operand
) -> Operand:
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    y = normalise(b, x, "standard", range(2, len(x.shape)), epsilon)
    return scaled(b, y, per_channel(b, x, scale), per_channel(b, x, bias))


@lowers("LayerNormalization", since=1)
def layer_normalization(
    b: Builder, node: onnx_ir.Node, x: Operand, scale: Operand, bias: Operand | None = None
) -> tuple[Operand, ...]:
    """Over the axes from ``axis`` on. The second and third result are mean and 1 / deviation."""
    axis = b.axis(node.attributes.get_int("axis", -1), len(x.shape))
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    axes = tuple(range(axis, len(x.shape)))
    y = scaled(b, normalise(b, x, "standard", axes, epsilon), scale, bias)
    if len([v for v in node.outputs if v.name]) == 1:
        return (y,)
    x = b.value(x)
    shape = [1 if a in axes else n for a, n in enumerate(x.shape)]

    def mean(value: Value) -> Value:
        return b.emit(
            ir.Reduce, shape, x.dtype, x=value.name, fn="mean", axes=axes, keepdims=True
        )

    centre = mean(x)
    off = b.combine("sub", x, centre)
    variance = mean(b.combine("mul", off, off))
    deviation = b.activation(b.activation(variance, "affine", 1.0, epsilon), "sqrt")
    return y, centre, b.activation(deviation, "reciprocal")


@lowers("RMSNormalization", since=23)
def rms_normalization(b: Builder, node: onnx_ir.Node, x: Operand, scale: Operand) -> Operand:
    axis = b.axis(node.attributes.get_int("axis", -1), len(x.shape))
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return scaled(b, normalise(b, x, "rms", range(axis, len(x.shape)), epsilon), scale, None)


def _group_norm(
    b: Builder, node: onnx_ir.Node, x: Operand, scale: Operand, bias: Operand, per_group: bool
) -> Operand:
    groups, channels = node.attributes.get_int("num_groups", 0), x.shape[1]
    if groups < 1 or channels % groups:
        raise b.misshapen(f"{channels} channels in {groups} groups")
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    if per_group:  # before opset 21: one scale and bias for each group
        width = channels // groups

        def spread(operand: Operand) -> Operand:
            if operand.shape != (groups,):
                raise b.misshapen(f"{list(operand.shape)} entries for {groups} groups")
            wide = b.expand(b.reshape(operand, (groups, 1)), (groups, width))
            return b.reshape(wide, (channels,))

        scale, bias = spread(scale), spread(bias)
    split = b.reshape(x, (x.shape[0], groups, channels // groups, *x.shape[2:]))
    y = normalise(b, split, "standard", range(2, len(split.shape)), epsilon)
    joined = b.reshape(y, x.shape)
    return scaled(b, joined, per_channel(b, x, scale), per_channel(b, x, bias))


@lowers("GroupNormalization", since=18)
def group_normalization_18(
    b: Builder, node: onnx_ir.Node, x: Operand, scale: Operand, bias: Operand
) -> Operand:
    return _group_norm(b, node, x, scale, bias, per_group=True)


@lowers("GroupNormalization", since=21)
def group_normalization(
    b: Builder, node: onnx_ir.Node, x: Operand, scale: Operand, bias: Operand
) -> Operand:
    return _group_norm(b, node, x, scale, bias, per_group=False)


@lowers("LpNormalization", since=1)
def lp_normalization(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    axis = b.axis(node.attributes.get_int("axis", -1), len(x.shape))
    p = node.attributes.get_int("p", 2)
    if p not in (1, 2):
        raise b.misshapen(f"p is {p}, not 1 or 2")
    return normalise(b, x, f"l{p}", (axis,))


@lowers("MeanVarianceNormalization", since=9)
def mean_variance_normalization(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """(x - mean) / (deviation + 1e-9)."""
    axes = tuple(b.axis(a, len(x.shape)) for a in node.attributes.get_ints("axes", (0, 2, 3)))
    # 1e-9 on the deviation: far below float32 beside any deviation that is not zero.
    return normalise(b, x, "standard", axes, 1e-18)


@lowers("LRN", since=1)
def lrn(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """Across channels, as AlexNet has it."""
    size = node.attributes.get_int("size", 0)
    if size < 1:
        raise b.misshapen(f"size is {size}")
    a = (
        node.attributes.get_float("alpha", 1e-4),
        node.attributes.get_float("beta", 0.75),
        node.attributes.get_float("bias", 1.0),
        float(size),
    )
    assert not math.isnan(sum(a))
    return normalise(b, x, "lrn", (1,), 0.0, a)
