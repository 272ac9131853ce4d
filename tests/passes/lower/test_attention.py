"""The Attention operator: its attributes are covered by the cases of ONNX (``test_node_cases.py``);
here, what they leave out, and attention of a real exporter."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ngc
from ngc.errors import ShapeError, UnsupportedOps
from tests.passes.lower.one_node import given, noise, one


class Block(nn.Module):
    """Grouped queries: four heads of queries, two of keys and values, causal; a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(8, 16), nn.Linear(8, 8)
        self.v, self.o = nn.Linear(8, 8), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        heads = [f(x).unflatten(-1, (-1, 4)).transpose(1, 2) for f in (self.q, self.k, self.v)]
        y = nn.functional.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True)
        return x + self.o(y.transpose(1, 2).flatten(-2))


def exported(opset: int) -> Any:
    torch.manual_seed(0)
    model, x = Block().eval(), torch.randn(2, 5, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model, (x,), dynamo=True, opset_version=opset, optimize=False, verbose=False
        )
    assert program is not None
    return program.model_proto


def test_the_operator_of_an_exporter_is_proven() -> None:
    proto = exported(23)
    assert "Attention" in {node.op_type for node in proto.graph.node}
    compiled = ngc.compile(proto)
    verification = ngc.verify(compiled)
    assert verification.passed, verification.checks
    written_out = ngc.compile(exported(20))
    assert torch.equal(compiled.weights, written_out.weights)
    kinds = [sorted(set(c.graph().edge_kind.tolist())) for c in (compiled, written_out)]
    assert kinds[0] == kinds[1]


def test_past_keys_come_first() -> None:
    past = [noise(1, 2, 3, 4, seed=k) for k in (5, 6)]
    operands = [given(1, 2, 2, 4), noise(1, 2, 2, 4), noise(1, 2, 2, 4, seed=2), None, *past]
    case = one("Attention", *operands, opset=23, outputs=3)
    assert [array.shape for array in case.run()] == [(1, 2, 2, 4), (1, 2, 5, 4), (1, 2, 5, 4)]


def test_a_query_without_keys_gives_zeros() -> None:
    mask = np.array([[True, False, True], [False, False, False]])
    operands = [given(1, 1, 2, 4), given(1, 1, 3, 4, seed=2), given(1, 1, 3, 4, seed=3), mask]
    (found,) = one("Attention", *operands, opset=23).run()
    assert np.isfinite(found).all()
    assert not found[0, 0, 1].any()


def test_what_is_not_read_is_refused() -> None:
    x = given(1, 2, 3, 4)
    with pytest.raises(ShapeError, match="3 heads of queries for 2 of keys"):
        one("Attention", given(1, 3, 3, 4), x, x, opset=23)
    y = given(1, 3, 6)
    with pytest.raises(ShapeError, match="6 features for 4 heads"):
        one("Attention", y, y, y, opset=23, q_num_heads=4, kv_num_heads=4)
    lengths = np.array([2], np.int64)
    with pytest.raises(UnsupportedOps, match="nonpad_kv_seqlen"):
        one("Attention", x, x, x, None, None, None, lengths, opset=24)
