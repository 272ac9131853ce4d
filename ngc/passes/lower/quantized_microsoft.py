"""Quantised operators of com.microsoft: onnxruntime's quantiser writes them next to ONNX's own.

Each is dequantise, the operator of ONNX that it is named after, quantise (``quantized.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir

from ngc.ir.program import Value
from ngc.passes.lower.base import Builder, Operand, Rule, find_rule, lowers
from ngc.passes.lower.linear import gemm
from ngc.passes.lower.quantized import dequantised, dequantised_bias, named, requantised

# Operator: what it computes in between, and how many operands (x, scale, zero point) it has.
WRAPPED = {
    "QLinearAdd": ("Add", 2),
    "QLinearMul": ("Mul", 2),
    "QLinearSigmoid": ("Sigmoid", 1),
    "QLinearLeakyRelu": ("LeakyRelu", 1),
    "QLinearSoftmax": ("Softmax", 1),
    "QLinearAveragePool": ("AveragePool", 1),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", 1),
}


def _dequantised(b: Builder, parts: Sequence[Any]) -> list[Operand]:
    """Operands that come as x, scale, zero point, one after another."""
    triples = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return [dequantised(b, x, scale, zero, -1) for x, scale, zero in triples]


def _wrapped(inner: str, count: int) -> Rule:
    def rule(b: Builder, node: onnx_ir.Node, *operands: Any) -> Operand:
        if node.attributes.get_int("channels_last", 0):
            raise b.refuse("channels_last is not supported")
        parts = (*operands, *(None for _ in range(3 * count + 2 - len(operands))))
        xs = _dequantised(b, parts[: 3 * count])
        opset = node.attributes.get_int("opset", b.opsets.get("", 1))  # of QLinearSoftmax
        entry = find_rule("", inner, opset)
        if entry is None:
            raise b.refuse(f"{inner} (opset {opset}) is not supported")
        y = entry.rule(b, node, *xs)
        assert isinstance(y, Value)
        return requantised(b, y, parts[3 * count], parts[3 * count + 1], -1)

    return rule


for _op_type, (_inner, _count) in WRAPPED.items():
    lowers(_op_type, domain="com.microsoft")(_wrapped(_inner, _count))


@lowers("QLinearConcat", domain="com.microsoft")
def qlinear_concat(
    b: Builder, node: onnx_ir.Node, y_scale: Operand, y_zero: Operand, *operands: Operand
) -> Operand:
    """Operands (x, scale, zero point) one after another along an axis."""
    xs = _dequantised(b, operands)
    return requantised(b, b.concat(xs, node.attributes.get_int("axis")), y_scale, y_zero, -1)


@lowers("QGemm", domain="com.microsoft")
def qgemm(
    b: Builder,
    node: onnx_ir.Node,
    x: Operand,
    x_scale: Operand,
    x_zero: Operand | None,
    w: Operand,
    w_scale: Operand,
    w_zero: Operand | None,
    bias: Operand | None = None,
    y_scale: Operand | None = None,
    y_zero: Operand | None = None,
) -> Operand:
    """Gemm of the dequantised operands; without a scale of its own the result stays as it is."""
    column = 0 if node.attributes.get_int("transB", 0) else 1
    alpha = node.attributes.get_float("alpha", 1.0)
    operands = [dequantised(b, x, x_scale, x_zero, 0), dequantised(b, w, w_scale, w_zero, column)]
    if bias is not None:
        codes = named(bias, node, 6)
        operands.append(dequantised_bias(b, codes, x_scale, w_scale, alpha))
    y = gemm(b, node, *operands)
    return y if y_scale is None else requantised(b, y, y_scale, y_zero, 1)
