"""Lowering: ONNX operators become operations of the neural program, one family of rules a file."""

from ngc.passes.lower import (
    control,
    elementwise,
    indexing,
    linear,
    pad,
    quantized,
    shape,
    sources,
    unary,
)

__all__ = [
    "control",
    "elementwise",
    "indexing",
    "linear",
    "pad",
    "quantized",
    "shape",
    "sources",
    "unary",
]
