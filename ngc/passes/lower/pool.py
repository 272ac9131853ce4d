"""Pools over windows, and over the whole space."""

from __future__ import annotations

import onnx_ir

from ngc.ir import program as ir
from ngc.ir.program import Ints, Value
from ngc.passes.lower.base import Builder, Operand, lowers
from ngc.passes.lower.windows import counts, window


@lowers("MaxPool", since=1)
def max_pool(b: Builder, node: onnx_ir.Node, x: Operand) -> tuple[Operand | None, ...]:
    """The greatest entry of each window. Which entry that was (Indices) is not a neuron's value."""
    if len(node.outputs) > 1:
        indices = node.outputs[1]
        if indices.is_graph_output() or indices.uses():
            raise b.refuse("the output Indices is used")
    return pooled(b, node, x, "max"), *(None for _ in node.outputs[1:])


@lowers("AveragePool", since=1)
def average_pool(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """The mean of each window, over what lies inside the input or the padded input."""
    return pooled(b, node, x, "mean")


@lowers("LpPool", since=1)
def lp_pool(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """The norm of order p of each window."""
    return pooled(b, node, x, "lp")


def pooled(b: Builder, node: onnx_ir.Node, x: Operand, fn: str) -> Value:
    """The Pool that the attributes of a node ask for."""
    read = node.attributes
    if len(x.shape) < 3:
        raise b.misshapen(f"a pool over {list(x.shape)}, which has no space")
    space = x.shape[2:]
    field = window(b, node, space, tuple(read.get_ints("kernel_shape", space)))
    if (read.get_string("auto_pad", "NOTSET") or "").startswith("SAME"):
        shape = tuple(-(-size // stride) for size, stride in zip(space, field.strides))
        reach = [(n - 1) * s + k for n, s, k in zip(shape, field.strides, field.kernel)]
        dilated = any(d > 1 and k > 1 for d, k in zip(field.dilations, field.kernel))
        if dilated or any(n < size for n, size in zip(reach, space)):
            raise b.refuse(
                "auto_pad with dilations, or strides that leave entries out, means one thing to "
                "the standard and another to onnxruntime",
                hint="explicit pads",
            )
    else:
        shape = counts(b, field, space, ceil=bool(read.get_int("ceil_mode", 0)))
    value = b.value(x)
    return b.emit(
        ir.Pool,
        (*x.shape[:2], *shape),
        x.dtype,
        x=value.name,
        fn=fn,
        kernel=field.kernel,
        strides=field.strides,
        pads=field.pads,
        dilations=field.dilations,
        count_pads=fn == "mean" and bool(read.get_int("count_include_pad", 0)),
        p=_order(b, node) if fn == "lp" else 2,
    )


def _order(b: Builder, node: onnx_ir.Node) -> int:
    """The order of a norm, a floating-point number before opset 2."""
    order = node.attributes["p"].value if "p" in node.attributes else 2
    if order != int(order) or order < 1:
        raise b.refuse(f"the norm of order {order}; whole numbers from 1 on compile")
    return int(order)


@lowers("GlobalAveragePool", since=1)
def global_average_pool(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """The mean over the whole space."""
    return _over_space(b, x, "mean")


@lowers("GlobalMaxPool", since=1)
def global_max_pool(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """The greatest entry of the whole space."""
    return _over_space(b, x, "max")


@lowers("GlobalLpPool", since=1)
def global_lp_pool(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """The norm of order p of the whole space."""
    order = _order(b, node)
    if order in (1, 2):
        return _over_space(b, x, f"l{order}")
    space, rank = x.shape[2:], len(x.shape) - 2
    value, ones = b.value(x), (1,) * rank
    return b.emit(
        ir.Pool,
        (*x.shape[:2], *ones),
        x.dtype,
        x=value.name,
        fn="lp",
        kernel=space,
        strides=ones,
        pads=(0,) * (2 * rank),
        dilations=ones,
        p=order,
    )


def _over_space(b: Builder, x: Operand, fn: str) -> Value:
    axes: Ints = tuple(range(2, len(x.shape)))
    shape = (*x.shape[:2], *(1 for _ in axes))
    value = b.value(x)
    return b.emit(ir.Reduce, shape, x.dtype, x=value.name, fn=fn, axes=axes, keepdims=True)
