"""onnx_ir -> onnx_ir: what is done to a model before it is lowered."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir

from ngc.ir.source import Source
from ngc.options import Options
from ngc.passes.normalize.fold_batch_norm import fold_batch_norm
from ngc.passes.normalize.inline_functions import inline_functions

NORMALISE_PIPELINE: tuple[str, ...] = ("inline-functions", "fold-batch-norm")


def normalise(source: Source, options: Options, after: str = "") -> Source:
    """The source with functions inlined, and with BatchNorm folded if the options say so; up to
    and with the pass called ``after``, if any.

    A model that needs neither comes back as the same object.
    """
    model = inline_functions(source.model)
    if model is not source.model:
        source = replace(source, model=model, proto=onnx_ir.to_proto(model))
    if options.norm != "fold" or after == "inline-functions":
        return source
    folded = fold_batch_norm(model)
    if folded.model is model:
        return source
    proto = onnx_ir.to_proto(folded.model)
    return replace(
        source, model=folded.model, proto=proto, folded=folded.sources, original=source.proto
    )
