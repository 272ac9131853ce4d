"""Broken ONNX files, made by damaging good ones in every way we can think of."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

ABSURD = (-1, -(2**31), 0, 1, 3, 7, 2**16, 2**28, 2**31, 2**40, 2**62, 2**63 - 1)
OPERATORS = (
    "Add", "AveragePool", "BatchNormalization", "Cast", "Concat", "ConstantOfShape", "Conv",
    "ConvTranspose", "Einsum", "Expand", "Flatten", "Gather", "Gemm", "GroupNormalization", "If",
    "Loop", "MatMul", "MaxPool", "OneHot", "Pad", "Range", "ReduceSum", "Reshape", "Resize",
    "Slice", "Softmax", "Split", "Tile", "TopK", "Transpose", "Unsqueeze", "Where", "NoSuchOp",
)  # fmt: skip


def seeds() -> list[onnx.ModelProto]:
    """Good models: the small ones that ship with onnx, and some with what those lack."""
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    paths = [p for p in sorted(data.glob("*/*/model.onnx")) if p.stat().st_size < 200_000]
    light = [data / "light" / f"light_{n}.onnx" for n in ("squeezenet", "shufflenet")]
    return [onnx.load(p) for p in (*paths, *light)] + [_shapes(), _control(), _functions()]


def _model(text: str, opset: int = 17) -> onnx.ModelProto:
    imports = f'<ir_version: 8, opset_import: ["": {opset}, "f": 1]>'
    return parser.parse_model(f"{imports} {text}")


def _shapes() -> onnx.ModelProto:
    """Constants computed from constants, all data movement that can blow up."""
    model = _model("""g (float[1,4] x) => (float[1,4] y) {
        n = Constant<value = int64[2] {4, 3}>()
        w = ConstantOfShape<value = float[1] {0.5}>(n)
        t = Constant<value = int64[2] {1, 2}>()
        u = Tile(w, t)
        e = Constant<value = int64[2] {4, 6}>()
        v = Expand(u, e)
        q = Constant<value = int64[4] {0, 0, 1, 1}>()
        p = Pad(v, q)
        a = Constant<value = int64 {0}>()
        l = Constant<value = int64 {4}>()
        d = Constant<value = int64 {1}>()
        r = Range(a, l, d)
        s = Gather(p, r)
        z = MatMul(x, s)
        i = Constant<value = int64[2] {0, 4}>()
        k = Constant<value = int64[1] {4}>()
        j = Constant<value = int64[1] {0}>()
        m = Constant<value = int64[1] {1}>()
        y = Slice(z, j, k, m)
    }""")
    return model


def _control() -> onnx.ModelProto:
    model = _model("g (float[1,4] x) => (float[1,4] y) { }")
    body = parser.parse_graph(
        "b (int64 i, bool c, float[1,4] h) => (bool d, float[1,4] k) "
        "{ d = Identity(c) m = MatMul(h, w) k = Tanh(m) }"
    )
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")
    model.graph.initializer.append(weight)
    model.graph.initializer.append(numpy_helper.from_array(np.array(3), "trips"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
    model.graph.node.append(helper.make_node("Loop", ["trips", "go", "x"], ["y"], body=body))
    return model


def _functions() -> onnx.ModelProto:
    model = _model("""g (float[1,4] x) => (float[1,4] y) { y = f.Twice(x) }
        <domain: "f", opset_import: ["": 17, "f": 1]>
        Twice (a) => (b) { c = f.Once(a) b = f.Once(c) }
        <domain: "f", opset_import: ["": 17]>
        Once (a) => (b) { k = Constant<value = float[4] {1.0, 2.0, 3.0, 4.0}>() b = Mul(a, k) }""")
    sparse = model.graph.sparse_initializer.add(dims=[1, 4])
    sparse.values.CopyFrom(numpy_helper.from_array(np.array([5.0], np.float32), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([2]), "at"))
    return model


def broken_files(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """(what was done, the file), every kind of damage in turn."""
    rng = random.Random(seed)
    models = seeds()
    kinds = list(BYTES) + list(FIELDS)
    for k in range(count):
        kind = kinds[k % len(kinds)]
        model = rng.choice(models)
        if kind in BYTES:
            yield kind, BYTES[kind](bytearray(model.SerializeToString()), rng)
            continue
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        for _ in range(rng.choice((1, 1, 1, 3))):
            FIELDS[kind](copy, rng)
        yield kind, copy.SerializeToString()


# --- damage to bytes ----------------------------------------------------------------------------


def _truncate(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data))])


def _flip(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _overwrite(data: bytearray, rng: random.Random) -> bytes:
    start, size = rng.randrange(len(data)), rng.randrange(1, 32)
    data[start : start + size] = rng.randbytes(rng.randrange(32))
    return bytes(data)


def _repeat(data: bytearray, rng: random.Random) -> bytes:
    """The file twice over: protobuf merges the two."""
    return bytes(data + data[: rng.choice((len(data), rng.randrange(len(data))))])


BYTES: dict[str, Callable[[bytearray, random.Random], bytes]] = {
    "truncated": _truncate, "bits flipped": _flip, "overwritten": _overwrite, "repeated": _repeat,
}  # fmt: skip


# --- damage to fields ---------------------------------------------------------------------------


def _tensors(model: onnx.ModelProto) -> list[TensorProto]:
    found = list(model.graph.initializer)
    for node in (*model.graph.node, *(n for f in model.functions for n in f.node)):
        found += [a.t for a in node.attribute if a.HasField("t")]
    return found or [model.graph.initializer.add(name="spare", data_type=1, dims=[0])]


def _values(model: onnx.ModelProto) -> list[str]:
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    return names + [v.name for v in model.graph.input] + ["", "no such value"]


def _dims(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(_tensors(model))
    if tensor.dims and rng.random() < 0.7:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(ABSURD)
    else:
        tensor.dims.append(rng.choice(ABSURD))


def _input_dims(model: onnx.ModelProto, rng: random.Random) -> None:
    value = rng.choice([*model.graph.input, *model.graph.output])
    dims = value.type.tensor_type.shape.dim
    if not dims or rng.random() < 0.3:
        dims.add(dim_value=rng.choice(ABSURD))
    elif rng.random() < 0.2:
        dims[rng.randrange(len(dims))].dim_param = rng.choice(("N", "", "x" * 99))
    else:
        dims[rng.randrange(len(dims))].dim_value = rng.choice(ABSURD)


def _shape_values(model: onnx.ModelProto, rng: random.Random) -> None:
    """Absurd numbers where shapes, axes, repeats and trip counts stand."""
    integers = [t for t in _tensors(model) if t.data_type == TensorProto.INT64 and all(t.dims)]
    if not integers:
        return _attributes(model, rng)
    tensor = rng.choice(integers)
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[rng.randrange(array.size)] = rng.choice(ABSURD)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return None


def _attributes(model: onnx.ModelProto, rng: random.Random) -> None:
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return _operator(model, rng)
    node = rng.choice(nodes)
    attribute = rng.choice(node.attribute)
    match rng.randrange(5):
        case 0:
            node.attribute.remove(attribute)
        case 1:
            attribute.type = rng.randrange(15)
        case 2 if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(ABSURD)
        case 3 if attribute.ints:
            attribute.ints.append(rng.choice(ABSURD))
        case _:
            attribute.i, attribute.type = rng.choice(ABSURD), onnx.AttributeProto.INT
            attribute.ClearField("t")
            attribute.ClearField("ints")
    return None


def _cycle(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.node:
        k = rng.randrange(len(model.graph.node))
        node, later = model.graph.node[k], rng.choice(model.graph.node[k:])
        if node.input and later.output:
            node.input[rng.randrange(len(node.input))] = rng.choice(later.output)


def _rewire(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node) if model.graph.node else model.graph.node.add()
    names = _values(model)
    if node.input and rng.random() < 0.6:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif node.output and rng.random() < 0.5:
        node.output[rng.randrange(len(node.output))] = rng.choice(names)
    elif node.input and rng.random() < 0.5:
        node.input.pop()
    else:
        node.input.append(rng.choice(names))


def _missing(model: onnx.ModelProto, rng: random.Random) -> None:
    lists = (
        model.graph.initializer, model.graph.node, model.graph.input, model.graph.output,
        model.opset_import, model.functions,
    )  # fmt: skip
    field = rng.choice([field for field in lists if len(field)])
    del field[rng.randrange(len(field))]


def _types(model: onnx.ModelProto, rng: random.Random) -> None:
    kind = rng.choice((0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 14, 16, 17, 22, 23, 26, 99))
    if rng.random() < 0.5:
        rng.choice(_tensors(model)).data_type = kind
    elif model.graph.input:
        rng.choice(model.graph.input).type.tensor_type.elem_type = kind


def _data(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(_tensors(model))
    match rng.randrange(4):
        case 0:
            tensor.raw_data = tensor.raw_data[:-1]
        case 1:
            tensor.float_data.append(1.0)
        case 2:
            tensor.int32_data.append(2**31 - 1)
        case 3:
            tensor.string_data.append(b"\xff")


def _external(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(_tensors(model))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    location = rng.choice(("../secret", "/etc/passwd", "none", "", ".", "a\0b", "C:\\x", "..\\x"))
    tensor.external_data.add(key="location", value=location)
    if rng.random() < 0.3:
        tensor.external_data.add(
            key="offset", value=rng.choice(("-1", "x", "99999999999999999999"))
        )


def _operator(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.node:
        rng.choice(model.graph.node).op_type = rng.choice(OPERATORS)


def _versions(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.opset_import and rng.random() < 0.8:
        model.opset_import[0].version = rng.choice((*range(5, 26), *ABSURD))
    else:
        model.ir_version = rng.choice(ABSURD)


def _names(model: onnx.ModelProto, rng: random.Random) -> None:
    name = rng.choice(("", "x", "y", "a/b:c d", "%", "\n", "é", "n" * 10_000))
    node = rng.choice(model.graph.node) if model.graph.node else model.graph.node.add()
    node.name = name
    rng.choice(_tensors(model)).name = name


FIELDS: dict[str, Callable[[onnx.ModelProto, random.Random], None]] = {
    "dims": _dims, "input dims": _input_dims, "shape values": _shape_values,
    "attributes": _attributes, "cycle": _cycle, "rewired": _rewire, "missing": _missing,
    "types": _types, "data": _data, "external": _external, "operator": _operator,
    "versions": _versions, "names": _names,
}  # fmt: skip
