"""PyTorch modules and exported programs, through torch's own ONNX exporter.

The exporter runs without its optimiser, which would transpose, rename, fold and merge weights; what
it leaves behind is cleaned up by ngc's own passes. Tensors keep their ``state_dict`` names.

A module runs its code while it is exported. An exported program is data: it is read without
unpickling anything but tensors.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument
from torch.utils._pytree import tree_leaves, tree_map

from ngc.errors import ModelError
from ngc.frontends.dims import Example
from ngc.frontends.torch_registry import registry_kept
from ngc.ir.source import Exported, Origin, Place, Sample
from ngc.ir.tensors import to_numpy

# Where the exporter keeps the Python lines of each node: large, and no part of the model.
TRACE = "pkg.torch.onnx.stack_trace"


def export(model: nn.Module | ExportedProgram, inputs: Any, where: str) -> Exported:
    """A module in evaluation mode on example inputs, or an exported program."""
    if isinstance(model, ExportedProgram):
        return written(model, dict(model.state_dict), where)
    if any(isinstance(part, nn.RNNBase) and part.proj_size for part in model.modules()):
        raise ModelError(
            "torch's exporter leaves the projection of an LSTM out",
            where=where,
            hint="nn.LSTM without proj_size, and a Linear; or an ONNX file",
        )
    args, kwargs = arguments(inputs, where)
    with exporting(model), experts_exportable(model) as notes:
        program, left_out = traced_answers(model, args, kwargs, where)
        if left_out:
            notes.append(f"answers that are no tensors are left out: {', '.join(left_out)}")
        sample = sample_of(model, args, kwargs, where)
    exported = written(program, model.state_dict(keep_vars=True), where)
    return replace(exported, sample=sample, notes=tuple(notes))


def traced_answers(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], where: str
) -> tuple[ExportedProgram, list[str]]:
    """The module's exported program, whose outputs are tensors, and what else it answers with."""
    try:
        program = traced(model, args, kwargs, where)
        outputs = program.graph_signature.output_specs
        if not any(isinstance(spec.arg, ConstantArgument) for spec in outputs):
            return program, []
        left_out: list[str] = []
    except ModelError as error:
        try:
            with buffers_kept(model):
                found = run(model, args, kwargs, where)
        except ModelError:
            raise error from None
        tensors, left_out = answers_of(found)
        if not left_out and len(tensors) == sum(isinstance(t, Tensor) for t in tree_leaves(found)):
            raise
        if not tensors:
            raise ModelError(
                f"it answers with no tensor, but with {', '.join(left_out)}",
                where=where,
                hint="a module whose forward returns tensors",
            ) from None
    with tensors_alone(model):
        return traced(model, args, kwargs, where), left_out


@contextlib.contextmanager
def tensors_alone(model: nn.Module) -> Iterator[None]:
    """The module answers with the tensors among its answers: sizes, flags and caches are no
    outputs."""
    forward = model.forward

    def answers(*args: Any, **kwargs: Any) -> list[Tensor]:
        return answers_of(forward(*args, **kwargs))[0]

    with mock.patch.object(model, "forward", answers):
        yield


def answers_of(found: Any) -> tuple[list[Tensor], list[str]]:
    """The tensors in what a module answers, and the types of the objects that are left out of
    it."""
    tensors: list[Tensor] = []
    others: dict[str, None] = {}
    for leaf in tree_leaves(found):
        match leaf:
            case Tensor():
                tensors.append(leaf)
            case None | bool() | int() | float() | str():
                pass
            case _ if (inside := _parts(leaf)) is not None:
                more, rest = answers_of(inside)
                tensors += more
                others |= dict.fromkeys(rest)
            case _:
                others[type(leaf).__name__] = None
    return tensors, list(others)


def _parts(answer: Any) -> list[Any] | None:
    """What a mapping or a dataclass holds that the exporter knows nothing of."""
    if isinstance(answer, Mapping):
        return list(answer.values())
    if dataclasses.is_dataclass(answer):
        return [getattr(answer, field.name) for field in dataclasses.fields(answer)]
    return None


# How transformers runs experts: two ways that an exporter cannot follow, and one that it can.
NOT_EXPORTABLE, EXPORTABLE = ("grouped_mm", "eager"), "batched_mm"


@contextlib.contextmanager
def experts_exportable(model: nn.Module) -> Iterator[list[str]]:
    """Experts are run in the way that can be exported; afterwards in their own again. Gives the
    notes on that."""
    name = "_experts_implementation_internal"
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    kept = [(c, way) for c in configs.values() if (way := getattr(c, name, "")) in NOT_EXPORTABLE]
    notes = []
    if kept and any(getattr(m, "_apply_gate", None) is not None for m in model.modules()):
        notes.append(f"experts are exported as {EXPORTABLE}, which computes the same")
    for config, _ in kept:
        setattr(config, name, EXPORTABLE)
    try:
        yield notes
    finally:
        for config, way in kept:
            setattr(config, name, way)


def traced(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], where: str
) -> ExportedProgram:
    """The module's exported program; its Python is read where following it does not do."""
    try:
        return torch.export.export(model, args, kwargs, strict=False)
    except Exception as error:  # whatever a module of a stranger and the exporter raise
        try:
            return torch.export.export(model, args, kwargs, strict=True)
        except Exception:
            raise failed(error, where) from error


@contextlib.contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Give a module back the buffers that running it changes: counters, running means."""
    kept = [(m, name, buffer, buffer.clone()) for m in model.modules()
            for name, buffer in m._buffers.items() if buffer is not None]  # fmt: skip
    try:
        yield
    finally:
        with torch.no_grad():
            for owner, name, buffer, value in kept:
                owner._buffers[name] = buffer.copy_(value)


def sample_of(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], where: str
) -> Sample | None:
    """What the module itself answers to the example inputs; none where it cannot be told apart.
    Its buffers are left as they are."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    with buffers_kept(model):
        answers, _ = answers_of(run(model, args, kwargs, where))
    if any(t.is_complex() for t in (*given, *answers)):
        return None
    return Sample(tuple(to_numpy(t) for t in given), tuple(to_numpy(t) for t in answers))


def run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], where: str) -> Any:
    """What the module answers to the example inputs."""
    try:
        return model(*args, **kwargs)
    except Exception as error:  # whatever a module of a stranger raises
        raise ModelError(
            f"the model itself fails on these inputs: {reason(error)}",
            where=where,
            hint="inputs of the sizes and types that it takes, e.g. --input ids=1x16:int64",
        ) from error


def written(program: ExportedProgram, tensors: Mapping[str, Any], where: str) -> Exported:
    """An exported program as ONNX. ``tensors``: its ``state_dict``."""
    found = [t for t in tensors.values() if isinstance(t, Tensor)]
    if any(t.is_complex() for t in found):
        raise ModelError("it has complex parameters", where=where, hint="real ones, two for each")
    own, clashing = _set_apart(program)
    with exporting(program), registry_kept():
        try:
            made = torch.onnx.export(
                own, (), dynamo=True, external_data=False, optimize=False, verbose=False
            )
        except Exception as error:
            raise failed(error, where) from error
    assert made is not None
    proto = made.model_proto
    for node in proto.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != TRACE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    rename(proto, _plain_names(proto, clashing))
    _drop_absent_bias(proto.graph)
    _tell_apart(proto.graph)
    return Exported(proto, origin_of(tensors, proto, clashing))


def _drop_absent_bias(graph: onnx.GraphProto) -> None:
    """The exporter writes the bias that a 3-d convolution has not as zeros of [channels, 2], which
    ONNX does not allow: Expand(0, Concat(Shape(weight), [2])). Zeros add nothing, whatever their
    shape was meant to be."""
    writers = {name: node for node in graph.node for name in node.output}

    def made_by(operator: str, name: str) -> onnx.NodeProto | None:
        node = writers.get(name)
        return node if node is not None and node.op_type == operator else None

    def is_zero(name: str) -> bool:
        cast = made_by("CastLike", name)
        constant = made_by("Constant", cast.input[0] if cast is not None else name)
        if constant is None or not constant.attribute[0].HasField("t"):
            return False
        return not onnx.numpy_helper.to_array(constant.attribute[0].t).any()

    for node in graph.node:
        expand = made_by("Expand", node.input[2]) if len(node.input) == 3 else None
        if node.op_type != "Conv" or expand is None or not is_zero(expand.input[0]):
            continue
        sizes = made_by("Concat", expand.input[1])
        shape = None if sizes is None else made_by("Shape", sizes.input[0])
        if shape is not None and shape.input[0] == node.input[1]:
            del node.input[2]


def _tell_apart(graph: onnx.GraphProto) -> None:
    """A tensor that the module answers with twice is two outputs of different names."""
    names = {value.name for value in (*graph.input, *graph.output)}
    names |= {name for node in graph.node for name in node.output}
    seen: set[str] = set()
    for output in graph.output:
        first, k = output.name, 1
        while output.name in seen or (output.name != first and output.name in names):
            output.name, k = f"{first}.{k}", k + 1
        seen.add(output.name)
        if output.name != first:
            graph.node.append(onnx.helper.make_node("Identity", [first], [output.name]))


# Before the names of tensors that lie in no submodule: an input, or a value that the exporter names
# by its operator, may be called the same.
APART = "top."


def _set_apart(program: ExportedProgram) -> tuple[ExportedProgram, set[str]]:
    """A copy of the program in which those tensors have names with a dot; and their names."""
    result = copy.copy(program)
    signature = copy.deepcopy(program.graph_signature)
    clashing: set[str] = set()
    for spec in signature.input_specs:
        if spec.target is not None and "." not in spec.target:
            clashing.add(spec.target)
            spec.target = APART + spec.target
    for spec in signature.output_specs:
        if spec.target in clashing:
            spec.target = APART + str(spec.target)

    def moved(tensors: Mapping[str, Any]) -> dict[str, Any]:
        return {APART + n if n in clashing else n: t for n, t in tensors.items()}

    result._graph_signature = signature
    result._state_dict = moved(program.state_dict)
    result._constants = moved(program.constants)
    return result, clashing


def _plain_names(proto: onnx.ModelProto, clashing: set[str]) -> dict[str, str]:
    """Their own names back for the tensors that were set apart, where nothing else has them."""
    taken = {value.name for value in proto.graph.input}
    taken |= {name for node in proto.graph.node for name in node.output}
    return {APART + name: name for name in clashing if name not in taken}


def rename(proto: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Give initializers of a graph other names."""
    graph = proto.graph
    for tensor in (*graph.initializer, *graph.value_info, *graph.input):
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        for k, name in enumerate(node.input):
            node.input[k] = names.get(name, name)


def failed(error: BaseException, where: str) -> ModelError:
    """Of the exporter, in a line."""
    return ModelError(
        f"torch's exporter failed: {reason(error)}",
        where=where,
        hint="inputs of the sizes and types that it takes, e.g. --input ids=1x16:int64; "
        "torch.export.export(model, inputs) says more",
    )


def arguments(inputs: Any, where: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as arguments of the module: a tensor, a sequence of arguments, or arguments by
    name."""
    inputs = tree_map(
        lambda leaf: torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf, inputs
    )
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
        case list() | tuple():
            return tuple(inputs), {}
        case _:
            raise ModelError(
                f"example inputs are a {type(inputs).__name__}",
                where=where,
                hint="a tensor, a tuple of arguments, or a dictionary of arguments by name",
            )


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


def origin_of(
    tensors: Mapping[str, Any], proto: onnx.ModelProto, clashing: Collection[str] = ()
) -> Origin:
    """Which tensor of the ONNX model each tensor of the ``state_dict`` is."""
    found = {t.name: t for t in proto.graph.initializer}
    places: dict[str, Place] = {}
    rest: dict[str, np.ndarray] = {}
    by_memory: dict[Any, str] = {}
    own = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}

    def memory(tensor: Tensor) -> tuple[Any, ...]:
        return (tensor.data_ptr(), tensor.shape, tensor.stride())

    for name, tensor in own.items():
        names = (APART + name, name) if name in clashing else (name,)
        here = next((n for n in names if n in found), "")
        if here and tuple(found[here].dims) == tuple(tensor.shape):
            places[name] = Place(here, tuple(tensor.shape))
            by_memory.setdefault(memory(tensor), name)
    for name, tensor in own.items():
        if name not in places:
            if tensor.numel() and memory(tensor) in by_memory:  # one tensor under two names
                places[name] = places[by_memory[memory(tensor)]]
            else:
                rest[name] = to_numpy(tensor)
    extra = {name: value for name, value in tensors.items() if name not in own}
    return Origin("torch", places, rest, extra)


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
    nowhere = io.StringIO()
    hidden = contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere)
    with warnings.catch_warnings(), hidden[0], hidden[1]:
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
