"""What is loaded, what is repaired, and what is refused with which words."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from ngc.budget import Budget
from ngc.errors import BudgetError, ModelError, NgcError, UnsupportedOps
from ngc.frontends.onnx import load
from ngc.passes.lower.driver import lower

W = np.arange(6, dtype=np.float32).reshape(2, 3)


def model(
    body: str = "y = MatMul(x, w)", *, head: str = "g (float[1,2] x) => (float[1,3] y)"
) -> onnx.ModelProto:
    graph = parser.parse_graph(f"{head} {{ {body} }}")
    graph.initializer.append(numpy_helper.from_array(W, "w"))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def initializer(source: onnx.ModelProto, name: str = "w") -> np.ndarray:
    (found,) = (t for t in source.graph.initializer if t.name == name)
    return numpy_helper.to_array(found)


# --- what is read -------------------------------------------------------------------------------


def test_path_bytes_proto_and_ir_give_the_same_source(tmp_path: Path) -> None:
    proto = model()
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    given = (path, str(path), path.read_bytes(), proto, onnx_ir.from_proto(proto))
    for source in (load(one) for one in given):
        assert source.name == "g"
        assert source.proto.graph.node == load(path).proto.graph.node
        np.testing.assert_array_equal(initializer(source.proto), W)
    assert [node.op_type for node in load(path).model.graph] == ["MatMul"]


def test_the_model_given_is_not_changed() -> None:
    proto = model("y = Identity(p) p = MatMul(x, w)")
    before = proto.SerializeToString()
    load(proto)
    assert proto.SerializeToString() == before


def test_unnamed_and_equally_named_nodes_get_stable_names() -> None:
    proto = model("a = MatMul(x, w) b = Relu(a) c = Relu(b) y = Relu(c)")
    proto.graph.node[2].name = proto.graph.node[3].name = "act"
    names = [node.name for node in load(proto).proto.graph.node]
    assert names == ["MatMul_0", "Relu_1", "act", "act.1"]


def test_nodes_out_of_order_are_sorted_and_the_rest_keeps_its_order() -> None:
    proto = model("y = Add(a, b) b = Neg(p) a = Relu(p) p = MatMul(x, w)")
    ops = [node.op_type for node in load(proto).proto.graph.node]
    assert ops == ["MatMul", "Neg", "Relu", "Add"]


def test_a_branch_that_reads_a_later_node_counts_as_a_read() -> None:
    branches = [parser.parse_graph(f"b () => (float[1,3] t{k}) {{ t{k} = Relu(p) }}") for k in "01"]
    proto = model("p = MatMul(x, w)")
    node = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    proto.graph.node.insert(0, node)
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    assert [node.op_type for node in load(proto).proto.graph.node] == ["MatMul", "If"]


def test_sparse_initializers_become_dense() -> None:
    for indices in ([1, 5], [[0, 1], [1, 2]]):
        proto = model()
        del proto.graph.initializer[:]
        sparse = proto.graph.sparse_initializer.add(dims=[2, 3])
        sparse.values.CopyFrom(numpy_helper.from_array(np.array([7, 8], np.float32), "w"))
        sparse.indices.CopyFrom(numpy_helper.from_array(np.array(indices), "i"))
        np.testing.assert_array_equal(initializer(load(proto).proto), [[0, 7, 0], [0, 0, 8]])


def test_an_initializer_listed_twice_alike_is_one() -> None:
    proto = model()
    proto.graph.initializer.append(proto.graph.initializer[0])
    assert len(load(proto).proto.graph.initializer) == 1


def test_weights_among_the_inputs_are_weights() -> None:
    proto = model()
    proto.ir_version = 3
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 3]))
    assert list(load(proto).model.graph.initializers) == ["w"]


def test_ai_onnx_is_the_default_domain() -> None:
    proto = model()
    proto.opset_import[0].domain = proto.graph.node[0].domain = "ai.onnx"
    assert load(proto).model.opset_imports == {"": 17}


# --- external data ------------------------------------------------------------------------------


def external(folder: Path, location: str = "w.bin", **entries: int) -> Path:
    proto = model()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    folder.mkdir(exist_ok=True)
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    return folder / "net.onnx"


def test_external_data_are_read_from_the_folder_of_the_model(tmp_path: Path) -> None:
    path = external(tmp_path, "sub/w.bin", offset=8, length=24)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(bytes(8) + W.tobytes())
    source = load(path)
    np.testing.assert_array_equal(initializer(source.proto), W)
    assert source.notes == ("read 1 tensors from external data",)
    np.testing.assert_array_equal(initializer(load(onnx_ir.load(path)).proto), W)


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/passwd", "sub/../../w.bin", "C:\\w.bin", "..\\w.bin", "link", ""]
)
def test_external_data_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "w.bin").write_bytes(W.tobytes())
    path = external(tmp_path / "model", location)
    (tmp_path / "model" / "sub").mkdir()
    (tmp_path / "model" / "link").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ModelError, match=r"initializer w: .* outside the model's folder"):
        load(path)


def test_external_data_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(W.tobytes()[:-1])
    with pytest.raises(ModelError, match=r"w\.bin has 23 bytes, 24 are needed"):
        load(external(tmp_path))
    with pytest.raises(ModelError, match=r"23 bytes at offset 0 of w\.bin: the tensor needs 24"):
        load(external(tmp_path, length=23))
    with pytest.raises(ModelError, match="cannot read"):
        load(external(tmp_path, "none.bin"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="not a regular file"):
        load(external(tmp_path, "pipe"))


def test_external_data_without_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="pass the path of the model"):
        load(external(tmp_path).read_bytes())


# --- what is refused ----------------------------------------------------------------------------


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    whole = model().SerializeToString()
    for data, words in ((b"", "no graph"), (b"PK\x03\x04 zip", "damaged"), (whole[:-3], "damaged")):
        with pytest.raises(ModelError, match=words):
            load(data)
    for path, words in ((tmp_path, "not a regular file|directory"), (tmp_path / "no", "No such")):
        with pytest.raises(ModelError, match=words):
            load(path)


def clear_opset(proto: onnx.ModelProto) -> None:
    del proto.opset_import[:]


def set_opset(version: int) -> Callable[[onnx.ModelProto], None]:
    return lambda proto: setattr(proto.opset_import[0], "version", version)


def tensor_of(**fields: object) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        for name, value in fields.items():
            if name == "dims":
                proto.graph.initializer[0].dims[:] = value  # type: ignore[call-overload]
            else:
                setattr(proto.graph.initializer[0], name, value)

    return change


def attribute(**fields: object) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.node[0].op_type = "Gemm"
        proto.graph.node[0].attribute.add(**fields)

    return change


FAULTS: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "old IR": (lambda m: setattr(m, "ir_version", 2), "IR version 2; ngc reads 3 to"),
    "no opset": (clear_opset, "imports no opset"),
    "old opset": (set_opset(5), "opset 5; ngc reads 6 to 24"),
    "new opset": (set_opset(25), "opset 25; ngc reads 6 to 24"),
    "two opsets": (lambda m: m.opset_import.add(domain="", version=9), "two versions of opset"),
    "no outputs": (lambda m: m.graph.ClearField("output"), "no outputs"),
    "no such value": (
        lambda m: m.graph.node[0].input.__setitem__(1, "v"),
        r"MatMul_0: value 'v' is read but nothing writes it",
    ),
    "no such output": (lambda m: setattr(m.graph.output[0], "name", "z"), "'z' is read but"),
    "missing initializer": (lambda m: m.graph.ClearField("initializer"), "'w' is read but"),
    "two writers": (
        lambda m: m.graph.node.append(m.graph.node[0]), "MatMul_1: value 'y' is written twice",
    ),
    "an input is written": (
        lambda m: m.graph.node[0].output.__setitem__(0, "x"), "value 'x' is written twice",
    ),
    "two initializers": (
        lambda m: m.graph.initializer.add(name="w", data_type=1, dims=[0]), "'w' is defined twice",
    ),
    "no operator": (lambda m: setattr(m.graph.node[0], "op_type", ""), "no operator"),
    "an operand too few": (lambda m: m.graph.node[0].input.pop(), "has 1 inputs, needs 2 to 2"),
    "unnamed initializer": (lambda m: setattr(m.graph.initializer[0], "name", ""), "has no name"),
    "negative dims": (tensor_of(dims=[-2, 3]), r"initializer w: dims \[-2, 3\] are negative"),
    "data too short": (tensor_of(dims=[2, 4]), "needs 32 bytes, has 24"),
    "no such type": (tensor_of(data_type=99), "99 is not an element type"),
    "no type": (tensor_of(data_type=0), "0 is not an element type"),
    "string as raw data": (tensor_of(data_type=8), "raw data and typed data"),
    "input of another type": (
        lambda m: m.graph.input.append(helper.make_tensor_value_info("w", 7, [2, 3])),
        "its input is declared INT64, its data are FLOAT",
    ),
    "input without a type": (lambda m: m.graph.input[0].ClearField("type"), "it has no type"),
    "attribute of no type": (attribute(name="alpha"), "declared as UNDEFINED, holds nothing"),
    "attribute of two types": (attribute(name="alpha", f=1, i=2, type=1), "holds FLOAT, INT"),
    "attribute of a wrong type": (attribute(name="alpha", i=2, type=2), "alpha is INT, must be F"),
    "a negative input": (
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", -7),
        "size -7 of an axis is negative",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_model_is_refused_with_the_reason(fault: str) -> None:
    proto = model()
    change, words = FAULTS[fault]
    change(proto)
    with pytest.raises(ModelError, match=words):
        load(proto)


def test_a_cycle_names_its_nodes() -> None:
    with pytest.raises(ModelError, match=r"cycle: Relu_0, Neg_1"):
        load(model("y = Relu(a) a = Neg(y)"))


def test_a_name_that_is_no_text_is_refused() -> None:
    data = model().SerializeToString().replace(b"MatMul", b"Mat\xfful")
    with pytest.raises(ModelError, match="not UTF-8"):
        load(data)


def test_inputs_that_are_no_tensors_are_named_as_unsupported() -> None:
    proto = model("y = SequenceAt(x, w)", head="g (seq(float[1,2]) x) => (float[1,3] y)")
    with pytest.raises(UnsupportedOps, match="input x: it is a sequence, not a tensor"):
        load(proto)


def test_a_function_that_calls_itself_is_refused() -> None:
    text = """<ir_version: 8, opset_import: ["": 17, "f": 1]>
        g (float[2] x) => (float[2] y) { y = f.F(x) }
        <domain: "f", opset_import: ["": 17, "f": 1]> F (a) => (b) { b = f.F(a) }"""
    with pytest.raises(ModelError, match="function F: it calls itself"):
        load(parser.parse_model(text))


# --- budget -------------------------------------------------------------------------------------


def test_absurd_dims_are_refused_before_anything_is_allocated() -> None:
    proto = model()
    proto.graph.initializer[0].dims[:] = [2**40, 2**20]
    with pytest.raises(BudgetError, match=r"initializer w: .* over the budget of 268,435,456"):
        load(proto)
    proto = model()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**62
    with pytest.raises(BudgetError, match="input x"):
        load(proto)


def test_tensors_are_counted_together() -> None:
    proto = model("p = Add(w, v) y = MatMul(x, p)")
    proto.graph.initializer.append(numpy_helper.from_array(W, "v"))
    load(proto, budget=Budget(max_elements=12))
    with pytest.raises(BudgetError, match="the tensors of the model hold 12 entries"):
        load(proto, budget=Budget(max_elements=11))


def test_large_files_are_refused_by_their_size(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(model().SerializeToString())
    for source in (path, path.read_bytes()):
        with pytest.raises(BudgetError, match="max_file_bytes"):
            load(source, budget=Budget(max_file_bytes=50))


def test_functions_that_double_at_each_level_are_refused() -> None:
    """Forty functions, each calling the next twice: 2^40 nodes once inlined."""
    names = [f"F{k}" for k in range(40)]
    functions = [
        f'<domain: "f", opset_import: ["": 17, "f": 1]> '
        f"{name} (a) => (b) {{ c = f.{inner}(a) b = f.{inner}(c) }}"
        for name, inner in pairwise(names)
    ]
    last = '<domain: "f", opset_import: ["": 17]> F39 (a) => (b) { b = Relu(a) }'
    text = '<ir_version: 8, opset_import: ["": 17, "f": 1]> g (float[2] x) => (float[2] y)'
    proto = parser.parse_model("\n".join([text, "{ y = f.F0(x) }", *functions, last]))
    with pytest.raises(BudgetError, match="functions inlined takes more than 200,000 nodes"):
        load(proto)


def test_every_refusal_is_of_one_family() -> None:
    assert issubclass(BudgetError, NgcError)
    assert issubclass(ModelError, NgcError)


def test_maps_are_left_to_the_refusal_of_their_operators() -> None:
    proto = model("y = MatMul(x, w) m = ai.onnx.ml.ZipMap <classlabels_int64s = [0, 1, 2]> (y)")
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    output = proto.graph.output.add(name="m")
    keys = output.type.sequence_type.elem_type.map_type
    keys.key_type = TensorProto.INT64
    keys.value_type.tensor_type.elem_type = TensorProto.FLOAT
    source = load(proto)
    with pytest.raises(UnsupportedOps, match=r"ai\.onnx\.ml\.ZipMap \(opset 1\) is not supported"):
        lower(source.model, {"x": (1, 2)})
