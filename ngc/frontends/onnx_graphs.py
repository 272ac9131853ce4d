"""Structure of ONNX graphs: names, single assignment, order of nodes, attributes.

What has one obvious meaning is repaired in place (unnamed nodes, nodes out of order, ``ai.onnx``
for the default domain); all else is refused with the name of the node.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, MutableSequence
from functools import cache

import onnx
from onnx import AttributeProto, TensorProto

from ngc.budget import Budget
from ngc.errors import ModelError, UnsupportedOp, UnsupportedOps
from ngc.frontends.onnx_tensors import check_tensor, densify, type_name

# Field of an AttributeProto that each attribute type uses.
FIELDS = {
    AttributeProto.FLOAT: "f", AttributeProto.INT: "i", AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t", AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor", AttributeProto.TYPE_PROTO: "tp",
    AttributeProto.FLOATS: "floats", AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings", AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs", AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    AttributeProto.TYPE_PROTOS: "type_protos",
}  # fmt: skip
NEEDED = {AttributeProto.TENSOR, AttributeProto.GRAPH, AttributeProto.SPARSE_TENSOR}


class GraphCheck:
    """One check of a model: what the graphs of the model share."""

    def __init__(self, proto: onnx.ModelProto, opsets: dict[str, int], budget: Budget) -> None:
        self.opsets, self.budget = opsets, budget
        self.functions = {(_domain(f.domain), f.name) for f in proto.functions}
        self.num_nodes = self.num_elements = 0
        self.notes: list[str] = []
        self._node_names: set[str] = set()

    def model(self, proto: onnx.ModelProto) -> None:
        """Check the main graph and every function body."""
        _check_inputs(proto.graph, self.budget)
        if not proto.graph.output:
            raise ModelError("the graph has no outputs", where=f"graph {proto.graph.name}")
        self.graph(proto.graph, [])
        for function in proto.functions:
            self.function(function)

    def function(self, function: onnx.FunctionProto) -> None:
        where = f"function {function.name}"
        function.domain = _domain(function.domain)
        self._node_names = set()
        opsets, self.opsets = (
            self.opsets,
            {_domain(o.domain): o.version for o in function.opset_import},
        )
        inputs = _unique(function.input, "input", where)
        self.nodes(function, inputs, list(function.output), [], where)
        self.opsets = opsets

    def graph(self, graph: onnx.GraphProto, outer: list[set[str]]) -> set[str]:
        """Check one graph and those inside it. Returns the names it reads from outside."""
        where = f"graph {_text(graph.name, 'the name of a graph')}"
        for sparse in graph.sparse_initializer:
            name = f"initializer {_text(sparse.values.name, where)}"
            graph.initializer.append(densify(sparse, name, self.budget))
        graph.ClearField("sparse_initializer")
        _drop_repeated(graph.initializer)
        for tensor in graph.initializer:
            self.tensor(tensor, f"initializer {_text(tensor.name, where)}")
        initializers = _unique((t.name for t in graph.initializer), "initializer", where)
        inputs = _unique((v.name for v in graph.input), "input", where)
        _check_input_types(graph)
        _drop_map_types(graph)
        outputs = [_text(v.name, where) for v in graph.output]
        return self.nodes(graph, inputs | initializers, outputs, outer, where)

    def tensor(self, tensor: TensorProto, where: str) -> None:
        self.num_elements += check_tensor(tensor, where, self.budget)
        self.budget.afford_total(self.num_elements, what="the tensors of the model")

    def nodes(
        self,
        body: onnx.GraphProto | onnx.FunctionProto,
        given: set[str],
        outputs: list[str],
        outer: list[set[str]],
        where: str,
    ) -> set[str]:
        """Check and sort the nodes of a graph or function that starts from the ``given`` names."""
        self.num_nodes += len(body.node)
        self.budget.afford_nodes(self.num_nodes)
        writer: dict[str, int] = {}
        for k, node in enumerate(body.node):
            self._name(node, k, where)
            for name in node.output:
                if name in given or name in writer:
                    raise ModelError(f"value {name!r} is written twice", where=node.name)
                if _text(name, node.name):
                    writer[name] = k
        local = given | writer.keys()
        scopes = [*outer, local]
        reads = [self.node(node, scopes) for node in body.node]
        free: set[str] = set()
        for node, names in zip(body.node, reads):
            free |= _require(names, local, outer, node.name)
        free |= _require(set(outputs), local, outer, f"{where}, outputs")
        if len(set(outputs)) != len(outputs):
            raise ModelError("an output is listed twice", where=where)
        _sort(body, [{writer[n] for n in names if n in writer} for names in reads], where)
        return free

    def node(self, node: onnx.NodeProto, scopes: list[set[str]]) -> set[str]:
        """Check one node. Returns the names it reads, those read by its graphs included."""
        reads = {_text(name, node.name) for name in node.input} - {""}
        names = _unique((a.name for a in node.attribute), "attribute", node.name)
        for attribute in node.attribute:
            reads |= self.attribute(attribute, node, scopes)
        if (node.domain, node.op_type) in self.functions:
            return reads
        if node.domain == "" and "" not in self.opsets:
            raise ModelError(
                "the model imports no opset of the default domain",
                where=f"{node.name} ({node.op_type})",
            )
        schema = _schema(node.op_type, node.domain, self.opsets.get(node.domain, 1))
        if schema is not None:
            schema.check(node, names)
        return reads

    def attribute(
        self, attribute: AttributeProto, node: onnx.NodeProto, scopes: list[set[str]]
    ) -> set[str]:
        where = f"{node.name} ({node.op_type}), attribute {attribute.name}"
        if _text(attribute.ref_attr_name, where):
            return set()
        filled = [kind for kind, field in FIELDS.items() if _is_set(attribute, field)]
        if attribute.type == AttributeProto.UNDEFINED and len(filled) == 1:
            attribute.type = filled[0]  # writers of old files leave the type out
        wrong = [kind for kind in filled if kind != attribute.type]
        if wrong or attribute.type not in FIELDS or (attribute.type in NEEDED and not filled):
            kinds = ", ".join(AttributeProto.AttributeType.Name(kind) for kind in filled)
            declared = AttributeProto.AttributeType.Name(attribute.type)
            raise ModelError(f"declared as {declared}, holds {kinds or 'nothing'}", where=where)
        if attribute.type == AttributeProto.SPARSE_TENSOR and attribute.name == "sparse_value":
            attribute.t.CopyFrom(densify(attribute.sparse_tensor, where, self.budget))
            attribute.ClearField("sparse_tensor")
            attribute.name, attribute.type = "value", AttributeProto.TENSOR
        if attribute.type in (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS):
            raise UnsupportedOps([UnsupportedOp(node.op_type, "sparse tensors", where=where)])
        if attribute.type == AttributeProto.TENSOR:
            self.tensor(attribute.t, where)
        for tensor in attribute.tensors:
            self.tensor(tensor, where)
        free: set[str] = set()
        if attribute.type == AttributeProto.GRAPH:
            free |= self.graph(attribute.g, scopes)
        for graph in attribute.graphs:
            free |= self.graph(graph, scopes)
        return free

    def _name(self, node: onnx.NodeProto, k: int, where: str) -> None:
        """Give the node a name of its own."""
        if not _text(node.op_type, f"{where}, node {k}"):
            raise ModelError(f"node {k} has no operator", where=where)
        node.domain = _domain(_text(node.domain, f"{where}, node {k}"))
        base = _text(node.name, f"{where}, node {k}") or f"{node.op_type}_{k}"
        name, again = base, 1
        while name in self._node_names:
            name, again = f"{base}.{again}", again + 1
        self._node_names.add(name)
        if node.name != name:
            node.name = name


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _text(name: str, where: str) -> str:
    """The name; protobuf hands out bytes where it is not UTF-8."""
    if not isinstance(name, str):
        raise ModelError(f"name {name!r} is not UTF-8 text", where=where)
    return name


def _is_set(attribute: AttributeProto, field: str) -> bool:
    value = getattr(attribute, field)
    if field in ("f", "i", "s", "t", "g", "sparse_tensor", "tp"):
        return bool(attribute.HasField(field))
    return len(value) > 0


def _unique(names: Iterable[str], what: str, where: str) -> set[str]:
    seen: set[str] = set()
    for name in names:
        if not _text(name, where):
            raise ModelError(f"an {what} has no name", where=where)
        if name in seen:
            raise ModelError(f"{what} {name!r} is defined twice", where=where)
        seen.add(name)
    return seen


def _drop_repeated(initializers: MutableSequence[TensorProto]) -> None:
    """Of initializers that are equal to the last byte, name included, keep the first."""
    first: dict[str, int] = {}
    repeated = []
    for k, tensor in enumerate(initializers):
        before = first.setdefault(tensor.name, k)
        if before != k and initializers[before] == tensor:
            repeated.append(k)
    for k in reversed(repeated):
        del initializers[k]


def _require(names: set[str], local: set[str], outer: list[set[str]], where: str) -> set[str]:
    """The names that come from outside; each name must be written somewhere."""
    free = names - local
    for name in sorted(free):
        if not any(name in scope for scope in outer):
            raise ModelError(f"value {name!r} is read but nothing writes it", where=where)
    return free


def _check_inputs(graph: onnx.GraphProto, budget: Budget) -> None:
    """Inputs of the network must be tensors of sensible size."""
    weights = {tensor.name for tensor in graph.initializer}
    errors = []
    for value in graph.input:
        where = f"input {value.name}"
        kind = value.type.WhichOneof("value") or "tensor_type"
        if kind != "tensor_type":
            message = f"it is a {kind.removesuffix('_type')}, not a tensor"
            errors.append(UnsupportedOp("Input", message, where=where))
            continue
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value == -1:
                dim.ClearField("dim_value")  # some exporters write an unknown size so
            if dim.dim_value < 0:
                raise ModelError(f"size {dim.dim_value} of an axis is negative", where=where)
            _text(dim.dim_param, where)
        if value.name not in weights:
            sizes = [max(dim.dim_value, 1) for dim in value.type.tensor_type.shape.dim]
            budget.afford(sizes, where=where)
            if not value.type.tensor_type.HasField("elem_type"):
                raise ModelError("it has no type", where=where)
            type_name(value.type.tensor_type.elem_type, where)
    if errors:
        raise UnsupportedOps(errors)


def _drop_map_types(graph: onnx.GraphProto) -> None:
    """Maps, or sequences of them, come from operators that are refused by name when lowering;
    until then their types are left open, since onnx_ir cannot read them."""
    for value in (*graph.output, *graph.value_info):
        kind = value.type
        while kind.WhichOneof("value") in ("sequence_type", "optional_type"):
            kind = getattr(kind, str(kind.WhichOneof("value"))).elem_type
        if kind.WhichOneof("value") == "map_type":
            value.ClearField("type")


def _check_input_types(graph: onnx.GraphProto) -> None:
    """An input with an initializer must have the type of the initializer."""
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in graph.input:
        declared = value.type.tensor_type.elem_type
        if declared and types.get(value.name, declared) != declared:
            where = f"initializer {value.name}"
            a, b = type_name(declared, where), type_name(types[value.name], where)
            raise ModelError(f"its input is declared {a}, its data are {b}", where=where)


def _sort(body: onnx.GraphProto | onnx.FunctionProto, needs: list[set[int]], where: str) -> None:
    """Put nodes after those they read; the order stays as it is where it can."""
    if all(max(before, default=-1) < k for k, before in enumerate(needs)):
        return
    readers: dict[int, list[int]] = {}
    waiting = [len(before) for before in needs]
    for k, before in enumerate(needs):
        for p in before:
            readers.setdefault(p, []).append(k)
    ready = [k for k, count in enumerate(waiting) if count == 0]
    order = []
    while ready:
        k = heapq.heappop(ready)
        order.append(k)
        for reader in readers.get(k, ()):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(needs):
        stuck = [body.node[k].name for k, count in enumerate(waiting) if count]
        names = ", ".join(stuck[:5]) + (", ..." if len(stuck) > 5 else "")
        raise ModelError(f"nodes wait for each other in a cycle: {names}", where=where)
    nodes = [body.node[k] for k in order]
    copies = []
    for node in nodes:
        copies.append(onnx.NodeProto())
        copies[-1].CopyFrom(node)
    del body.node[:]
    body.node.extend(copies)


class Signature:
    """What the ONNX standard says about calls of one operator, read once: schemas are slow."""

    def __init__(self, schema: onnx.defs.OpSchema) -> None:
        self.inputs = (schema.min_input, schema.max_input)
        self.outputs = (schema.min_output, schema.max_output)
        types = {name: a.type.name for name, a in schema.attributes.items()}  # type: ignore[attr-defined]
        self.types = {n: AttributeProto.AttributeType.Value(kind) for n, kind in types.items()}
        self.required = {name for name, a in schema.attributes.items() if a.required}

    def check(self, node: onnx.NodeProto, attributes: set[str]) -> None:
        where = f"{node.name} ({node.op_type})"
        missing = sorted(self.required - attributes)
        if missing:
            raise ModelError(f"attribute {missing[0]} is missing", where=where)
        for attribute in node.attribute:
            wanted = self.types.get(attribute.name)
            if wanted is not None and attribute.type != wanted and not attribute.ref_attr_name:
                kinds = AttributeProto.AttributeType
                a, b = kinds.Name(attribute.type), kinds.Name(wanted)
                raise ModelError(f"attribute {attribute.name} is {a}, must be {b}", where=where)
        for what, names, (low, high) in (
            ("inputs", list(node.input), self.inputs),
            ("outputs", list(node.output), self.outputs),
        ):
            if not low <= len(names) <= high:
                raise ModelError(f"it has {len(names)} {what}, needs {low} to {high}", where=where)


@cache
def _schema(op_type: str, domain: str, opset: int) -> Signature | None:
    try:
        return Signature(onnx.defs.get_schema(op_type, opset, domain))
    except onnx.defs.SchemaError:
        return None
