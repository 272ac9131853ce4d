"""Reading ONNX files: bytes to protobuf, and external tensor data from the model's own folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto

from ngc.budget import Budget
from ngc.errors import BudgetError, ModelError
from ngc.frontends.onnx_tensors import num_bytes

# Files of tensors without the model that they are of.
WEIGHTS_ALONE = (".safetensors", ".npz", ".pt", ".pth", ".bin", ".ckpt")


def read(path: Path, budget: Budget) -> onnx.ModelProto:
    """The model in a file, without its external data."""
    return parse(_read_range(path, 0, None, str(path), budget), str(path), budget)


def parse(data: bytes, where: str, budget: Budget) -> onnx.ModelProto:
    """The model in a protobuf message."""
    _afford_bytes(len(data), where, budget)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        hint = ""
        if Path(where).suffix in WEIGHTS_ALONE:
            hint = (
                "a graph that ngc wrote: ngc decompile; weights alone: --plan-from MODEL; "
                "a module: package.module:name"
            )
        raise ModelError(
            f"this is not an ONNX model, or it is damaged ({error})", where=where, hint=hint
        ) from None
    if not proto.HasField("graph"):
        raise ModelError("this is not an ONNX model: it holds no graph", where=where)
    return proto


def copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that may be changed without the caller seeing it."""
    result = onnx.ModelProto()
    try:
        result.CopyFrom(proto)
    except (DecodeError, EncodeError, ValueError) as error:
        raise ModelError(f"the model cannot be copied ({error})") from None
    return result


def tensors(proto: onnx.ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Every tensor of the model with words for where it is; of sparse ones, both parts."""
    yield from _tensors_of_graph(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _tensors_of_node(node)
        for attribute in function.attribute_proto:
            yield from _tensors_of_attribute(attribute, f"function {function.name}")


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    for tensor in graph.initializer:
        yield f"initializer {tensor.name}", tensor
    for sparse in graph.sparse_initializer:
        yield f"initializer {sparse.values.name}", sparse.values
        yield f"initializer {sparse.values.name}", sparse.indices
    for node in graph.node:
        yield from _tensors_of_node(node)


def _tensors_of_node(node: onnx.NodeProto) -> Iterator[tuple[str, TensorProto]]:
    for attribute in node.attribute:
        yield from _tensors_of_attribute(attribute, f"{node.name or node.op_type}")


def _tensors_of_attribute(
    attribute: onnx.AttributeProto, where: str
) -> Iterator[tuple[str, TensorProto]]:
    where = f"{where}, attribute {attribute.name}"
    if attribute.HasField("t"):
        yield where, attribute.t
    for tensor in attribute.tensors:
        yield where, tensor
    single = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for sparse in [*single, *attribute.sparse_tensors]:
        yield where, sparse.values
        yield where, sparse.indices
    if attribute.HasField("g"):
        yield from _tensors_of_graph(attribute.g)
    for graph in attribute.graphs:
        yield from _tensors_of_graph(graph)


def load_external_data(proto: onnx.ModelProto, folder: Path | None, budget: Budget) -> int:
    """Bring external tensor data into the model. Returns how many tensors it found there."""
    total = found = 0
    for where, tensor in tensors(proto):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        if folder is None:
            raise ModelError(
                "its data are in another file, but the model was not given as a file",
                where=where,
                hint="pass the path of the model",
            )
        if any(n < 0 for n in tensor.dims):
            raise ModelError(f"dims {list(tensor.dims)} are negative", where=where)
        total += budget.afford(tensor.dims, where=where)
        budget.afford_total(total, what="tensors in external files")
        _load_tensor(tensor, folder, where, budget)
        found += 1
    return found


def _load_tensor(tensor: TensorProto, folder: Path, where: str, budget: Budget) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = inside(folder, entries.get("location", ""), where)
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", num_bytes(tensor, where)))
    except ValueError:
        raise ModelError(
            "offset and length of external data must be integers", where=where
        ) from None
    expected = num_bytes(tensor, where)
    if offset < 0 or length != expected:
        raise ModelError(
            f"{length} bytes at offset {offset} of {path.name}: the tensor needs {expected}",
            where=where,
        )
    tensor.raw_data = _read_range(path, offset, length, where, budget)
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def inside(folder: Path, location: str, where: str) -> Path:
    """The file ``location`` names; it must lie in the model's folder, symbolic links followed."""
    windows = PureWindowsPath(location)
    parts = {*PurePosixPath(location).parts, *windows.parts}
    outside = (
        not location
        or "\0" in location
        or location.startswith("/")
        or windows.drive
        or windows.root
        or ".." in parts
    )
    if not outside:
        root = folder.resolve()
        path = (root / location).resolve()
        if path.is_relative_to(root):
            return path
    raise ModelError(
        f"external data {location!r} are outside the model's folder",
        where=where,
        hint="put the data file beside the model",
    )


def _read_range(path: Path, offset: int, length: int | None, where: str, budget: Budget) -> bytes:
    """Bytes of a regular file, its size checked first."""
    named = "it" if where == str(path) else str(path)
    try:
        # Non-blocking: opening a named pipe must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelError(f"{named} is not a regular file", where=where)
            wanted = status.st_size - offset if length is None else length
            if wanted < 0 or offset + wanted > status.st_size:
                raise ModelError(
                    f"{path.name} has {status.st_size} bytes, {offset + wanted} are needed",
                    where=where,
                )
            _afford_bytes(wanted, where, budget)
            file.seek(offset)
            data = file.read(wanted)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(f"cannot read {named}: {reason}", where=where) from None
    if len(data) != wanted:
        raise ModelError(f"{path.name} ended after {len(data)} bytes", where=where)
    return data


def _afford_bytes(count: int, where: str, budget: Budget) -> None:
    if count > budget.max_file_bytes:
        raise BudgetError(
            f"{count:,} bytes are over the budget of {budget.max_file_bytes:,}",
            where=where,
            hint="a larger budget (max_file_bytes), if the model is to be trusted",
        )
