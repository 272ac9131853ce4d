"""Groups of networks that come from ONNX."""

from __future__ import annotations

from math import lgamma, log
from pathlib import Path

import numpy as np
import onnx
import pytest

import ngc
from ngc.symmetry import apply, symmetries

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def log10_factorials(*sizes: int) -> float:
    return sum(lgamma(n + 1) for n in sizes) / log(10)


def test_onnx_text() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[2, 3] x) => (float[2, 2] y)
        <float[3, 6] a = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17},
         float[6, 2] b = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}>
        { h = MatMul (x, a)  r = Relu (h)  y = MatMul (r, b) }
    """)
    compilation = ngc.compile(model)
    group = symmetries(compilation.wiring)
    assert group.log10_order == pytest.approx(log10_factorials(6))
    weights = apply(compilation.wiring, compilation.weights, group.random_element(0))
    (a, b) = (weights[p.offset : p.offset + p.size] for p in compilation.program.params)
    hidden = a.reshape(3, 6)[0].numpy().astype(int)
    assert sorted(hidden) == list(range(6))
    assert (b.reshape(6, 2)[:, 0].numpy() == 2 * hidden).all()


def test_squeezenet_has_one_family_for_each_layer() -> None:
    wiring = ngc.compile(LIGHT / "light_squeezenet.onnx").wiring
    fires = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    sizes = [64, *(n for squeeze, expand in fires for n in (squeeze, expand, expand))]
    group = symmetries(wiring)
    assert group.log10_order == pytest.approx(log10_factorials(*sizes))
    element = group.random_element(0)
    assert group.contains(element)
    assert (np.sort(element) == np.arange(wiring.num_neurons)).all()
