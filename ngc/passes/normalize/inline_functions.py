"""Calls of model-local functions -> the nodes of the functions."""

from __future__ import annotations

import onnx_ir
from onnx_ir.passes import PreconditionError
from onnx_ir.passes.common import InlinePass

from ngc.errors import ModelError


def inline_functions(model: onnx_ir.Model) -> onnx_ir.Model:
    """The model without functions; the same object where it has none."""
    if not model.functions:
        return model
    try:
        return InlinePass()(model.clone()).model
    except (ValueError, KeyError, PreconditionError) as error:
        raise ModelError(f"its functions cannot be inlined ({error})") from error
