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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from ngc.errors import LiftError, ShapeError
from ngc.frontends.dims import sample_shapes
from ngc.frontends.models import load, write_back
from ngc.ir.graph import Graph
from ngc.ir.program import Program
from ngc.ir.source import Origin, Place, Source
from ngc.ir.text import structure_hash
from ngc.known import Known, float_initializers, structure_key
from ngc.options import Options
from ngc.passes.graph.pipeline import build_graph
from ngc.passes.lower.driver import Lowered, lower
from ngc.passes.normalize.pipeline import normalise
from ngc.passes.pipeline import run_passes
from ngc.passes.wire import Wiring, wire
from ngc.plan import Plan

# Architectures compiled last, wherever no others are given.
KNOWN = Known()

FILE = "onnx"  # where tensors have the names of an ONNX file, and of no framework

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
    def tensors(self) -> StateDict:
        """How the framework that the model came from, or its ONNX file, names its tensors."""
        source = self.source
        proto = source.proto if source.original is None else source.original
        origin = source.origin or origin_in_file(proto)
        return StateDict.of(origin, self.program, self.arrays, proto, source.folded)

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
        (``state_dict`` key, Keras path, attribute) or in its ONNX file: the values of these weights
        [slots], by default this network's."""
        return self.tensors.write(self.program, self.weights if weights is None else weights)

    def load_into(self, model: Any, weights: torch.Tensor | None = None) -> None:
        """Set these weights [slots], by default this network's, in a model of the framework that
        was compiled: a ``torch.nn.Module``, a Keras model, a scikit-learn estimator."""
        if self.tensors.framework == FILE:
            raise LiftError(
                "it was read from ONNX, which is no model of a framework",
                where=self.source.name,
                hint="state_dict() has its tensors by name; ngc.decompile writes ONNX",
            )
        write_back(self.tensors.framework, model, self.state_dict(weights))

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
    known: Known | None = None,
    **changes: Any,
) -> Compilation:
    """Compile one model: ONNX (path, bytes, proto), a ``torch.nn.Module`` with example ``inputs``
    (a tensor, a sequence of arguments, or arguments by name), an exported program of PyTorch or its
    ``.pt2`` file, or ``package.module:name`` for what is there in code.

    ``shapes`` gives inputs their sizes, ``dims`` gives named dimensions theirs; what stays open is
    bound to a small sample. ``known``: architectures of networks compiled before. Keyword arguments
    beyond these are fields of ``Options``.
    """
    known = KNOWN if known is None else known
    options = (options or Options()).changed(changes)
    source = load(model, inputs, budget=budget)
    key = structure_key(source.proto, options, shapes, dims, budget)
    found = known.find(key, source.proto)
    if found is not None:
        seen, arrays = found
        return Compilation(source, seen.program, arrays, seen.plan, seen.notes, budget.max_elements)
    normal = normalise(source, options)
    shaped, notes = lower_with_shapes(normal, shapes or {}, dims or {}, budget)
    program = simplify(shaped.program)
    plan = make_plan(program, options, budget, known)
    names = {param.name for param in program.params}
    arrays = {name: array for name, array in shaped.arrays.items() if name in names}
    unfused = (f"attention stays explicit: {reason}" for reason in plan.graph.unfused)
    loops = (
        f"a loop is not rolled, or not its first step: {reason}"
        for reason in plan.graph.written_out
    )
    notes = (*normal.notes, *notes, *shaped.notes, *unfused, *loops)
    if normal is source:  # else parameters were computed
        known.remember(key, source.proto, program, plan, notes)
    return Compilation(normal, program, arrays, plan, notes, budget.max_elements)


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


def make_plan(
    program: Program, options: Options, budget: Budget = DEFAULT, known: Known | None = None
) -> Plan:
    """The plan of a program; one of the same structure and options is built once."""
    plans = (KNOWN if known is None else known).plans
    text = f"{structure_hash(program)}\n{options}\n{budget.max_elements}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    plan: Plan | None = plans.used(digest)
    if plan is None:
        wiring = wire(program, options.input_axes, budget.max_elements, options.recurrent)
        graph = build_graph(wiring, options, budget.max_elements)
        plan = Plan(program, graph, options, digest)
        plans.put(digest, plan)
    return plan


def origin_in_file(proto: onnx.ModelProto) -> Origin:
    """The names of an ONNX file: its floating-point initializers."""
    floats = float_initializers(proto)
    return Origin(FILE, {name: Place(name, tuple(t.dims)) for name, t in floats.items()}, {})


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
