"""Lowering: ONNX operators become operations of the neural program, one family of rules a file."""

from ngc.passes.lower import (
    elementwise,
    indexing,
    linear,
    pad,
    shape,
    sources,
    unary,
)

__all__ = ["elementwise", "indexing", "linear", "pad", "shape", "sources", "unary"]
