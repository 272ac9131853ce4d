"""Keras 3 models, through the torch backend; TensorFlow is not needed.

Files are loaded in safe mode: no code in them runs. Weights keep their Keras paths and layouts
(kernels [height, width, in, out], channels last), since the graph is read off the dataflow.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import onnx
import torch

from ngc.errors import ModelError, NgcError
from ngc.frontends import torch as torch_frontend
from ngc.frontends.dims import Example
from ngc.ir.source import Origin, Place
from ngc.ir.tensors import to_numpy

# Sizes for what a model leaves open: batch, then space or sequence.
BATCH, OPEN = 1, 32


def read(path: Path) -> Any:
    """A ``.keras`` or ``.h5`` file."""
    keras = _keras(str(path))
    if not path.is_file():
        raise ModelError("there is no such file", where=str(path))
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras's, zip's, HDF5's and whatever a layer raises
        raise ModelError(
            f"not a Keras model that can be read safely: {torch_frontend.reason(error)}",
            where=str(path),
            hint="model.save('model.keras') in Keras 3; layers of your own: ngc.compile(model)",
        ) from error


def export(model: Any, inputs: Any, where: str) -> tuple[onnx.ModelProto, Origin]:
    """The model as torch's exporter writes it, its tensors under their Keras paths."""
    _keras(where)
    given = _examples(model, where) if inputs is None else inputs
    args, kwargs = torch_frontend.arguments(given, where)
    program = None
    with _torch_batch_norm(), torch_frontend.exporting(model):
        try:
            program = torch.export.export(model, args, kwargs=kwargs)
        except Exception as error:  # whatever layers of a stranger and the exporter raise
            raise torch_frontend.failed(error, where) from error
    proto = torch_frontend.export(program, None, where)
    paths: dict[int, str] = {}
    for weight in model.weights:
        paths.setdefault(weight.value.data_ptr(), weight.path)
    tensors = {**program.state_dict, **program.constants}
    names = {name: paths[tensor.data_ptr()] for name, tensor in tensors.items()
             if isinstance(tensor, torch.Tensor) and tensor.data_ptr() in paths}  # fmt: skip
    _rename(proto, names)
    found = {tensor.name: math.prod(tensor.dims) for tensor in proto.graph.initializer}
    places, rest = {}, {}
    for weight in model.weights:
        name = paths[weight.value.data_ptr()]
        if found.get(name) == math.prod(weight.shape):
            places[weight.path] = Place(name, tuple(weight.shape))
        else:
            rest[weight.path] = to_numpy(weight.value)
    return proto, Origin("keras", places, rest)


def _keras(where: str) -> Any:
    """The library, on its torch backend."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError as error:
        raise NgcError(
            "reading Keras models needs keras", where=where, hint="pip install 'ngc[keras]'"
        ) from error
    if keras.backend.backend() != "torch":
        raise NgcError(
            f"Keras runs on {keras.backend.backend()} here; ngc reads models on its torch backend",
            where=where,
            hint="set KERAS_BACKEND=torch before keras is imported",
        )
    return keras


def _examples(model: Any, where: str) -> Sequence[Any]:
    """Inputs of the sizes that the model states, in its own structure."""
    specs = getattr(model, "inputs", None)
    if not specs:
        raise ModelError(
            "a Keras model that has not been built needs example inputs",
            where=where,
            hint="ngc.compile(model, torch.zeros(1, 32, 32, 3)), or --input 1x32x32x3",
        )
    tensors = [
        torch_frontend.made(Example("", _sizes(spec.shape), _dtype(spec.dtype))) for spec in specs
    ]
    structure = getattr(model, "_inputs_struct", None)
    if isinstance(structure, dict):
        return ({key: tensors[k] for k, key in enumerate(structure)},)
    return (tensors,) if len(tensors) > 1 else tuple(tensors)


def _sizes(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(n if n is not None else OPEN if k else BATCH for k, n in enumerate(shape))


def _dtype(dtype: str) -> str:
    return {"uint8": "int64", "int8": "int64", "string": "int64"}.get(dtype, dtype)


@contextmanager
def _torch_batch_norm() -> Iterator[None]:
    """Batch normalisation as torch's own operator: Keras's multiplies scale and variance first, and
    neither could be found from the product."""
    from keras.src.backend.torch import nn as backend

    def batch_normalization(
        x: Any, mean: Any, variance: Any, axis: int, offset: Any = None, scale: Any = None,
        epsilon: float = 1e-3,
    ) -> Any:  # fmt: skip
        x, mean, variance, offset, scale = (
            None if value is None else backend.convert_to_tensor(value)
            for value in (x, mean, variance, offset, scale)
        )
        moved = torch.movedim(x, axis, 1)
        result = torch.nn.functional.batch_norm(moved, mean, variance, scale, offset, eps=epsilon)
        return torch.movedim(result, 1, axis)

    with mock.patch.object(backend, "batch_normalization", batch_normalization):
        yield


def _rename(proto: onnx.ModelProto, names: dict[str, str]) -> None:
    """Give initializers of a graph other names."""
    graph = proto.graph
    for tensor in (*graph.initializer, *graph.value_info, *graph.input):
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        for k, name in enumerate(node.input):
            node.input[k] = names.get(name, name)
