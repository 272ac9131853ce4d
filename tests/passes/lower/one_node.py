"""Models of one ONNX node, lowered: the bench that tests of lowering rules work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import torch
from onnx import helper, numpy_helper

import ngc.passes.lower  # noqa: F401  (registers the rules)
from ngc.backends.torch_exec import Executor, pack
from ngc.ir import program as ir
from ngc.ir.check import check
from ngc.passes.lower.driver import Lowered, lower


@dataclass(frozen=True)
class Given:
    """An operand that is an input of the network; a bare array is an initializer."""

    array: np.ndarray


@dataclass(frozen=True)
class Number:
    """An operand that comes from a Constant node."""

    array: np.ndarray


@dataclass(frozen=True)
class Case:
    """A lowered model and what to feed it."""

    lowered: Lowered
    feeds: dict[str, np.ndarray]
    model: onnx.ModelProto

    @property
    def ops(self) -> list[ir.Op]:
        return [op for op in self.lowered.program if not isinstance(op, ir.Input)]

    @property
    def mnemonics(self) -> list[str]:
        return [op.mnemonic for op in self.ops]

    def only(self, cls: type[ir.Op]) -> Any:
        """The one operation of the program, of this class."""
        (op,) = self.ops
        assert isinstance(op, cls)
        return op

    def run(self) -> list[np.ndarray]:
        program = self.lowered.program
        feeds = {name: torch.from_numpy(np.array(array)) for name, array in self.feeds.items()}
        outputs = Executor(program)(pack(program, self.lowered.arrays), feeds)
        return [outputs[name].numpy() for name, _ in program.outputs]

    def oracle(self) -> list[np.ndarray]:
        """What onnxruntime computes, unoptimised."""
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            self.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, self.feeds)

    def agrees(self, tolerance: float = 1e-5) -> Case:
        """Checks that the program computes what onnxruntime does; returns itself."""
        for found, expected in zip(self.run(), self.oracle(), strict=True):
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
        return self


def x(*shape: int, dtype: str = "float32") -> Given:
    """A network input with different numbers everywhere."""
    return Given(ramp(*shape, dtype=dtype))


def ramp(*shape: int, dtype: str = "float32") -> np.ndarray:
    """-1, 0, 1, ... in this shape."""
    return (np.arange(np.prod(shape, dtype=int)) - 1).reshape(shape).astype(dtype)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def scalar(value: float) -> Number:
    return Number(np.array(value, dtype=np.float32))


def one(
    op_type: str,
    *operands: Given | Number | np.ndarray | None,
    opset: int = 21,
    outputs: int = 1,
    **attributes: Any,
) -> Case:
    """Lower a model of one node; inputs are i0, i1, ..., initializers w0, w1, ... by position."""
    names, nodes, weights, feeds = [], [], [], {}
    for k, operand in enumerate(operands):
        match operand:
            case None:
                names.append("")
            case Given(array):
                names.append(f"i{k}")
                feeds[names[-1]] = array
            case Number(array):
                names.append(f"c{k}")
                value = numpy_helper.from_array(array)
                nodes.append(helper.make_node("Constant", [], [names[-1]], value=value))
            case _:
                names.append(f"w{k}")
                weights.append(numpy_helper.from_array(operand, names[-1]))
    ends = [f"y{k}" for k in range(outputs)]
    nodes.append(helper.make_node(op_type, names, ends, name="node", **attributes))
    return build(nodes, feeds, weights, ends, opset)


def build(
    nodes: list[onnx.NodeProto],
    feeds: dict[str, np.ndarray],
    weights: list[onnx.TensorProto],
    outputs: list[str],
    opset: int = 21,
    domains: dict[str, int] | None = None,
) -> Case:
    """Lower a model; its program must be valid."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in feeds.items()
    ]
    ends = [helper.make_value_info(name, onnx.TypeProto()) for name in outputs]
    graph = helper.make_graph(nodes, "one", inputs, ends, weights)
    opsets = {"": opset, **(domains or {})}
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    lowered = lower(onnx_ir.serde.deserialize_model(model), {n: a.shape for n, a in feeds.items()})
    check(lowered.program)
    return Case(lowered, feeds, model)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal random numbers."""
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def given(*shape: int, seed: int = 1) -> Given:
    """A network input of normal random numbers."""
    return Given(noise(*shape, seed=seed))
