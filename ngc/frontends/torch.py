"""PyTorch modules and exported programs, through torch's own ONNX exporter.

The exporter runs without its optimiser, which would transpose, rename, fold and merge weights; what
it leaves behind is cleaned up by ngc's own passes. Tensors keep their ``state_dict`` names.

A module runs its code while it is exported. An exported program is data: it is read without
unpickling anything but tensors.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import onnx
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ngc.errors import ModelError
from ngc.frontends.dims import Example
from ngc.ir.source import Origin, Place
from ngc.ir.tensors import to_numpy

# Where the exporter keeps the Python lines of each node: large, and no part of the model.
TRACE = "pkg.torch.onnx.stack_trace"


def export(model: nn.Module | ExportedProgram, inputs: Any, where: str) -> onnx.ModelProto:
    """The model as the exporter writes it, in evaluation mode."""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(model, nn.Module):
        args, kwargs = arguments(inputs, where)
    with exporting(model):
        try:
            program = torch.onnx.export(
                model, args, kwargs=kwargs, dynamo=True, external_data=False, optimize=False,
                verbose=False,
            )  # fmt: skip
        except Exception as error:  # whatever a module of a stranger and the exporter raise
            raise failed(error, where) from error
    assert program is not None
    proto = program.model_proto
    for node in proto.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != TRACE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    return proto


def failed(error: BaseException, where: str) -> ModelError:
    """Of the exporter, in a line."""
    return ModelError(
        f"torch's exporter failed: {reason(error)}",
        where=where,
        hint="torch.export.export(model, inputs) says more",
    )


def arguments(inputs: Any, where: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as arguments of the module: a tensor, a sequence of arguments, or arguments by
    name."""
    match inputs:
        case None:
            raise ModelError(
                "a PyTorch module needs example inputs",
                where=where,
                hint="ngc.compile(module, (torch.zeros(1, 3, 32, 32),)), or --input 1x3x32x32",
            )
        case Tensor():
            return (inputs,), {}
        case [Example(), *_]:
            by_name = {one.name: made(one) for one in inputs if one.name}
            return tuple(made(one) for one in inputs if not one.name), by_name
        case Mapping():
            return (), dict(inputs)
        case _:
            return tuple(inputs), {}


def made(example: Example) -> Tensor:
    """A tensor of these sizes: normal numbers, ids of 0, masks of True."""
    dtype = getattr(torch, example.dtype)
    if not dtype.is_floating_point:
        return torch.full(example.shape, int(dtype == torch.bool), dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(example.shape, generator=generator).to(dtype)


def read_program(path: Path) -> ExportedProgram:
    """A ``.pt2`` file. Nothing but tensors is unpickled."""
    if not path.is_file():
        raise ModelError("there is no such file", where=str(path))
    load = torch.load

    def tensors_only(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **{**kwargs, "weights_only": True})

    with _quiet(), mock.patch.object(torch, "load", tensors_only):
        try:
            return torch.export.load(path)
        except Exception as error:  # torch's, zip's, json's and unpickling errors
            raise ModelError(
                f"not an exported program that can be read safely: {reason(error)}",
                where=str(path),
                hint="torch.export.save(torch.export.export(model, inputs), path)",
            ) from error


def origin_of(model: nn.Module | ExportedProgram, proto: onnx.ModelProto) -> Origin:
    """Which tensor of the ONNX model each tensor of the ``state_dict`` is."""
    tensors = dict(model.state_dict(keep_vars=True) if isinstance(model, nn.Module)
                   else model.state_dict)  # fmt: skip
    found = {t.name: t for t in proto.graph.initializer}
    places: dict[str, Place] = {}
    rest: dict[str, Tensor] = {}
    by_memory: dict[Any, str] = {}
    for name, tensor in tensors.items():
        memory = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if name in found and tuple(found[name].dims) == tuple(tensor.shape):
            places[name] = Place(name, tuple(tensor.shape))
            by_memory.setdefault(memory, name)
    for name, tensor in tensors.items():
        memory = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if name not in places:
            if memory in by_memory:  # one tensor under two names
                places[name] = places[by_memory[memory]]
            else:
                rest[name] = tensor
    return Origin("torch", places, {name: to_numpy(tensor) for name, tensor in rest.items()})


def reason(error: BaseException) -> str:
    """The innermost cause in a line: the exporter's own message is a page."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporting prints, logs and warns of."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


@contextlib.contextmanager
def exporting(model: nn.Module | ExportedProgram) -> Iterator[None]:
    """In silence, without gradients and in evaluation mode; every submodule gets its own mode
    back."""
    modes = []
    if isinstance(model, nn.Module):
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
    try:
        with _quiet(), torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
