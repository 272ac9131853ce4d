"""compile: a model in any form ngc reads -> its neural graph. The stages by name, in order.

load        file, bytes or proto     -> Source         frontends/
normalise   onnx_ir -> onnx_ir                         passes/normalize/
lower       onnx_ir                  -> Program        passes/lower/
simplify    Program -> Program                         passes/program/
wire        Program                  -> Wiring         passes/wire/
graph       Wiring                   -> Graph, Plan    passes/graph/
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch

from ngc.backends.pyg import NeuralGraph, bind
from ngc.backends.state_dict import StateDict
from ngc.backends.torch_exec import pack
from ngc.budget import DEFAULT, Budget
from ngc.coverage import Coverage, coverage
from ngc.errors import LiftError, ModelError, ShapeError
from ngc.frontends.dims import sample_shapes
from ngc.frontends.models import load, write_back
from ngc.ir.graph import Graph
from ngc.ir.program import Program
from ngc.ir.source import Source
from ngc.ir.text import structure_hash
from ngc.options import Options
from ngc.passes.graph.pipeline import build_graph
from ngc.passes.lower.driver import Lowered, lower
from ngc.passes.normalize.pipeline import normalise
from ngc.passes.pipeline import run_passes
from ngc.passes.wire import Wiring, wire
from ngc.plan import Plan

# Or what a framework calls a model: see ``ngc.frontends.models``.
Model = str | Path | bytes | onnx.ModelProto | onnx_ir.Model | Any


@dataclass(frozen=True, eq=False, repr=False)
class Compilation:
    """A compiled model: every stage, and the weights of this one network.

    ``weights`` [slots] = [0, 1, parameters]; ``notes`` are what the user should know (sizes that
    were bound, quantised weights evaluated to float, ...).
    """

    source: Source
    program: Program
    arrays: Mapping[str, np.ndarray]
    plan: Plan
    notes: tuple[str, ...]
    max_elements: int = DEFAULT.max_elements

    def __repr__(self) -> str:
        figures = {
            "nodes": self.plan.num_nodes,
            "edges": self.plan.num_edges,
            "params": sum(param.size for param in self.program.params),
        }
        listed = ", ".join(f"{name}={number}" for name, number in figures.items())
        return f"Compilation({self.source.name!r}, {listed})"

    @cached_property
    def weights(self) -> torch.Tensor:
        return pack(self.program, self.arrays)

    @cached_property
    def tensors(self) -> StateDict | None:
        """How the framework that the model came from names its tensors."""
        source = self.source
        if source.origin is None:
            return None
        proto = source.proto if source.original is None else source.original
        return StateDict.of(source.origin, self.program, self.arrays, proto, source.folded)

    @cached_property
    def wiring(self) -> Wiring:
        options = self.plan.options
        wiring = wire(self.program, options.input_axes, self.max_elements, options.recurrent)
        for heads in self.plan.graph.fused:  # one node: they can only move together
            wiring.ties.append((heads.query.reshape(-1), heads.value.reshape(-1)))
        return wiring

    @cached_property
    def explicit(self) -> Graph | None:
        """Where attention is fused, the graph as it is before that."""
        if not self.plan.graph.fused:
            return None
        options = self.plan.options.changed({"attention": "explicit"})
        return build_graph(self.wiring, options, self.max_elements)

    @cached_property
    def coverage(self) -> Coverage:
        return cover(self)

    def graph(self) -> NeuralGraph:
        """The neural graph with this network's weights."""
        return bind(self.plan, self.weights)

    def state_dict(self, weights: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Every tensor of the model that was compiled, under the name it has in its framework
        (``state_dict`` key, Keras path, attribute): the values of these weights [slots], by default
        this network's."""
        if self.tensors is None:
            raise LiftError(
                "only models of PyTorch, Keras and scikit-learn have a state_dict",
                where=self.source.name,
                hint="ngc.decompile, for ONNX",
            )
        return self.tensors.write(self.program, self.weights if weights is None else weights)

    def load_into(self, model: Any, weights: torch.Tensor | None = None) -> None:
        """Set these weights [slots], by default this network's, in a model of the framework that
        was compiled: a ``torch.nn.Module``, a Keras model, a scikit-learn estimator."""
        tensors = self.state_dict(weights)
        assert self.tensors is not None
        write_back(self.tensors.framework, model, tensors)

    def with_weights(self, weights: Mapping[str, Any] | str | Path) -> Compilation:
        """The same architecture with other weights: tensors by name, as in ``state_dict`` or in the
        ONNX file, or a checkpoint (.safetensors, .npz, .pt)."""
        from ngc.checkpoints import with_weights

        return with_weights(self, weights)

    def save(self, path: str | Path) -> None:
        """Write graph.pt: the graph and what ``decompile`` needs."""
        from ngc.files import save

        save([self], path)


def compile(
    model: Model,
    inputs: Any = None,
    *,
    options: Options | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
    budget: Budget = DEFAULT,
    **changes: Any,
) -> Compilation:
    """Compile one model: ONNX (path, bytes, proto), a ``torch.nn.Module`` with example ``inputs``
    (a tensor, a sequence of arguments, or arguments by name), an exported program of PyTorch or its
    ``.pt2`` file, or ``package.module:name`` for what is there in code.

    ``shapes`` gives inputs their sizes, ``dims`` gives named dimensions theirs; what stays open is
    bound to a small sample. Keyword arguments beyond these are fields of ``Options``.
    """
    options = (options or Options()).changed(changes)
    source = load(model, inputs, budget=budget)
    key = _structure_key(source, options, shapes, dims) + str(budget)
    known = _known_plan(key, source, budget.max_elements)
    if known is not None:
        return known
    normal = normalise(source, options)
    shaped, notes = lower_with_shapes(normal, shapes or {}, dims or {}, budget)
    program = simplify(shaped.program)
    plan = make_plan(program, options, budget)
    names = {param.name for param in program.params}
    arrays = {name: array for name, array in shaped.arrays.items() if name in names}
    unfused = (f"attention stays explicit: {reason}" for reason in plan.graph.unfused)
    loops = (
        f"a loop is not rolled, or not its first step: {reason}"
        for reason in plan.graph.written_out
    )
    notes = (*normal.notes, *notes, *shaped.notes, *unfused, *loops)
    result = Compilation(normal, program, arrays, plan, notes, budget.max_elements)
    _remember(key, source, normal, result)
    return result


def lower_with_shapes(
    source: Source, shapes: Mapping[str, Sequence[int]], dims: Mapping[str, int], budget: Budget
) -> tuple[Lowered, tuple[str, ...]]:
    """Lower with the first sample of sizes that fits the model."""
    failed: ShapeError | None = None
    for bound in sample_shapes(source.model, shapes, dims):
        try:
            return lower(source.model, bound.shapes, budget), bound.notes
        except ShapeError as error:
            failed = failed or error
    assert failed is not None
    raise failed


def simplify(program: Program, after: str = "") -> Program:
    """The program after the program passes."""
    return run_passes(program, after=after or None)


def make_plan(program: Program, options: Options, budget: Budget = DEFAULT) -> Plan:
    """The plan of a program; one of the same structure and options is built once."""
    text = f"{structure_hash(program)}\n{options}\n{budget.max_elements}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    if digest not in _PLANS:
        wiring = wire(program, options.input_axes, budget.max_elements, options.recurrent)
        graph = build_graph(wiring, options, budget.max_elements)
        _PLANS.put(digest, Plan(program, graph, options, digest))
    return _PLANS[digest]


def cover(compilation: Compilation) -> Coverage:
    """The coverage report of a compilation."""
    source = compilation.source
    original = source.original if source.original is not None else source.proto
    floating = {name: tuple(t.dims) for name, t in float_initializers(original).items()}
    reads = {name for node in original.graph.node for name in node.input}
    reasons = {
        name: "a constant of the operators that read it (bound, epsilon, exponent or scale)"
        if name in reads
        else "no operator reads it"
        for name in floating
    }
    on_graph = compilation.plan.covered()
    return coverage(compilation.program, on_graph, floating, reasons, source.folded)


# --- plans of architectures seen before ---------------------------------------------------------


class _Recent(OrderedDict):  # type: ignore[type-arg]
    """The last few entries."""

    limit = 32

    def put(self, key: Any, value: Any) -> None:
        self[key] = value
        while len(self) > self.limit:
            self.popitem(last=False)


_PLANS: _Recent = _Recent()
_SEEN: _Recent = _Recent()


# Models with more weights are lowered anew each time: that takes less than to look at them all.
MAX_REMEMBERED = 2**24


@dataclass(eq=False)
class _Seen:
    """What compiling a first network found out about its architecture.

    ``contents``: digest of each of its floating-point initializers. ``weights``: those that are
    known to be weights and nothing else, since a network that differs in them gave the same
    program; any other might also have been read as a number (a bound, an exponent).
    """

    program: Program
    plan: Plan
    contents: dict[str, str]
    notes: tuple[str, ...]
    weights: set[str] = field(default_factory=set)


def float_initializers(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Those that can be parameters, by name."""
    floating = (
        onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16,
    )  # fmt: skip
    return {t.name: t for t in proto.graph.initializer if t.data_type in floating}


def _structure_key(
    source: Source,
    options: Options,
    shapes: Mapping[str, Sequence[int]] | None,
    dims: Mapping[str, int] | None,
) -> str:
    """Hash of everything in the model but the contents of floating-point initializers."""
    digest = hashlib.sha256(repr((options, shapes, dims)).encode())
    graph = source.proto.graph
    floats = float_initializers(source.proto)
    for opset in source.proto.opset_import:
        digest.update(opset.SerializeToString(deterministic=True))
    for part in (graph.input, graph.output, graph.node, source.proto.functions):
        for item in part:
            digest.update(item.SerializeToString(deterministic=True))
    for tensor in graph.initializer:
        if tensor.name in floats:
            digest.update(repr((tensor.name, tuple(tensor.dims), tensor.data_type)).encode())
        else:
            digest.update(tensor.SerializeToString(deterministic=True))
    for sparse in graph.sparse_initializer:
        digest.update(sparse.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _contents(tensors: Mapping[str, onnx.TensorProto]) -> dict[str, str]:
    return {
        name: hashlib.sha256(tensor.SerializeToString(deterministic=True)).hexdigest()
        for name, tensor in tensors.items()
    }


def _remember(key: str, source: Source, normal: Source, result: Compilation) -> None:
    """Note what one more network says about its architecture."""
    floats = float_initializers(source.proto)
    params = result.program.params
    computed = any(param.derived or param.name not in floats for param in params)
    if normal is not source or computed or result.program.num_slots > MAX_REMEMBERED:
        return  # parameters that were computed have to be computed again
    contents = _contents(floats)
    seen = _SEEN.get(key)
    if seen is None or seen.plan is not result.plan:
        _SEEN.put(key, _Seen(result.program, result.plan, contents, result.notes))
        return
    names = {param.name for param in params}
    seen.weights |= {name for name in names if contents[name] != seen.contents[name]}


def _known_plan(key: str, source: Source, max_elements: int) -> Compilation | None:
    """The network with a plan that was made for another, where nothing but weights differs."""
    seen = _SEEN.get(key)
    if seen is None:
        return None
    floats = float_initializers(source.proto)
    others = {name: tensor for name, tensor in floats.items() if name not in seen.weights}
    if any(digest != seen.contents[name] for name, digest in _contents(others).items()):
        return None
    arrays = {}
    for param in seen.program.params:
        array = onnx.numpy_helper.to_array(floats[param.name])
        if array.shape != param.shape:
            raise ModelError("the data do not fit the stated size", where=param.name)
        arrays[param.name] = array
    return Compilation(source, seen.program, arrays, seen.plan, seen.notes, max_elements)
