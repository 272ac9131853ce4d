"""Small classifiers as ONNX, made quickly, and folders of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def classifier(
    channels: Sequence[int], seed: int = 0, slope: float | None = None, name: str = "net"
) -> onnx.ModelProto:
    """Convolutions with an activation each, global average pool, Gemm. ``slope``: a number that is
    an initializer like any weight, but part of the architecture (PRelu would make it a weight)."""
    rng = np.random.default_rng(seed)
    nodes, arrays, before, value = [], {}, 1, "x"
    for k, count in enumerate(channels):
        arrays |= {
            f"{k}.w": rng.normal(size=(count, before, 3, 3)),
            f"{k}.b": rng.normal(size=count),
        }
        nodes.append(helper.make_node("Conv", [value, f"{k}.w", f"{k}.b"], [f"c{k}"]))
        if slope is None:
            nodes.append(helper.make_node("Relu", [f"c{k}"], [f"a{k}"]))
        else:
            arrays |= {"low": np.array(0.0), "high": np.array(slope)}
            nodes.append(helper.make_node("Clip", [f"c{k}", "low", "high"], [f"a{k}"]))
        before, value = count, f"a{k}"
    arrays |= {"fc.w": rng.normal(size=(3, before)), "fc.b": rng.normal(size=3)}
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fc.w", "fc.b"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def tensors(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}


ARCHITECTURES = ((2,), (3, 2), (2, 2))


def write_folder(folder: Path, runs: Iterable[int] = range(6), steps: int = 3) -> Path:
    """RUN/STEP.onnx: the runs take turns with the architectures; every file has a name of its own
    inside."""
    for run in runs:
        (folder / f"run{run}").mkdir(parents=True)
        for step in range(steps):
            model = classifier(ARCHITECTURES[run % 3], 100 * run + step, name=f"of {run} {step}")
            onnx.save(model, folder / f"run{run}" / f"{step}.onnx")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
