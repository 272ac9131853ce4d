"""onnxruntime as the oracle: what a model really computes, run in a process of its own.

onnxruntime can crash on valid models, and its optimiser changes numbers; so it runs in a worker
process (``oracle_worker.py``) without optimisations, and a crash or a time-out becomes an error.
Arrays travel through files in a temporary folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from ngc.errors import NgcError
from ngc.upgrade import upgrade_model

WORKER = Path(__file__).with_name("oracle_worker.py")

# A protobuf message holds at most 2 GiB; tensors beyond this total go to a file beside it.
MAX_MESSAGE = 2**30


class OracleError(NgcError):
    """onnxruntime refused the model, crashed, or did not answer in time."""


class Oracle:
    """One worker process holding one model at a time.

    ``with Oracle(model) as oracle: outputs = oracle.run({"x": x})``. ``load`` puts another model
    into the same worker. After a crash the next call starts a new worker.
    """

    def __init__(
        self,
        model: bytes | Path | onnx.ModelProto | None = None,
        *,
        threads: int = 1,
        timeout: float = 600.0,
    ) -> None:
        self.threads, self.timeout = threads, timeout
        self._folder = tempfile.TemporaryDirectory(prefix="ngc-oracle-")
        self._worker: subprocess.Popen[bytes] | None = None
        self._path: Path | None = None
        if model is not None:
            try:
                self.load(model)
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Oracle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def load(self, model: bytes | Path | onnx.ModelProto) -> None:
        """Make a session for a model: its bytes, its path, or the model itself. A model of opset 6
        is run as one of opset 7, except from a path."""
        if isinstance(model, Path):
            self._path = model.resolve()
        else:
            self._path = write_model(upgrade_model(_parsed(model)), Path(self._folder.name))
        self._ask({"load": str(self._path)})

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of the model by name, in its order."""
        if self._path is None:
            raise OracleError("no model is loaded")
        if self._worker is None:
            self._ask({"load": str(self._path)})
        files = {}
        for k, (name, array) in enumerate(inputs.items()):
            array = np.asarray(array)
            if array.dtype == object:
                array = array.astype(str)  # strings, without pickle
            files[name] = f"in{k}.npy"
            np.save(Path(self._folder.name) / files[name], array, allow_pickle=False)
        answer = self._ask({"run": files})
        result = {}
        for name, file in answer["outputs"].items():
            path = Path(self._folder.name) / file
            result[name] = np.load(path, allow_pickle=False)
            path.unlink()
        return result

    def close(self) -> None:
        """End the worker and remove its files."""
        self._stop()
        self._folder.cleanup()

    def _start(self) -> subprocess.Popen[bytes]:
        settings = json.dumps({"folder": self._folder.name, "threads": self.threads})
        with open(self._log, "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-P", str(WORKER), settings],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": str(self.threads)},
            )

    @property
    def _log(self) -> Path:
        return Path(self._folder.name) / "log.txt"

    def _ask(self, request: dict[str, object]) -> dict[str, dict[str, str]]:
        """Send one line, wait for one line."""
        if self._worker is None:
            self._worker = self._start()
        worker = self._worker
        assert worker.stdin is not None
        try:
            worker.stdin.write(json.dumps(request).encode() + b"\n")
            worker.stdin.flush()
        except BrokenPipeError:
            pass  # it is gone: the missing answer says how
        what = next(iter(request))
        line = self._line(worker, what)
        if not line.endswith(b"\n"):
            code = worker.wait()
            self._stop()
            name = f"signal {-code}"
            if code < 0 and -code in signal.Signals.__members__.values():
                name = signal.Signals(-code).name
            tail = " ".join(self._log.read_text(errors="replace").split()[-60:])
            how = f"crashed ({name})" if code < 0 else f"ended with code {code}"
            raise OracleError(f"onnxruntime {how} at {what} {tail}".strip())
        answer: dict[str, dict[str, str]] = json.loads(line)
        if "error" in answer:
            raise OracleError(f"onnxruntime cannot {what} the model: {answer['error']}")
        return answer

    def _line(self, worker: subprocess.Popen[bytes], what: str) -> bytes:
        """One line of the worker's output, or what there is of it when the worker ends."""
        assert worker.stdout is not None
        descriptor, line, end = worker.stdout.fileno(), b"", time.monotonic() + self.timeout
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                self._stop()
                raise OracleError(f"onnxruntime did not {what} within {self.timeout:g} s")
            part = os.read(descriptor, 1 << 16)
            if not part:
                break
            line += part
        return line

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        worker.kill()
        worker.wait()
        for stream in (worker.stdin, worker.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # a request that it never read
                    stream.close()


def _parsed(model: bytes | onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.ModelProto.FromString(model) if isinstance(model, bytes) else model
    except DecodeError as error:
        raise OracleError(f"onnxruntime cannot load the model: {error}") from None


def write_model(proto: onnx.ModelProto, folder: Path) -> Path:
    """Save a model; where it is too large for one message, its large tensors beside it."""
    path = folder / "model.onnx"
    size = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    if size < MAX_MESSAGE:
        path.write_bytes(proto.SerializeToString())
        return path
    small = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _assign(small, field.name, value)
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _assign(small.graph, field.name, value)
    with open(folder / "model.data", "wb") as data:
        for tensor in proto.graph.initializer:
            copy = small.graph.initializer.add()
            if len(tensor.raw_data) < 1024:
                copy.CopyFrom(tensor)
                continue
            copy.name, copy.data_type = tensor.name, tensor.data_type
            copy.dims.extend(tensor.dims)
            copy.data_location = TensorProto.EXTERNAL
            copy.external_data.add(key="location", value="model.data")
            copy.external_data.add(key="offset", value=str(data.tell()))
            copy.external_data.add(key="length", value=str(len(tensor.raw_data)))
            data.write(tensor.raw_data)
    path.write_bytes(small.SerializeToString())
    return path


def _assign(message: onnx.ModelProto | onnx.GraphProto, name: str, value: object) -> None:
    if hasattr(value, "ListFields"):
        getattr(message, name).CopyFrom(value)
    elif isinstance(value, str | int | bytes):
        setattr(message, name, value)
    else:
        getattr(message, name).MergeFrom(value)
