"""Load an ONNX model from a stranger: every fault of the file becomes one NgcError."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir

from ngc.budget import DEFAULT, Budget
from ngc.errors import ModelError, NgcError
from ngc.frontends import onnx_files
from ngc.frontends.onnx_functions import check_calls
from ngc.frontends.onnx_graphs import GraphCheck
from ngc.ir.source import Source

OPSETS = range(6, 25)
IR_VERSIONS = range(3, onnx.IR_VERSION + 1)

# What protobuf, numpy and onnx_ir raise on data that contradict themselves.
FAULTS = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
    NotImplementedError, RuntimeError, RecursionError, MemoryError,
)  # fmt: skip


def load(
    source: str | Path | bytes | onnx.ModelProto | onnx_ir.Model, *, budget: Budget = DEFAULT
) -> Source:
    """Read and check a model: a file, its bytes, or a model in memory (which is not changed)."""
    path = Path(source) if isinstance(source, str | Path) else None
    where = str(path) if path else "model"
    try:
        return _load(source, path, where, budget)
    except NgcError:
        raise
    except FAULTS as error:
        line = (str(error).splitlines() or [""])[0][:200]
        raise ModelError(f"the model is malformed ({line})", where=where) from error


def _load(
    source: str | Path | bytes | onnx.ModelProto | onnx_ir.Model,
    path: Path | None,
    where: str,
    budget: Budget,
) -> Source:
    folder = path.parent if path else None
    match source:
        case str() | Path():
            proto = onnx_files.read(Path(source), budget)
        case bytes():
            proto = onnx_files.parse(source, where, budget)
        case onnx.ModelProto():
            proto = onnx_files.copy(source)
        case onnx_ir.Model():
            proto, folder = onnx_ir.to_proto(source), _folder_of(source)
        case _:
            raise ModelError(f"a {type(source).__name__} is not a model, a path or bytes")
    opsets = _check_header(proto, where)
    num_external = onnx_files.load_external_data(proto, folder, budget)
    check = GraphCheck(proto, opsets, budget)
    check.model(proto)
    check_calls(proto, budget)
    notes = [f"read {num_external} tensors from external data"] if num_external else []
    stem = path.stem if path else ""
    name = proto.graph.name or stem or "model"
    return Source(proto, onnx_ir.from_proto(proto), name, tuple(notes))


def _check_header(proto: onnx.ModelProto, where: str) -> dict[str, int]:
    """Versions of the file. Returns the opset of each domain."""
    if proto.ir_version not in IR_VERSIONS:
        first, last = IR_VERSIONS[0], IR_VERSIONS[-1]
        raise ModelError(f"IR version {proto.ir_version}; ngc reads {first} to {last}", where=where)
    opsets: dict[str, int] = {}
    for entry in proto.opset_import:
        if entry.domain == "ai.onnx":
            entry.domain = ""
        if opsets.setdefault(entry.domain, entry.version) != entry.version:
            raise ModelError(f"two versions of opset domain {entry.domain!r}", where=where)
    if "" in opsets and opsets[""] not in OPSETS:
        raise ModelError(
            f"opset {opsets['']}; ngc reads {OPSETS[0]} to {OPSETS[-1]}",
            where=where,
            hint="onnx.version_converter, or another opset_version when exporting",
        )
    return opsets


def _folder_of(model: onnx_ir.Model) -> Path | None:
    """Where the external data of a model in memory lie, if it has any."""
    folders = {
        Path(value.const_value.base_dir)
        for graph in (model.graph, *model.graph.subgraphs())
        for value in graph.initializers.values()
        if isinstance(value.const_value, onnx_ir.ExternalTensor)
    }
    if len(folders) > 1:
        raise ModelError("external data lie in more than one folder")
    return folders.pop() if folders else None
