"""Keras 3 models, through the torch backend; TensorFlow is not needed.

Files are loaded in safe mode: no code in them runs. Weights keep their Keras paths and layouts
(kernels [height, width, in, out], channels last), since the graph is read off the dataflow.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from ngc.errors import LiftError, ModelError, NgcError
from ngc.frontends.dims import Example
from ngc.frontends.extras import require
from ngc.frontends.torch import arguments as torch_arguments
from ngc.frontends.torch import (
    exporting,
    made,
    reason,
    rename,
    sample_of,
    traced,
    written,
)
from ngc.ir.source import Exported, Origin, Place
from ngc.ir.tensors import to_numpy

# Sizes for what a model leaves open: batch, then space or sequence.
BATCH, OPEN = 1, 32


def read(path: Path) -> Any:
    """A ``.keras`` or ``.h5`` file."""
    keras = _keras(str(path))
    require("h5py", "reading files of Keras", str(path))
    if not path.is_file():
        raise ModelError("there is no such file", where=str(path))
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras's, zip's, HDF5's and whatever a layer raises
        raise ModelError(
            f"not a Keras model that can be read safely: {reason(error)}",
            where=str(path),
            hint="model.save('model.keras') in Keras 3; layers of your own: ngc.compile(model)",
        ) from error


def export(model: Any, inputs: Any, where: str) -> Exported:
    """The model as torch's exporter writes it, its tensors under their Keras paths."""
    _keras(where)
    args, kwargs = _arguments(model, inputs, where)
    if not model.built:
        raise ModelError(
            "it has not been built", where=where, hint="call it once on an input, then compile it"
        )
    with _torch_batch_norm(), exporting(model):
        program = traced(model, args, kwargs, where)
        sample = sample_of(model, args, kwargs, where)
    exported = written(program, {}, where)
    names: dict[int, str] = {}
    paths = _paths(model)
    for path, weight in paths.items():
        names.setdefault(weight.value.data_ptr(), path)
    tensors = {**program.state_dict, **program.constants}
    known = {name: names[tensor.data_ptr()] for name, tensor in tensors.items()
             if isinstance(tensor, torch.Tensor) and tensor.data_ptr() in names}  # fmt: skip
    rename(exported.proto, known)
    found = {t.name: math.prod(t.dims) for t in exported.proto.graph.initializer}
    places, rest = {}, {}
    for path, weight in paths.items():
        name = names[weight.value.data_ptr()]
        if found.get(name) == math.prod(weight.shape):
            places[path] = Place(name, tuple(weight.shape))
        else:
            rest[path] = to_numpy(weight.value)
    return Exported(exported.proto, Origin("keras", places, rest), sample)


def write_back(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Set the weights of a model, by their paths."""
    paths = _paths(model)
    if paths.keys() != tensors.keys():
        differ = sorted(paths.keys() ^ tensors.keys())
        raise LiftError(
            f"another model: {len(differ)} weights have other paths, as {', '.join(differ[:3])}",
            hint="the model that was compiled; Keras names a model from a file anew",
        )
    for path, weight in paths.items():
        weight.assign(tensors[path])


def _paths(model: Any) -> dict[str, Any]:
    """Weights by path. Models from a file can have several of one path, which are numbered."""
    found: dict[str, Any] = {}
    for weight in model.weights:
        path, k = weight.path, 1
        while path in found:
            path, k = f"{weight.path}.{k}", k + 1
        found[path] = weight
    return found


def _keras(where: str) -> Any:
    """The library, on its torch backend."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    require("keras", "reading Keras models", where)
    import keras

    if keras.backend.backend() != "torch":
        raise NgcError(
            f"Keras runs on {keras.backend.backend()} here; ngc reads models on its torch backend",
            where=where,
            hint="set KERAS_BACKEND=torch before keras is imported",
        )
    return keras


def _arguments(model: Any, inputs: Any, where: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs as Keras takes them: one argument, which may be a list or a dictionary. Those of the
    sizes that the model states, if none are given."""
    import keras

    if inputs is None:
        structure = getattr(model, "_inputs_struct", None)
        if structure is None:
            structure = list(getattr(model, "inputs", None) or [])
        if isinstance(structure, list) and not structure:
            raise ModelError(
                "it does not say what inputs it has",
                where=where,
                hint="ngc.compile(model, torch.zeros(1, 32, 32, 3)), or --input 1x32x32x3",
            )
        return (keras.tree.map_structure(_example, structure),), {}
    args, by_name = torch_arguments(inputs, where)
    takes = _parameters(model)
    if takes is not None:  # a subclass: whatever its ``call`` takes
        if by_name and not by_name.keys() <= set(takes):
            return (*args, by_name), {}
        return ((list(args),) if len(args) > len(takes) else args), by_name
    if not by_name:
        return ((list(args),) if len(args) > 1 else args), {}
    structure = getattr(model, "_inputs_struct", None)
    names = list(structure) if isinstance(structure, dict) else [x.name for x in model.inputs]
    if args or set(names) != by_name.keys():
        raise ModelError(
            f"its inputs are {', '.join(names)}",
            where=where,
            hint="each of them by its name, or all of them by position",
        )
    ordered = [by_name[name] for name in names]
    if isinstance(structure, dict):
        return (by_name,), {}
    return ((ordered if len(ordered) > 1 else ordered[0]),), {}


def _parameters(model: Any) -> list[str] | None:
    """What ``call`` of a subclassed model takes by position; None for a model made of layers."""
    if getattr(model, "_inputs_struct", None) is not None or getattr(model, "inputs", None):
        return None
    found = inspect.signature(model.call).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in found if p.kind in kinds and p.name not in ("training", "mask")]


def _example(spec: Any) -> torch.Tensor:
    return made(Example("", _sizes(spec.shape), _dtype(spec.dtype)))


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
