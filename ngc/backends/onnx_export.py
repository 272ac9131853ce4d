"""Weights back into ONNX: a skeleton of the source model, and filling it.

The skeleton is the source without the data of its parameters. A parameter lives in one of three
places:

- in a tensor of the model (an initializer, or the value of a Constant node): emptied in the
  skeleton and written back, bit for bit, in its stored type;
- in the output of nodes that compute it from constants (ConstantOfShape, DequantizeLinear,
  arithmetic on initializers): while its value is what they compute, they stay as they are, so
  that the network gives the same outputs to the last bit; another value replaces them by an
  initializer of that name;
- nowhere (ngc computed it itself, from quantised weights, say): it cannot be given another value.

What the last two need to know (digests of the original values) is kept in the skeleton's metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ngc.errors import LiftError, ModelError
from ngc.ir.program import Param

METADATA = "ngc.skeleton"


@dataclass(frozen=True)
class Computed:
    """A parameter that is no tensor of the model. ``type`` is its ONNX element type, 0 where no
    node computes it; ``sources`` are the digests of the emptied tensors its nodes read."""

    digest: str
    type: int
    sources: dict[str, str]


def make_skeleton(
    proto: onnx.ModelProto, params: Sequence[Param], arrays: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """The model without the data of the parameters. ``arrays`` are their values there."""
    names = {param.name for param in params}
    places = _places(proto.graph)
    emptied = {name for name in names if len(places.get(name, ())) == 1}
    skeleton = without_data(proto, emptied)
    rest = sorted(names - emptied)
    computed = {}
    if rest:
        types = _types(skeleton)
        writers = {name: node for name, node, _ in _writers(skeleton.graph)}
        repeated = {name for body in _bodies(skeleton.graph) for name in _outputs(body)}
        tensors = {tensor.name for tensor in skeleton.graph.initializer}
        inputs = {value.name for value in skeleton.graph.input} - tensors
        digests = {name: digest_of(arrays[name]) for name in rest}
        for name in rest:
            ancestors = _ancestors(name, writers)
            sources = ancestors & emptied
            known = {source: digest_of(arrays[source]) for source in sorted(sources)}
            kind = types.get(name) or helper.np_dtype_to_tensor_dtype(arrays[name].dtype)
            # What the model computes from its input too (a scale found at run time) stays with
            # the nodes that compute it; so does what the body of a loop computes anew each time.
            is_written = name in writers and name not in places and not ancestors & inputs
            is_written &= name not in repeated
            computed[name] = Computed(digests[name], kind if is_written else 0, known)
    content = {"emptied": sorted(emptied), "computed": {n: asdict(c) for n, c in computed.items()}}
    skeleton.metadata_props.add(key=METADATA, value=json.dumps(content, sort_keys=True))
    return skeleton


def fill_skeleton(skeleton: onnx.ModelProto, arrays: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model with these parameter values."""
    emptied, computed = _read(skeleton)
    missing = sorted((emptied | computed.keys()) - arrays.keys())
    if missing:
        raise LiftError(f"no value for {', '.join(missing[:5])}", where=missing[0])
    model = onnx.ModelProto()
    model.CopyFrom(skeleton)
    for k, entry in enumerate(model.metadata_props):
        if entry.key == METADATA:
            del model.metadata_props[k]
            break
    digests: dict[str, str] = {}

    def changed(name: str, digest: str) -> bool:
        if name not in digests:
            digests[name] = digest_of(arrays[name])
        return digests[name] != digest

    replaced = []
    for name, one in computed.items():
        own = changed(name, one.digest)
        if own and one.type == 0:
            raise LiftError(
                "its value has changed, and the model has no tensor to keep it in: it was computed "
                "from quantised weights, or inside a loop",
                where=name,
            )
        if own or (one.type and any(changed(s, digest) for s, digest in one.sources.items())):
            replaced.append(name)
    places = _places(model.graph)
    for name in emptied:
        _write(places[name][0], arrays[name], name)
    if replaced:
        _replace(model, {name: (arrays[name], computed[name].type) for name in replaced})
    return model


def with_tensors(proto: onnx.ModelProto, arrays: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """A copy in which these initializers have other values, in the types they are stored in."""
    result = without_data(proto, set(arrays))
    for tensor in result.graph.initializer:
        if tensor.name in arrays:
            _write(tensor, arrays[tensor.name].reshape(tuple(tensor.dims)), tensor.name)
    return result


def fixed_parameters(skeleton: onnx.ModelProto) -> frozenset[str]:
    """Parameters that ``fill_skeleton`` accepts with their original value only."""
    return frozenset(name for name, one in _read(skeleton)[1].items() if one.type == 0)


def without_data(proto: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """A copy in which the named initializers and Constants keep type and dims only."""
    result, graph = onnx.ModelProto(), proto.graph
    _copy_fields(proto, result, but="graph")
    _copy_fields(graph, result.graph, but="initializer")
    for tensor in graph.initializer:
        copy = result.graph.initializer.add()
        if tensor.name in names:
            copy.name, copy.data_type = tensor.name, tensor.data_type
            copy.dims.extend(tensor.dims)
        else:
            copy.CopyFrom(tensor)
    for name, tensors in _places(result.graph).items():
        if name in names:
            for tensor in tensors:
                _empty(tensor)
    return result


def _copy_fields(
    source: onnx.ModelProto | onnx.GraphProto, target: onnx.ModelProto | onnx.GraphProto, but: str
) -> None:
    for field, value in source.ListFields():
        if field.name == but:
            continue
        if hasattr(value, "ListFields"):
            getattr(target, field.name).CopyFrom(value)
        elif isinstance(value, str | int | bytes):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).MergeFrom(value)


def _read(skeleton: onnx.ModelProto) -> tuple[set[str], dict[str, Computed]]:
    for entry in skeleton.metadata_props:
        if entry.key == METADATA:
            content = json.loads(entry.value)
            computed = {name: Computed(**one) for name, one in content["computed"].items()}
            return set(content["emptied"]), computed
    raise ModelError("this model is no skeleton")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)


def _bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The bodies of loops."""
    for inner in _graphs(graph):
        for node in inner.node:
            if node.op_type in ("Loop", "Scan"):
                yield from (attribute.g for attribute in node.attribute if attribute.HasField("g"))


def _outputs(graph: onnx.GraphProto) -> Iterator[str]:
    """What nodes of the graph, and of those inside it, compute."""
    for inner in _graphs(graph):
        for node in inner.node:
            yield from node.output


def _places(graph: onnx.GraphProto) -> dict[str, list[TensorProto]]:
    """Tensors of the model by the name of the value they are."""
    places: dict[str, list[TensorProto]] = {}
    for inner in _graphs(graph):
        for tensor in inner.initializer:
            places.setdefault(tensor.name, []).append(tensor)
        for node in inner.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                places.setdefault(node.output[0], []).append(node.attribute[0].t)
    return places


def _writers(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.NodeProto, onnx.GraphProto]]:
    """(value, node that writes it, graph of the node), where only one node writes that name."""
    found: dict[str, list[tuple[str, onnx.NodeProto, onnx.GraphProto]]] = {}
    for inner in _graphs(graph):
        for node in inner.node:
            for name in node.output:
                found.setdefault(name, []).append((name, node, inner))
    for name, writers in found.items():
        if name and len(writers) == 1:
            yield writers[0]


def _ancestors(name: str, writers: Mapping[str, onnx.NodeProto]) -> set[str]:
    """Names of all values that the value is computed from."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        node = writers.get(waiting.pop())
        for read in node.input if node is not None else ():
            if read and read not in seen:
                seen.add(read)
                waiting.append(read)
    return seen


def _types(skeleton: onnx.ModelProto) -> dict[str, int]:
    """Element types of values, as far as ONNX can tell them."""
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return {}
    return {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}


def digest_of(array: np.ndarray) -> str:
    """Of the bytes, row-major. Slice by slice: a broadcast array is not written out."""
    digest = hashlib.sha256(repr((array.shape, str(array.dtype))).encode())
    rows = array if array.ndim else array.reshape(1)
    step = max(1, (1 << 22) // max(1, rows[:1].size))
    for start in range(0, len(rows), step):
        part = np.ascontiguousarray(rows[start : start + step])
        digest.update(part.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _empty(tensor: TensorProto) -> None:
    for field, _ in tensor.ListFields():
        if field.name not in ("name", "data_type", "dims"):
            tensor.ClearField(field.name)


def _write(tensor: TensorProto, array: np.ndarray, name: str) -> None:
    """Data into an emptied tensor, in the type it is stored in there."""
    if tuple(array.shape) != tuple(tensor.dims):
        raise LiftError(
            f"a value of shape {list(array.shape)}, the model has {list(tensor.dims)}", where=name
        )
    stored = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    data = numpy_helper.from_array(np.ascontiguousarray(array.astype(stored, copy=False)))
    tensor.raw_data = data.raw_data


def _replace(model: onnx.ModelProto, values: Mapping[str, tuple[np.ndarray, int]]) -> None:
    """Initializers in place of node outputs; nodes that nothing reads any more go."""
    writers = {name: (node, graph) for name, node, graph in _writers(model.graph)}
    ancestors = set(values)
    for name in values:
        ancestors |= _ancestors(name, {value: node for value, (node, _) in writers.items()})
    for name, (array, kind) in values.items():
        node, graph = writers[name]
        tensor = graph.initializer.add(name=name, data_type=kind, dims=array.shape)
        _write(tensor, array, name)
        if model.ir_version < 4 and graph is model.graph:
            info = helper.make_tensor_value_info(name, kind, array.shape)
            graph.input.append(info)  # IR version 3 lists initializers among the inputs
        outputs = list(node.output)
        outputs[outputs.index(name)] = f"{name}.replaced"
        node.output[:] = outputs
    gone = {f"{name}.replaced" for name in values} | ancestors
    while _drop_unread(model, gone):
        pass


def _drop_unread(model: onnx.ModelProto, names: set[str]) -> bool:
    """Drop the nodes, initializers and their inputs among ``names`` that nothing reads."""
    reads: set[str] = set()
    for graph in _graphs(model.graph):
        reads.update(value.name for value in graph.output)
        for node in graph.node:
            reads.update(node.input)
    dropped = False
    for graph in _graphs(model.graph):
        for k in reversed(range(len(graph.node))):
            outputs = set(graph.node[k].output) - {""}
            if outputs <= names and not outputs & reads:
                del graph.node[k]
                dropped = True
    unread = [t.name for t in model.graph.initializer if t.name in names and t.name not in reads]
    _drop_named(model.graph.initializer, unread)
    _drop_named(model.graph.input, unread)
    return dropped


def _drop_named(items: object, names: Iterable[str]) -> None:
    """Delete the entries of a repeated field that have one of the names."""
    gone = set(names)
    for k in reversed(range(len(items))):  # type: ignore[arg-type]
        if items[k].name in gone:  # type: ignore[index]
            del items[k]  # type: ignore[attr-defined]
