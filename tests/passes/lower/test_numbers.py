"""Which initializers of one number are constants of the code, by exporter."""

from __future__ import annotations

import pytest
from onnx.parser import parse_model

from ngc.frontends.onnx import load
from ngc.passes.lower.driver import lower

MODEL = """
<ir_version: 8, opset_import: ["" : 15], producer_name: "{producer}">
g (float[1,3] x) => (float[1,3] y)
<float half = {{0.5}}, float scaleReadVariableOp = {{2.0}}>
{{
    h = Mul(x, half)
    y = Mul(h, scaleReadVariableOp)
}}
"""


@pytest.mark.parametrize(("producer", "learned"), [("tf2onnx", 1), ("somebody", 2)])
def test_scalars_of_tf2onnx_are_learned_only_if_they_are_variables(
    producer: str, learned: int
) -> None:
    text = MODEL.format(producer=producer)
    source = load(parse_model(text))
    program = lower(source.model, {"x": (1, 3)}).program
    assert len(program.params) == learned
    assert program.params[-1].name == "scaleReadVariableOp"
