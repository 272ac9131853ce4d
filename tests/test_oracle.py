"""The oracle answers like onnxruntime, and outlives it."""

from __future__ import annotations

import signal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ngc.oracle import Oracle, OracleError, write_model


def model(op: str = "Relu", kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(n, kind, [2, 3]) for n in "xy")
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


X = np.array([[-1, 2, -3], [4, -5, 6]], dtype=np.float32)


def test_outputs_come_by_name_and_a_worker_serves_several_models() -> None:
    with Oracle(model()) as oracle:
        np.testing.assert_array_equal(oracle.run({"x": X})["y"], X.clip(0))
        oracle.load(model("Neg").SerializeToString())
        np.testing.assert_array_equal(oracle.run({"x": X})["y"], -X)


def test_strings_travel_without_pickle() -> None:
    with Oracle(model("Identity", TensorProto.STRING)) as oracle:
        words = np.array([["a", "bc", ""], ["d", "e", "f"]], dtype=object)
        assert oracle.run({"x": words})["y"].tolist() == words.tolist()


def test_a_refused_model_and_a_wrong_input_are_errors_and_the_worker_lives_on() -> None:
    with Oracle(model()) as oracle:
        with pytest.raises(OracleError, match="cannot run the model"):
            oracle.run({"z": X})
        with pytest.raises(OracleError, match="cannot load the model"):
            oracle.load(b"junk")
        oracle.load(model())
        assert oracle.run({"x": X})["y"].shape == (2, 3)


def test_a_crash_names_the_signal_and_the_next_run_starts_anew() -> None:
    with Oracle(model()) as oracle:
        assert oracle._worker is not None
        oracle._worker.send_signal(signal.SIGSEGV)
        with pytest.raises(OracleError, match=r"crashed \(SIGSEGV\)"):
            oracle.run({"x": X})
        assert oracle.run({"x": X})["y"].shape == (2, 3)


def test_a_time_out_is_an_error() -> None:
    with Oracle(model()) as oracle:
        assert oracle._worker is not None
        oracle._worker.send_signal(signal.SIGSTOP)
        oracle.timeout = 0.05
        with pytest.raises(OracleError, match=r"did not run within 0\.05 s"):
            oracle.run({"x": X})


def test_models_too_large_for_one_message_keep_their_weights_beside(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = np.arange(900, dtype=np.float32).reshape(3, 300)
    proto = model("Relu")
    proto.graph.node.append(helper.make_node("MatMul", ["y", "w"], ["z"]))
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 300]))
    monkeypatch.setattr("ngc.oracle.MAX_MESSAGE", 1000)
    path = write_model(proto, tmp_path)
    assert path.stat().st_size < 1000
    assert (tmp_path / "model.data").stat().st_size == weight.nbytes
    with Oracle(path) as oracle:
        np.testing.assert_allclose(oracle.run({"x": X})["z"], X.clip(0) @ weight, rtol=1e-6)
