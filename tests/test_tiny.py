"""A two-layer network through everything: the first test to read, and the first to run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.parser import parse_model

import ngc
from ngc.ir.graph import ACTIVATIONS, NODE_ROLES

W1 = np.array([[1, 2], [3, 4], [5, 6]], np.float32)  # [out, in]
B1 = np.array([7, 8, 9], np.float32)
W2 = np.array([[10, 20, 30]], np.float32)
B2 = np.array([40], np.float32)

TEXT = """
    <ir_version: 10, opset_import: ["": 20]>
    tiny (float[1, 2] x) => (float[1, 1] y) {
        [fc1] h = Gemm <transB = 1> (x, W1, b1)
        [act] r = Relu (h)
        [fc2] y = Gemm <transB = 1> (r, W2, b2)
    }
"""


def tiny_model() -> onnx.ModelProto:
    """x [1, 2] -> 3 ReLU neurons -> y [1, 1]."""
    model = parse_model(TEXT)
    arrays = {"W1": W1, "b1": B1, "W2": W2, "b2": B2}
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    model.graph.initializer.extend(tensors)
    return model


@pytest.fixture
def tiny() -> ngc.Compilation:
    return ngc.compile(tiny_model())


def test_graph_is_the_network(tiny: ngc.Compilation) -> None:
    graph = tiny.graph()
    # Nodes 0 and 1 are the inputs, 2 to 4 hidden, 5 the output.
    assert [NODE_ROLES[k] for k in graph.node_role] == ["input"] * 2 + ["hidden"] * 3 + ["output"]
    assert [ACTIVATIONS[k] for k in graph.activation] == ["none"] * 2 + ["relu"] * 3 + ["none"]
    assert graph.x[:, 0].tolist() == [0, 0, 7, 8, 9, 40]
    assert graph.edge_index.tolist() == [
        [0, 1, 0, 1, 0, 1, 2, 3, 4],
        [2, 2, 3, 3, 4, 4, 5, 5, 5],
    ]
    assert graph.edge_attr[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 10, 20, 30]
    assert graph.layer.tolist() == [0, 0, 1, 1, 1, 2]
    assert graph.position_id.tolist() == [0, 1, 2, 2, 2, 3]


def test_lift_undoes_bind(tiny: ngc.Compilation) -> None:
    weights = torch.randn(tiny.program.num_slots, generator=torch.Generator().manual_seed(0))
    weights[:2] = torch.tensor([0.0, 1.0])
    assert torch.equal(ngc.lift(tiny.plan, ngc.bind(tiny.plan, weights)), weights)


def test_a_stack_of_weights_makes_a_batch(tiny: ngc.Compilation) -> None:
    batch = ngc.bind(tiny.plan, torch.stack([tiny.weights, tiny.weights]))
    assert batch.num_graphs == 2
    assert batch.edge_index[:, 9].tolist() == [6, 8]
    assert torch.equal(batch[1].edge_attr, tiny.graph().edge_attr)


def test_program_computes_what_the_network_does(tiny: ngc.Compilation) -> None:
    x = np.array([[0.5, -1.0]], np.float32)
    outputs = ngc.Executor(tiny.program)(tiny.weights, {"x": torch.from_numpy(x)})
    expected = np.maximum(x @ W1.T + B1, 0) @ W2.T + B2
    np.testing.assert_allclose(outputs["y"].numpy(), expected, rtol=1e-6)


def test_file_gives_graph_and_network_back(tiny: ngc.Compilation, tmp_path: Path) -> None:
    ngc.save([tiny], tmp_path / "graph.pt")
    stored = ngc.load(tmp_path / "graph.pt")
    assert len(stored) == 1
    assert torch.equal(stored.graphs[0].edge_attr, tiny.graph().edge_attr)
    assert onnx.printer.to_text(ngc.decompile(stored)) == onnx.printer.to_text(tiny_model())


def test_an_edited_graph_gives_an_edited_network(tiny: ngc.Compilation, tmp_path: Path) -> None:
    ngc.save([tiny], tmp_path / "graph.pt")
    stored = ngc.load(tmp_path / "graph.pt")
    graph = stored.graphs[0].clone()
    graph.x[5, 0] = -1.0
    arrays = {
        t.name: onnx.numpy_helper.to_array(t) for t in stored.model(0, graph).graph.initializer
    }
    assert arrays["b2"].tolist() == [-1.0]
    np.testing.assert_array_equal(arrays["W1"], W1)


def test_hidden_neurons_can_be_permuted(tiny: ngc.Compilation) -> None:
    group = ngc.symmetries(tiny.wiring)
    assert [family.size for family in group.families] == [3]
    assert group.log10_order == pytest.approx(np.log10(6))


def test_every_parameter_is_on_the_graph(tiny: ngc.Compilation) -> None:
    fates = {fate.name: fate.state for fate in tiny.coverage.fates}
    assert fates == dict.fromkeys(["W1", "b1", "W2", "b2"], "on the graph")


def test_all_four_checks_pass(tiny: ngc.Compilation) -> None:
    verification = ngc.verify(tiny)
    assert [check.name for check in verification.checks] == [
        "faithful", "lossless", "symmetric", "complete",
    ]  # fmt: skip
    assert verification.passed, verification.checks
