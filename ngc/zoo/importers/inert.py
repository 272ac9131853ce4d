"""Checkpoints of torch that hold objects of strangers, read without running any code of theirs.

``torch.load(weights_only=True)`` refuses a file with a configuration object in it, and without that
flag it runs whatever the file says. Here a pickle can name torch's tensors and OrderedDict; every
other class or function that it names becomes an inert stand-in, a new empty class, which takes what
it is given and does nothing. Nothing is imported, and nothing of the file is called. Tensors are
read when they are asked for: the state of an optimiser stays on disk.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ngc.errors import ModelError

MAX_PICKLE = 2**26  # bytes of the file's objects without their tensors
MAX_DEPTH = 32  # of what stand-ins hold
STORAGES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip


class StandIn:
    """Of an object that a pickle describes: what it was made of and given."""

    def __new__(cls, *args: Any, **kwargs: Any) -> StandIn:
        made = super().__new__(cls)
        made.__dict__.update(arguments=args, items=[], entries={}, state=None)
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.__dict__["state"] = state

    def append(self, item: Any) -> None:
        self.__dict__["items"].append(item)

    def extend(self, items: Any) -> None:
        self.__dict__["items"].extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__dict__["entries"][key] = value


class _Call:
    """A function that a pickle may call. One object a file, without attributes: a pickle that sets
    some changes nothing."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in the file."""

    file: TorchFile
    key: str
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> Tensor:
        data = self.file.storage(self.key)
        width = self.dtype.itemsize
        count, numbers = math.prod(self.size), len(data) // width
        ends = (max(n - 1, 0) * step for n, step in zip(self.size, self.stride))
        # A tensor may not be larger than what is stored, which strides of zero could make it.
        if count > numbers or (count and self.offset + sum(ends) >= numbers):
            raise ModelError(f"a tensor of {list(self.size)} is not all there")
        if not count:
            return torch.zeros(self.size, dtype=self.dtype)
        whole = torch.frombuffer(bytearray(data[: numbers * width]), dtype=self.dtype)
        return whole.as_strided(self.size, self.stride, self.offset).clone()


class _Rebuild(_Call):
    """``torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)``."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        storage, offset, size, stride = args[:4]
        if not isinstance(storage, StoredTensor):
            raise ModelError("a tensor without a storage")
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
            raise ModelError("a tensor of sizes that are none")
        return StoredTensor(
            storage.file, storage.key, storage.dtype, offset, tuple(size), tuple(stride)
        )


class _Parameter(_Call):
    """``torch._utils._rebuild_parameter(tensor, ...)``."""

    __slots__ = ()

    def __call__(self, *args: Any) -> Any:
        return args[0]


class TorchFile:
    """A file of ``torch.save`` (the zip format of torch since 1.6)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = zipfile.ZipFile(path)
        names = [name for name in self._zip.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ModelError("not a checkpoint of torch: it has no data.pkl")
        self._root = names[0][: -len("data.pkl")]
        order = f"{self._root}byteorder"
        if order in self._zip.namelist() and self._bytes(order, 16) != b"little":
            raise ModelError("it was written on a machine of another byte order")

    def content(self) -> Any:
        """What was saved; tensors are ``StoredTensor``, other objects stand-ins."""
        with self._zip.open(self._info(f"{self._root}data.pkl", MAX_PICKLE)) as file:
            return _Unpickler(file, self).load()

    def storage(self, key: str) -> bytes:
        return self._bytes(f"{self._root}data/{key}", self.path.stat().st_size)

    def _bytes(self, name: str, most: int) -> bytes:
        return self._zip.read(self._info(name, most))

    def _info(self, name: str, most: int) -> zipfile.ZipInfo:
        """Of an entry: torch compresses nothing, so nothing can grow as it is read."""
        info = self._zip.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > most:
            raise ModelError(f"{name} is too large, or compressed, which torch does not do")
        return info

    def __enter__(self) -> TorchFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, source: TorchFile) -> None:
        super().__init__(file)
        self.source = source
        self.known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
            ("torch._utils", "_rebuild_parameter"): _Parameter(),
        }

    def find_class(self, module: str, name: str) -> Any:
        found = self.known.get((module, name))
        if found is None:
            found = type(str(name).rpartition(".")[2] or "StandIn", (StandIn,), {})
            self.known[module, name] = found
        return found

    def persistent_load(self, pid: Any) -> Any:
        match pid:
            case ("storage", type(__name__=name), str(key), _, int()) if name in STORAGES:
                return StoredTensor(self.source, key, STORAGES[name], 0, (), ())
        raise ModelError("it holds a storage of an unknown kind")


def read_torch_file(path: Path, wanted: str = "model") -> dict[str, Any]:
    """A dictionary that ``torch.save`` wrote: the tensors of the entry ``wanted`` as numpy arrays,
    all else as ``plain`` leaves it."""
    from ngc.ir.tensors import to_numpy

    try:
        with TorchFile(path) as file:
            content = file.content()
            if not isinstance(content, dict) or not isinstance(content.get(wanted), dict):
                raise ModelError(f"it is no dictionary with an entry {wanted!r}")
            tensors = {
                str(name): to_numpy(value.read())
                for name, value in content[wanted].items()
                if isinstance(value, StoredTensor)
            }
            rest = {str(name): plain(value) for name, value in content.items() if name != wanted}
    except ModelError:
        raise
    except Exception as error:  # of zips and pickles that contradict themselves
        kind = type(error).__name__
        raise ModelError(f"not a checkpoint of torch, or damaged ({kind})") from error
    return {wanted: tensors, **rest}


def plain(value: Any, depth: int = 0) -> Any:
    """Numbers, text, lists and dictionaries. Of the objects of OmegaConf their content, of others
    their attributes."""
    if depth > MAX_DEPTH:
        raise ModelError("its objects hold one another without end")
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [plain(item, depth + 1) for item in value]
        case StandIn():
            state = value.__dict__["state"]
            if isinstance(state, Mapping):
                for name in ("_content", "_val"):  # containers and leaves of OmegaConf
                    if name in state:
                        return plain(state[name], depth + 1)
                return plain(dict(state), depth + 1)
            return None
        case Mapping():
            return {str(key): plain(item, depth + 1) for key, item in value.items()}
        case np.generic():
            return value.item()
    return None
