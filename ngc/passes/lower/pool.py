"""Pooling over windows, and over the whole space."""

from __future__ import annotations

from typing import Any

import onnx_ir

from ngc.ir import program as ir
from ngc.passes.lower.base import Builder, Operand, lowers
from ngc.passes.lower.windows import read_windows


def pool(b: Builder, node: onnx_ir.Node, x: Operand, fn: str, **fields: Any) -> Operand:
    """A Pool with the windows that the attributes describe."""
    if len(x.shape) < 3:
        raise b.misshapen(f"input {list(x.shape)} has no space to pool over")
    kernel = tuple(node.attributes.get_ints("kernel_shape", ()))
    windows = read_windows(b, node, x.shape[2:], kernel)
    sizes = windows.out_sizes(x.shape[2:], bool(node.attributes.get_int("ceil_mode", 0)))
    if any(n < 1 for n in sizes):
        raise b.misshapen(f"window {list(kernel)} is larger than the padded input {list(x.shape)}")
    x = b.value(x)
    return b.emit(
        ir.Pool,
        (*x.shape[:2], *sizes),
        x.dtype,
        x=x.name,
        fn=fn,
        kernel=kernel,
        strides=windows.strides,
        pads=windows.pads,
        dilations=windows.dilations,
        **fields,
    )


@lowers("MaxPool", since=1)
def max_pool(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    if len([v for v in node.outputs if v.name]) > 1:
        raise b.refuse("its second output, the places of the maxima")
    return pool(b, node, x, "max")


@lowers("AveragePool", since=1)
def average_pool(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    return pool(b, node, x, "mean", count_pads=bool(node.attributes.get_int("count_include_pad", 0)))


@lowers("LpPool", since=1)
def lp_pool(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    return pool(b, node, x, "lp", p=node.attributes.get_int("p", 2))


def _global(b: Builder, x: Operand, fn: str) -> Operand:
    if len(x.shape) < 3:
        raise b.misshapen(f"input {list(x.shape)} has no space to pool over")
    x = b.value(x)
    axes = tuple(range(2, len(x.shape)))
    shape = (*x.shape[:2], *(1 for _ in axes))
    return b.emit(ir.Reduce, shape, x.dtype, x=x.name, fn=fn, axes=axes, keepdims=True)


@lowers("GlobalAveragePool", since=1)
def global_average_pool(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    return _global(b, x, "mean")


@lowers("GlobalMaxPool", since=1)
def global_max_pool(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    return _global(b, x, "max")


@lowers("GlobalLpPool", since=1)
def global_lp_pool(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    p = node.attributes.get_int("p", 2)
    if p not in (1, 2):
        raise b.refuse(f"a norm of order {p}")
    return _global(b, x, f"l{p}")
