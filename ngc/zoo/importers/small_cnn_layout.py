"""The layout of the Small CNN Zoo: which numbers of a row are which tensor, and the network.

As its public code (google-research/dnn_predict_accuracy, train_network.py) says: convolutions of
Keras with its default padding (valid), stride 2, an activation after each; a global average pool; a
dense layer that gives logits. Images are grey, scaled to [-1, 1], of the size of their data set.
TensorFlow lays kernels out as [height, width, in, out], dense ones as [in, out], and images as
[batch, height, width, channels]; ONNX has [out, in, height, width], [out, in] and
[batch, channels, height, width].
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ngc.errors import NgcError

COLUMNS = ("varname", "start_idx", "end_idx", "shape")
HINT = "columns varname, start_idx, end_idx, shape; variables LAYER/kernel:0 and LAYER/bias:0"
VARIABLE = re.compile(r"(.*?)/?(kernel|bias)(:\d+)?")
CONVOLUTION, DENSE = 4, 2  # axes of their kernels
# Of Keras -> ONNX, with the same constants.
ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "selu": "Selu", "elu": "Elu"}


@dataclass(frozen=True)
class Variable:
    """A tensor in TensorFlow's layout: numbers ``start`` to ``stop`` of a row."""

    start: int
    stop: int
    shape: tuple[int, ...]

    def of(self, row: np.ndarray) -> np.ndarray:
        """In the layout of ONNX."""
        tensor = row[self.start : self.stop].reshape(self.shape)
        match len(self.shape):
            case 4:
                return tensor.transpose(3, 2, 0, 1)
            case 2:
                return tensor.T
        return tensor


@dataclass(frozen=True)
class Layout:
    """The layers in order, by their names: convolutions, and a dense one."""

    layers: Mapping[str, tuple[Variable, Variable]]
    width: int  # numbers in a row

    @property
    def channels(self) -> int:
        """Of the images."""
        return next(iter(self.layers.values()))[0].shape[2]

    def tensors(self, row: np.ndarray) -> dict[str, np.ndarray]:
        """The tensors of the ONNX model, by name."""
        found = {}
        for name, (kernel, bias) in self.layers.items():
            found[f"{name}.weight"], found[f"{name}.bias"] = kernel.of(row), bias.of(row)
        return found

    def onnx(self, row: np.ndarray, activation: str, size: int, stride: int) -> onnx.ModelProto:
        """The network of a row, for images [1, channels, size, size]."""
        nodes, value = [], "images"
        *convolutions, dense = self.layers
        for number, name in enumerate(convolutions):
            operands = [value, f"{name}.weight", f"{name}.bias"]
            made, value = f"conv.{number}", f"activation.{number}"
            nodes.append(helper.make_node("Conv", operands, [made], strides=[stride] * 2))
            nodes.append(helper.make_node(ACTIVATIONS[activation], [made], [value]))
        operands = ["features", f"{dense}.weight", f"{dense}.bias"]
        nodes += [
            helper.make_node("GlobalAveragePool", [value], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["features"]),
            helper.make_node("Gemm", operands, ["logits"], transB=1),
        ]
        tensors = self.tensors(row.astype(np.float32))
        classes = len(tensors[f"{dense}.bias"])
        images, logits = [1, self.channels, size, size], [1, classes]
        graph = helper.make_graph(
            nodes,
            "small_cnn",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, images)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits)],
            [numpy_helper.from_array(np.ascontiguousarray(t), n) for n, t in tensors.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def read_layout(path: Path) -> Layout:
    """layout.csv, whose variables must be the layers of such a network."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise NgcError(f"cannot read it ({error})", where=str(path)) from error
    found: dict[str, dict[str, Variable]] = {}
    for row in rows:
        name, variable = _variable(row, path)
        match = VARIABLE.fullmatch(name)
        if match is None:
            raise NgcError(f"{name!r} is no kernel and no bias", where=str(path), hint=HINT)
        found.setdefault(match[1].replace("/", "."), {})[match[2]] = variable
    layers = _layers(found, path)
    width = sum(variable.stop - variable.start for pair in layers.values() for variable in pair)
    ends = sorted((v.start, v.stop) for pair in layers.values() for v in pair)
    if [start for start, _ in ends] != [0, *(stop for _, stop in ends[:-1])]:
        raise NgcError("its variables overlap, or leave gaps", where=str(path))
    return Layout(layers, width)


def _variable(row: Mapping[str, str], path: Path) -> tuple[str, Variable]:
    try:
        name, start, stop, text = (row[column] for column in COLUMNS)
        shape = tuple(int(number) for number in re.findall(r"\d+", text))
        variable = Variable(int(start), int(stop), shape)
    except (KeyError, ValueError, TypeError) as error:
        raise NgcError(f"cannot read the row {dict(row)}", where=str(path), hint=HINT) from error
    if variable.stop - variable.start != math.prod(shape) or not all(shape):
        what = f"{name} of shape {list(shape)} has {variable.stop - variable.start} numbers"
        raise NgcError(what, where=str(path))
    return name, variable


def _layers(
    found: Mapping[str, Mapping[str, Variable]], path: Path
) -> dict[str, tuple[Variable, Variable]]:
    """In the order of the rows; each fits onto the one before."""
    layers: dict[str, tuple[Variable, Variable]] = {}
    order = sorted(found, key=lambda name: min(v.start for v in found[name].values()))
    before: int | None = None
    for name in order:
        if set(found[name]) != {"kernel", "bias"}:
            raise NgcError(f"layer {name} has no kernel or no bias", where=str(path), hint=HINT)
        kernel, bias = found[name]["kernel"], found[name]["bias"]
        axes = DENSE if name == order[-1] else CONVOLUTION
        if len(kernel.shape) != axes or bias.shape != kernel.shape[-1:]:
            what = f"layer {name} has shapes {list(kernel.shape)} and {list(bias.shape)}"
            raise NgcError(what, where=str(path), hint="convolutions, and a dense layer at the end")
        if before is not None and kernel.shape[-2] != before:
            what = f"layer {name} reads {kernel.shape[-2]} channels of {before}"
            raise NgcError(what, where=str(path))
        before = kernel.shape[-1]
        layers[name or "layer"] = (kernel, bias)
    if len(layers) < 2:
        raise NgcError("it has no convolution", where=str(path), hint=HINT)
    return layers
