"""Lowering: ONNX operators become operations of the neural program, one family of rules a file."""

from ngc.passes.lower import (
    control,
    conv,
    elementwise,
    indexing,
    linear,
    norm,
    pad,
    pool,
    quantized,
    quantized_microsoft,
    recurrent,
    reduce,
    resize,
    shape,
    sources,
    unary,
)

__all__ = [
    "control",
    "conv",
    "elementwise",
    "indexing",
    "linear",
    "norm",
    "pad",
    "pool",
    "quantized",
    "quantized_microsoft",
    "recurrent",
    "reduce",
    "resize",
    "shape",
    "sources",
    "unary",
]
