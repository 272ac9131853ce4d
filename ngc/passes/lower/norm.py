"""Normalisations: statistics of the activation (Normalise) or known ones (BatchNorm), then the
learned scale and shift as operations of their own."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir

from ngc.ir import program as ir
from ngc.ir.program import Ints, Value
from ngc.passes.lower.base import Builder, Known, Operand, is_float, lowers


@lowers("BatchNormalization", since=1)
def batch_normalization_1(
    b: Builder, node: onnx_ir.Node, x: Operand, *operands: Operand
) -> tuple[Operand | None, ...]:
    """The number of outputs says whether it trains; ``spatial`` 0 has statistics per place."""
    if any(output.name for output in node.outputs[1:]):
        raise b.refuse("it has the outputs of training", hint="export in evaluation mode")
    return _batch_norm(b, node, x, operands)


@lowers("BatchNormalization", since=14)
def batch_normalization(
    b: Builder, node: onnx_ir.Node, x: Operand, *operands: Operand
) -> tuple[Operand | None, ...]:
    """(x - mean) / sqrt(var + epsilon) * scale + bias; ``training_mode`` has to be off."""
    if node.attributes.get_int("training_mode", 0):
        raise b.refuse("it normalises by the batch: training_mode is set", hint="evaluation mode")
    return _batch_norm(b, node, x, operands)


def _batch_norm(
    b: Builder, node: onnx_ir.Node, x: Operand, operands: Sequence[Operand]
) -> tuple[Operand | None, ...]:
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    if len(operands) != 4 or not x.shape:
        raise b.misshapen("it takes x, scale, bias, mean and var")
    if len(x.shape) == 1:  # one channel
        shape = x.shape
        y, *rest = _batch_norm(b, node, b.reshape(x, (*shape, 1)), operands)
        assert y is not None
        return b.reshape(y, shape), *rest
    channels = (x.shape[1],)
    if any(part.shape != channels for part in operands):
        if not node.attributes.get_int("spatial", 1):
            raise b.refuse("statistics per place (spatial is 0); per channel compile")
        found = [list(part.shape) for part in operands]
        raise b.misshapen(f"scale, bias, mean and var {found} for {channels[0]} channels")
    known = [part for part in operands if isinstance(part, Known)]
    if len(known) == 4:
        names = ("scale", "bias", "mean", "var")
        slots = {name: b.slots(part) for name, part in zip(names, known)}
        value = b.value(x)
        y = b.emit(ir.BatchNorm, x.shape, x.dtype, x=value.name, epsilon=epsilon, **slots)
    else:
        scale, bias, mean, var = (_along_axis_1(b, part, x) for part in operands)
        root = b.activation(b.activation(var, "affine", 1.0, epsilon), "sqrt")
        y = b.combine("div", b.combine("sub", x, mean), root)
        y = b.combine("add", b.combine("mul", y, scale), bias)
    return y, *(None for _ in node.outputs[1:])


def _along_axis_1(b: Builder, part: Operand, x: Operand) -> Operand:
    """[c] shaped to broadcast along axis 1 of x."""
    return b.reshape(part, (1, -1, *(1 for _ in x.shape[2:])))


def scaled(b: Builder, x: Operand, factor: Operand) -> Value:
    """x times a parameter or an activation that broadcasts to it."""
    _fits(b, x, factor)
    if isinstance(factor, Known) and is_float(factor.dtype):
        return b.scale(x, factor)
    return b.combine("mul", x, factor)


def shifted(b: Builder, x: Operand, term: Operand) -> Value:
    """x plus a parameter or an activation that broadcasts to it."""
    _fits(b, x, term)
    if isinstance(term, Known) and is_float(term.dtype):
        return b.shift(x, term)
    return b.combine("add", x, term)


def _fits(b: Builder, x: Operand, part: Operand) -> None:
    if b.broadcast(x, part) != x.shape:
        raise b.misshapen(f"{list(part.shape)} does not broadcast to {list(x.shape)}")


def normalised(b: Builder, x: Operand, fn: str, axes: Ints, epsilon: float) -> Value:
    value = b.value(x)
    fields = {"x": value.name, "fn": fn, "axes": axes, "epsilon": float(epsilon)}
    return b.emit(ir.Normalise, value.shape, value.dtype, **fields)


@lowers("InstanceNormalization", since=1)
def instance_normalization(
    b: Builder, node: onnx_ir.Node, x: Operand, scale: Operand, bias: Operand
) -> Operand:
    """Over the space of each channel."""
    if len(x.shape) < 3 or not scale.shape == bias.shape == (x.shape[1],):
        raise b.misshapen(f"x {list(x.shape)}, scale {list(scale.shape)}, B {list(bias.shape)}")
    space = tuple(range(2, len(x.shape)))
    y = normalised(b, x, "standard", space, node.attributes.get_float("epsilon", 1e-5))
    return shifted(b, scaled(b, y, _along_axis_1(b, scale, x)), _along_axis_1(b, bias, x))


@lowers("LayerNormalization", since=1)  # in models of onnxruntime also before opset 17
def layer_normalization(
    b: Builder,
    node: onnx_ir.Node,
    x: Operand,
    scale: Operand,
    bias: Operand | None = None,
) -> tuple[Operand | None, ...]:
    """Over the axes from ``axis`` on. Mean and InvStdDev have the type that ``stash_type`` says;
    the arithmetic stays in the type of x."""
    axes = _from_axis(b, node, x)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    y = scaled(b, normalised(b, x, "standard", axes, epsilon), scale)
    if bias is not None:
        y = shifted(b, y, bias)
    if not any(output.name for output in node.outputs[1:]):
        return (y, *(None for _ in node.outputs[1:]))
    stash = onnx_ir.DataType(node.attributes.get_int("stash_type", 1)).numpy()
    mean = _mean(b, x, axes)
    centred = b.combine("sub", x, mean)
    variance = _mean(b, b.activation(centred, "power", 2.0), axes)
    inverse = b.activation(b.activation(variance, "affine", 1.0, epsilon), "power", -0.5)
    return y, b.cast(mean, stash.name), b.cast(inverse, stash.name)


def _mean(b: Builder, x: Operand, axes: Ints) -> Value:
    value = b.value(x)
    shape = [1 if k in axes else n for k, n in enumerate(x.shape)]
    return b.emit(ir.Reduce, shape, x.dtype, x=value.name, fn="mean", axes=axes, keepdims=True)


def _from_axis(b: Builder, node: onnx_ir.Node, x: Operand) -> Ints:
    rank = len(x.shape)
    return tuple(range(b.axis(node.attributes.get_int("axis", -1), rank), rank))


@lowers("RMSNormalization", since=23)
@lowers("SimplifiedLayerNormalization")  # onnxruntime's name for it, in the standard domain
def rms_normalization(b: Builder, node: onnx_ir.Node, x: Operand, scale: Operand) -> Operand:
    """x / sqrt(mean(x^2) + epsilon) * scale over the axes from ``axis`` on."""
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return scaled(b, normalised(b, x, "rms", _from_axis(b, node, x), epsilon), scale)


@lowers("GroupNormalization", since=18)
def group_normalization_18(
    b: Builder, node: onnx_ir.Node, x: Operand, scale: Operand, bias: Operand
) -> Operand:
    """Over the space and channels of each group; scale and bias per group."""
    y = _by_group(b, node, x)
    if not scale.shape == bias.shape == (y.shape[1],):
        raise b.misshapen(f"scale {list(scale.shape)}, bias {list(bias.shape)}, one a group")
    y = shifted(b, scaled(b, y, _along_axis_1(b, scale, y)), _along_axis_1(b, bias, y))
    return b.reshape(y, x.shape)


@lowers("GroupNormalization", since=21)
def group_normalization(
    b: Builder, node: onnx_ir.Node, x: Operand, scale: Operand, bias: Operand
) -> Operand:
    """Over the space and channels of each group; scale and bias per channel."""
    y = b.reshape(_by_group(b, node, x), x.shape)
    if not scale.shape == bias.shape == (x.shape[1],):
        raise b.misshapen(f"scale {list(scale.shape)}, bias {list(bias.shape)}, one a channel")
    return shifted(b, scaled(b, y, _along_axis_1(b, scale, x)), _along_axis_1(b, bias, x))


def _by_group(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """x normalised as [n, groups, channels / groups, *space]."""
    groups = node.attributes.get_int("num_groups", 0)
    if len(x.shape) < 2 or groups < 1 or x.shape[1] % groups:
        raise b.misshapen(f"{groups} groups of the channels of {list(x.shape)}")
    grouped = b.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    axes = tuple(range(2, len(grouped.shape)))
    return normalised(b, grouped, "standard", axes, node.attributes.get_float("epsilon", 1e-5))


@lowers("LpNormalization", since=1)
def lp_normalization(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """x / norm along one axis; 0 where the norm is 0."""
    order = node.attributes.get_int("p", 2)
    if order not in (1, 2):
        raise b.refuse(f"the norm of order {order}; 1 and 2 compile")
    axis = b.axis(node.attributes.get_int("axis", -1), len(x.shape))
    return normalised(b, x, f"l{order}", (axis,), 0.0)


@lowers("MeanVarianceNormalization", since=9)
def mean_variance_normalization(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """(x - mean) / (standard deviation + 1e-9), as the operator's function body says; here the
    square of that number is added to the variance, which matters to constant x alone."""
    rank = len(x.shape)
    axes = sorted({b.axis(axis, rank) for axis in node.attributes.get_ints("axes", (0, 2, 3))})
    return normalised(b, x, "standard", tuple(axes), 1e-18)


@lowers("LRN", since=1)
def lrn(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """x / (bias + alpha / size * sum of squares over ``size`` neighbouring channels) ^ beta."""
    size = node.attributes.get_int("size", 0)
    if size < 1 or len(x.shape) < 2:
        raise b.misshapen(f"size {size} over the channels of {list(x.shape)}")
    read = node.attributes
    a = (
        read.get_float("alpha", 1e-4),
        read.get_float("beta", 0.75),
        read.get_float("bias", 1.0),
        float(size),
    )
    value = b.value(x)
    return b.emit(ir.Normalise, x.shape, x.dtype, x=value.name, fn="lrn", axes=(1,), a=a)
