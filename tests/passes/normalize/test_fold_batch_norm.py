"""Folded networks compute what they did, with changed weights under the old names."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx import helper, numpy_helper, parser

from ngc.backends.torch_exec import pack, run
from ngc.frontends.onnx import load
from ngc.oracle import Oracle
from ngc.passes.lower.driver import lower
from ngc.passes.normalize.fold_batch_norm import Folded, fold_batch_norm

RANDOM = np.random.default_rng(0)
NORM = {
    "s": RANDOM.standard_normal(4).astype(np.float32),
    "o": RANDOM.standard_normal(4).astype(np.float32),
    "m": RANDOM.standard_normal(4).astype(np.float32),
    "v": (0.5 + RANDOM.random(4)).astype(np.float32),
}
STATISTICS = tuple(NORM)


def tensor(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def model(body: str, shape: str, weights: dict[str, np.ndarray], ir: int = 8) -> onnx.ModelProto:
    graph = parser.parse_graph(f"g (float[{shape}] x) => (float y) {{ {body} }}")
    graph.output[0].type.tensor_type.ClearField("shape")
    graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in {**NORM, **weights}.items())
    if ir == 3:
        for name, array in {**NORM, **weights}.items():
            graph.input.append(helper.make_tensor_value_info(name, 1, array.shape))
    opset = helper.make_opsetid("", 9 if ir == 3 else 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=ir)


def fold(proto: onnx.ModelProto) -> tuple[list[str], Folded]:
    """Operators after folding; checks that the network computes the same."""
    source = load(proto)
    before = source.proto.SerializeToString()
    folded = fold_batch_norm(source.model)
    assert source.proto.SerializeToString() == before, "the source must not change"
    after = onnx_ir.to_proto(folded.model)
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    x = {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)}
    with Oracle(source.proto) as oracle:
        expected = oracle.run(x)["y"]
        oracle.load(after)
        np.testing.assert_allclose(oracle.run(x)["y"], expected, rtol=1e-4, atol=1e-5)
    return [node.op_type for node in after.graph.node], folded


def names(folded: Folded) -> list[str]:
    return sorted(folded.model.graph.initializers)


BN = "y = BatchNormalization(z, s, o, m, v)"


@pytest.mark.parametrize("ir", [3, 8])
def test_a_convolution_takes_the_norm_in_and_gets_a_bias(ir: int) -> None:
    ops, folded = fold(model(f"z = Conv(x, w) {BN}", "2,3,5,5", {"w": tensor(4, 3, 2, 2)}, ir))
    assert ops == ["Conv"]
    assert names(folded) == ["w", "w.bias"]
    assert folded.sources == {"w": ("w", *STATISTICS), "w.bias": STATISTICS}


CASES = {
    "a bias": ("z = Conv(x, w, b)", "2,3,5,5", {"w": tensor(4, 3, 2, 2), "b": tensor(4)}),
    "groups": ("z = Conv<group = 2>(x, w)", "2,4,5", {"w": tensor(4, 2, 3)}),
    "transposed": ("z = ConvTranspose(x, w)", "2,3,5", {"w": tensor(3, 4, 2)}),
    "transposed groups": (
        "z = ConvTranspose<group = 2>(x, w)", "2,6,5", {"w": tensor(6, 2, 2)},
    ),
    "gemm": ("z = Gemm(x, w, b)", "2,3", {"w": tensor(3, 4), "b": tensor(4)}),
    "gemm with all its attributes": (
        "z = Gemm<transB = 1, alpha = 0.5, beta = 2.0>(x, w, b)", "2,3",
        {"w": tensor(4, 3), "b": tensor(1, 4)},
    ),
    "gemm with one bias for all": (
        "z = Gemm(x, w, b)", "2,3", {"w": tensor(3, 4), "b": tensor(1)},
    ),
    "matmul and add": (
        "p = MatMul(x, w) z = Add(b, p)", "2,3", {"w": tensor(3, 4), "b": tensor(4)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_other_weights_take_the_norm_in(case: str) -> None:
    body, shape, weights = CASES[case]
    ops, _ = fold(model(f"{body} {BN}", shape, weights))
    assert "BatchNormalization" not in ops
    assert "Mul" not in ops


def test_two_norms_in_a_row_both_fold() -> None:
    body = (
        "z = Conv(x, w) u = BatchNormalization(z, s, o, m, v) y = BatchNormalization(u, s, o, m, v)"
    )
    ops, folded = fold(model(body, "1,3,4", {"w": tensor(4, 3, 2)}))
    assert ops == ["Conv"]
    assert names(folded) == ["w", "w.bias"]
    assert folded.sources["w"] == ("w", *STATISTICS)


def test_weights_filled_by_a_node_fold_too() -> None:
    body = f"w = ConstantOfShape<value = float[1] {{0.5}}>(n) z = Conv(x, w) {BN}"
    ops, folded = fold(model(body, "1,3,4", {"n": np.array([4, 3, 2])}))
    assert ops == ["Conv"]
    assert names(folded) == ["w", "w.bias"]


def test_a_shared_weight_is_folded_into_a_copy() -> None:
    body = "p = Conv(x, w) z = Conv(p, w) u = BatchNormalization(z, s, o, m, v) y = Add(u, p)"
    _, folded = fold(model(body, "1,4,5", {"w": tensor(4, 4, 1)}))
    assert names(folded) == ["w", "w.1", "w.1.bias"]


@pytest.mark.parametrize("body", [
    f"z = Relu(x) {BN}",
    "z = Conv(x, w) u = BatchNormalization(z, s, o, m, v) y = Add(u, z)",
    "p = MatMul(x, w4) z = Add(p, b) u = BatchNormalization(z, s, o, m, v) y = Identity(u)",
])  # fmt: skip
def test_elsewhere_the_norm_becomes_mul_and_add(body: str) -> None:
    weights = {"w": tensor(4, 4, 1), "w4": tensor(5, 5), "b": tensor(5)}
    ops, folded = fold(model(body, "1,4,5", weights))
    at = ops.index("Mul")
    assert ops[at + 1] == "Add"
    assert "BatchNormalization" not in ops
    assert folded.sources == {"s": STATISTICS, "o": STATISTICS}
    assert folded.model.graph.initializers["s"].shape == (4, 1)


def test_before_opset_7_mul_and_add_say_how_they_broadcast() -> None:
    proto = model("z = Relu(x) y = BatchNormalization(z, s, o, m, v)", "1,4,3,3", {}, ir=3)
    proto.opset_import[0].version = 6
    source = load(proto)
    folded = fold_batch_norm(source.model)
    assert [node.op_type for node in folded.model.graph] == ["Relu", "Mul", "Add"]
    x = torch.from_numpy(tensor(1, 4, 3, 3))
    before, after = (
        run(lowered.program, pack(lowered.program, lowered.arrays), {"x": x})["y"]
        for lowered in (lower(m, {"x": (1, 4, 3, 3)}) for m in (source.model, folded.model))
    )
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)


def test_a_norm_in_training_is_left_alone() -> None:
    text = "u, i, j = BatchNormalization<training_mode = 1>(x, s, o, m, v) y = Relu(u)"
    source = load(model(text, "3,4,5", {}))
    folded = fold_batch_norm(source.model)
    assert folded.model is source.model
    assert folded.sources == {}


def test_tensors_that_torch_fills_by_shape_are_constants() -> None:
    """The exporter's zero bias of a Conv without one, and its BatchNormalization without scale."""
    body = """
        zero = Constant<value_float = 0.0>() like = CastLike(zero, x)
        c = Shape<start = 0, end = 1>(w) b = Expand(like, c)
        u = Conv(x, w, b)
        one = Constant<value_floats = [1.0]>() same = CastLike(one, u)
        channels = Shape<start = 1, end = 2>(u) ones = Expand(same, channels)
        n = BatchNormalization(u, ones, o, m, v)
        y = Relu(n)
    """
    operators, folded = fold(model(body, "1, 3, 6, 6", {"w": tensor(4, 3, 3, 3)}))
    assert {"BatchNormalization", "Mul", "Add"}.isdisjoint(operators)
    assert set(names(folded)) - NORM.keys() == {"w", "b"}
