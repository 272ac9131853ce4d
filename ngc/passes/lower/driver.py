"""Walk an ONNX graph and lower it node by node; constants are evaluated on the way.

Every node is lowered or its reason for refusal noted; all refusals of a model are raised together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx.reference import ReferenceEvaluator

from ngc.budget import DEFAULT, Budget
from ngc.errors import ModelError, NgcError, UnsupportedOp, UnsupportedOps
from ngc.ir import program as ir
from ngc.ir.program import Ints, Program
from ngc.passes.lower.afford import afford_evaluation
from ngc.passes.lower.base import (
    Builder,
    Known,
    find_rule,
    is_float,
    is_initial_state,
    is_quantised,
    lower_node,
    unknown_operator,
    widen,
)
from ngc.passes.normalize.constants import PARAMETER_MARK


@dataclass(frozen=True)
class Lowered:
    """A program with the values of its parameters.

    ``arrays``: value of every parameter, by name, in the dtype it is stored in;
    ``read``: constants whose values shaped the program;
    ``notes``: what the user should know (evaluated initializers, ...).
    """

    program: Program
    arrays: dict[str, np.ndarray]
    read: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()


class Refused:
    """Stands for the outputs of a refused node, so that the walk can go on and find the others."""


REFUSED = Refused()

# What torch's exporter notes on values that it has folded, and which these were.
FOLDED_MARK = "pkg.onnxscript.optimizer.folded_from"
SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"

# What a rule raises that trips over attributes, shapes or kinds of operands that contradict each
# other.
FAULTS = (
    ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError,
)  # fmt: skip

# What a state is multiplied by parameters with.
PRODUCTS = ("MatMul", "Gemm", "Conv", "Mul")

# Their outputs are random, so they are not evaluated even where all operands are known.
RANDOM = {
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
    "Multinomial",
}  # fmt: skip


def lower(model: onnx_ir.Model, shapes: Mapping[str, Ints], budget: Budget = DEFAULT) -> Lowered:
    """Lower a model whose inputs have the given shapes (every size known)."""
    builder = Builder(model.graph.name or "main", dict(model.graph.opset_imports), budget)
    walk = Walk(builder, model.producer_name or "")
    b = walk.builder
    for value in model.graph.inputs:
        if value.name in model.graph.initializers:
            continue  # IR version 3 lists weights among the inputs
        try:
            walk.env[value] = _input(b, value, shapes)
        except UnsupportedOp as refusal:
            walk.errors.append(refusal)
            walk.env[value] = REFUSED
    outputs = walk.graph(model.graph)
    if walk.errors:
        raise UnsupportedOps(walk.errors)
    pairs = []
    for value, operand in zip(model.graph.outputs, outputs, strict=True):
        b.at(f"output {value.name}", f"{value.name}.out")
        if isinstance(operand, list) or operand is None:
            message = "a sequence cannot be an output"
            raise UnsupportedOps([UnsupportedOp("Sequence", message, where=str(value.name))])
        pairs.append((str(value.name), operand))
    program = b.finish(pairs)
    names = {param.name for param in program.params}
    arrays = {name: array for name, array in b.arrays.items() if name in names}
    return Lowered(program, arrays, b.read, tuple(b.notes))


def _input(b: Builder, value: onnx_ir.Value, shapes: Mapping[str, Ints]) -> ir.Value:
    assert value.name is not None
    b.at(f"input {value.name}", value.name)
    b._op_type = "Input"
    if isinstance(value.type, onnx_ir.SequenceType | onnx_ir.OptionalType):
        raise b.refuse("sequences and optional tensors cannot be inputs")
    if value.dtype is None or value.name not in shapes:
        raise ModelError("input has no tensor type", where=f"input {value.name}")
    return b.emit(ir.Input, shapes[value.name], _numpy_name(value.dtype))


def _numpy_name(dtype: onnx_ir.DataType) -> str:
    name = str(dtype.numpy())
    return {"float16": "float32", "bfloat16": "float32"}.get(name, name)


# tf2onnx makes every constant an initializer; what it reads from variables is called so.
TF_VARIABLE = "ReadVariableOp"


def plain_numbers(graph: onnx_ir.Graph, producer: str = "") -> set[str]:
    """Initializers of one number that are constants of the code: torch's exporter turns those into
    initializers too (the zero bias of a convolution without bias, the ones and zeros that group
    normalisation is written with), but marks the ones that come from parameters and buffers."""
    values = graph.initializers
    if producer == "tf2onnx":
        return {
            name
            for name, value in values.items()
            if TF_VARIABLE not in name and value.shape is not None and value.shape.rank() == 0
        }
    if not any(PARAMETER_MARK in value.metadata_props for value in values.values()):
        return set()
    signature = graph.metadata_props.get(SIGNATURE, "")

    def learned(value: onnx_ir.Value) -> bool:
        sources = value.metadata_props.get(FOLDED_MARK, "").strip("[]").split(", ")
        folded = any(source and f"target={source}" in signature for source in sources)
        return folded or PARAMETER_MARK in value.metadata_props

    return {
        name
        for name, value in values.items()
        if value.const_value is not None and not learned(value) and _is_uniform(value.const_value)
    }


def _is_uniform(tensor: onnx_ir.TensorProtocol) -> bool:
    if tensor.size == 1 or not tensor.dtype.is_floating_point():
        return tensor.size == 1
    array = tensor.numpy()
    return array.size > 0 and bool((array == array.flat[0]).all())


class Walk:
    """One lowering under way: what each ONNX value has become."""

    def __init__(self, builder: Builder, producer: str = "") -> None:
        self.builder = builder
        self.env: dict[onnx_ir.Value, Any] = {}
        self.producer = producer
        self.errors: list[UnsupportedOp] = []
        builder.inline = self.inline  # rules of If, Loop and Scan lower their bodies with it
        builder.evaluate = self.evaluate

    def inline(self, graph: onnx_ir.Graph, arguments: Sequence[Any]) -> list[Any]:
        """Lower the body of a control-flow node with the given operands as its inputs."""
        saved = (self.builder._origin, self.builder._hint, self.builder._op_type)
        for value, operand in zip(graph.inputs, arguments, strict=True):
            self.env[value] = operand
        result = self.graph(graph)
        self.builder._origin, self.builder._hint, self.builder._op_type = saved
        if any(operand is REFUSED for operand in result):
            raise UnsupportedOp(saved[2], "its body cannot be compiled", where=saved[0])
        return result

    def graph(self, graph: onnx_ir.Graph) -> list[Any]:
        numbers = plain_numbers(graph, self.producer)
        for name, value in graph.initializers.items():
            if value not in self.env:  # the body of a loop comes by more than once
                known = self.initializer(name, value)
                self.env[value] = Known(known.array) if name in numbers else known
        for node in graph:
            if node.op_type != "Constant" or node.outputs[0] not in self.env:
                self.node(node)
        return [self.lookup(value, "graph output") for value in graph.outputs]

    def initializer(self, name: str, value: onnx_ir.Value) -> Known:
        if value.const_value is None:
            raise ModelError("initializer has no data", where=name)
        array = value.const_value.numpy()
        if is_float(str(widen(array[:0] if array.ndim else array).dtype)):
            return self.builder.parameter(name, array)
        return Known(array, sources=(name,) if is_quantised(str(array.dtype)) else ())

    def lookup(self, value: onnx_ir.Value | None, where: str) -> Any:
        if value is None or value.name == "":
            return None
        if value not in self.env:
            raise ModelError(f"value {value.name!r} is read but never computed", where=where)
        return self.env[value]

    def node(self, node: onnx_ir.Node) -> None:
        outputs = list(node.outputs)
        where = node.name or (outputs[0].name if outputs else "") or node.op_type
        b = self.builder
        b.at(where, (outputs[0].name or "") if outputs else "")
        b._op_type = node.op_type
        operands = [self.lookup(value, where) for value in node.inputs]
        try:
            if any(operand is REFUSED for operand in operands):
                entry = find_rule(node.domain, node.op_type, b.opsets.get(node.domain, 1))
                if entry is None:  # name it too: all unsupported operators are listed at once
                    lower_node(b, node, operands)
                self.name_unknown(node)
                results: list[Any] = [REFUSED] * len(outputs)
            else:
                results = self.results(node, operands)
        except UnsupportedOp as error:
            self.errors.append(error)
            self.name_unknown(node)
            results = [REFUSED] * len(outputs)
        except NgcError:
            raise
        except FAULTS as error:
            # A rule tripped over attributes or shapes that contradict each other.
            raise ModelError(f"{node.op_type} is malformed ({error})", where=where) from error
        if len(results) < len([v for v in outputs if v.name]):
            found = f"{node.op_type} has {len(results)} outputs, not {len(outputs)}"
            raise ModelError(found, where=where)
        for value, result in zip(outputs, results):
            self.env[value] = result

    def name_unknown(self, node: onnx_ir.Node) -> None:
        """Note the unsupported operators in the graphs of a refused node, which are not lowered."""
        b = self.builder
        seen = {error.where for error in self.errors}
        graphs = [a for a in node.attributes.values() if a.type == onnx_ir.AttributeType.GRAPH]
        known: set[onnx_ir.Value] = set()  # what the evaluator would take care of

        def is_known(value: onnx_ir.Value | None) -> bool:
            if value is None or value.is_initializer() or value in known:
                return True
            return isinstance(self.env.get(value), Known)

        for inner in (inner for a in graphs for inner in a.as_graph().all_nodes()):
            if not inner.domain and all(is_known(value) for value in inner.inputs):
                known.update(inner.outputs)
                continue
            where, opset = inner.name or inner.op_type, b.opsets.get(inner.domain, 1)
            if where not in seen and not find_rule(inner.domain, inner.op_type, opset):
                self.errors.append(unknown_operator(inner, opset, where))

    def results(self, node: onnx_ir.Node, operands: list[Any]) -> list[Any]:
        b = self.builder
        entry = find_rule(node.domain, node.op_type, b.opsets.get(node.domain, 1))
        if node.op_type in PRODUCTS:
            operands = self.with_states(operands)
        all_known = all(operand is None or isinstance(operand, Known) for operand in operands)
        has_body = any(a.type == onnx_ir.AttributeType.GRAPH for a in node.attributes.values())
        if entry and (entry.movement or not all_known):
            return lower_node(b, node, operands)
        # The evaluator is to be trusted with ONNX's own operators only.
        if all_known and not has_body and not node.domain and node.op_type not in RANDOM:
            return self.evaluate(node, operands)
        return lower_node(b, node, operands)

    def with_states(self, operands: list[Any]) -> list[Any]:
        """Zeros that meet a parameter are the initial state of a recurrent network that is written
        out. They become a value, so that its first step reads its parameters like all others."""
        b = self.builder
        if not any(b.is_parameter(operand) for operand in operands[:2]):
            return operands
        first = [b.value(o) if is_initial_state(o) else o for o in operands[:2]]
        return [*first, *operands[2:]]

    def evaluate(self, node: onnx_ir.Node, operands: Sequence[Known | None]) -> list[Any]:
        """Run one node on known operands."""
        b = self.builder
        proto = onnx_ir.to_proto(node)
        pairs = zip(proto.input, operands, strict=True)
        feeds = {name: o.array for name, o in pairs if name and o is not None}
        opsets = [onnx.helper.make_opsetid(d, v) for d, v in b.opsets.items()]
        afford_evaluation(proto, feeds, opsets, b.budget, b._origin)
        try:
            arrays = ReferenceEvaluator(_alone(proto, opsets), opsets=None).run(None, feeds)
        except NgcError:
            raise
        except Exception as error:  # the evaluator raises whatever numpy does
            raise UnsupportedOp(
                node.op_type, f"cannot evaluate it on constants ({error})", where=b._origin
            ) from error
        sources = tuple(dict.fromkeys(s for o in operands if o is not None for s in o.sources))
        results: list[Any] = []
        for name, array in zip([n for n in proto.output if n], arrays, strict=True):
            if isinstance(array, list):
                results.append([Known(np.asarray(a)) for a in array])
                continue
            array = widen(np.asarray(array))
            b.allocate(array.shape)
            if is_float(str(array.dtype)) and sources:
                results.append(b.parameter(name, array, derived=sources))
            else:
                codes = is_quantised(str(array.dtype))
                results.append(Known(array, sources=sources if codes else ()))
        named = iter(results)
        return [next(named) if n else None for n in proto.output]


def _alone(node: onnx.NodeProto, opsets: list[onnx.OperatorSetIdProto]) -> onnx.ModelProto:
    """A model of this one node. Types are left open: the evaluator does not read them."""
    empty = onnx.TypeProto()
    inputs = [onnx.helper.make_value_info(n, empty) for n in dict.fromkeys(node.input) if n]
    outputs = [onnx.helper.make_value_info(n, empty) for n in node.output if n]
    graph = onnx.helper.make_graph([node], "one", inputs, outputs)
    return onnx.helper.make_model(graph, opset_imports=opsets)
