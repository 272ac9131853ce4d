"""Networks on their way into a zoo: compiled once for each architecture, then only read.

The second network of an architecture costs parsing its file and copying its weights. That holds
only for tensors known to be weights and nothing else (``ngc.known``): so when an architecture
comes up for the first time, it is compiled once more with other numbers in its weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import onnx

from ngc.backends.onnx_export import with_tensors
from ngc.backends.torch_exec import pack
from ngc.budget import DEFAULT, Budget
from ngc.checkpoints import params_of, with_weights
from ngc.compiler import Compilation, compile
from ngc.errors import ModelError, NgcError
from ngc.frontends import onnx_files
from ngc.frontends.onnx import FAULTS
from ngc.ir.program import Program
from ngc.ir.slots import FIRST_SLOT
from ngc.known import Known, Recent, Seen, structure_key
from ngc.options import Options
from ngc.zoo.architectures import NAME, architecture_of, write_architecture
from ngc.zoo.shards import DTYPES

# Architectures whose plans are kept: checkpoints of one run follow one another.
KEPT = 256

T = TypeVar("T")


@dataclass(frozen=True)
class Sizes:
    """What binds the inputs of a model, as ``ngc.compile`` takes it."""

    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)


class Compiler:
    """Of one process: what it has compiled, and what importers keep there (``kept``)."""

    def __init__(
        self,
        folder: Path,
        options: Options,
        dtype: str = "float32",
        sizes: Sizes | None = None,
        budget: Budget = DEFAULT,
    ) -> None:
        self.folder, self.options, self.budget = folder, options, budget
        self.sizes = sizes or Sizes()
        self.dtype = DTYPES[dtype][1]
        self.known = Known(KEPT)
        # Keys of models as they are in files -> as they are after loading, which names their nodes.
        self._loaded = Recent(KEPT)
        self._hashes: WeakKeyDictionary[Seen, str] = WeakKeyDictionary()
        self._kept: dict[Any, Any] = {}
        self._recent = Recent(KEPT)

    def kept(self, key: Any, make: Callable[[], T]) -> T:
        """What ``make`` returns, made once."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def recent(self, key: Any, make: Callable[[], T]) -> T:
        """What ``make`` returns, kept for the keys used last."""
        if self._recent.used(key) is None:
            self._recent.put(key, make())
        found: T = self._recent[key]
        return found

    def file(self, path: Path) -> tuple[str, np.ndarray]:
        """Architecture and row of an ONNX file."""
        proto = onnx_files.read(path, self.budget)
        onnx_files.load_external_data(proto, path.parent, self.budget)
        return self.model(proto, str(path))

    def model(self, proto: onnx.ModelProto, where: str) -> tuple[str, np.ndarray]:
        """Architecture and row of an ONNX model. The model loses its name: that is a part of
        programs, and may differ between networks of one architecture."""
        proto.graph.name = NAME
        try:
            own = self._key(proto)
            found = self.known.find(self._loaded.used(own), proto)
        except FAULTS as error:  # of protobuf and numpy, on data that contradict themselves
            raise ModelError(f"the model is malformed ({error})", where=where) from error
        if found is not None and found[0] in self._hashes:
            seen, arrays = found
            return self._hashes[seen], self.row(seen.program, arrays)
        compilation = self.compile(proto)
        digest = self.put(compilation)
        key = self._key(compilation.source.proto)
        first = self.known.seen.get(key)
        if first is not None and first.program is compilation.program:
            self._loaded.put(own, key)
            self._hashes[first] = digest
            if not first.weights:
                self._learn(key, first, proto)
        return digest, self.row(compilation.program, compilation.arrays)

    def compile(self, model: Any, inputs: Any = None) -> Compilation:
        sizes = self.sizes
        return compile(
            model, inputs, options=self.options, shapes=sizes.shapes, dims=sizes.dims,
            budget=self.budget, known=self.known,
        )  # fmt: skip

    def put(self, compilation: Compilation) -> str:
        """Write the architecture of a network, where it is new; its hash."""
        one = architecture_of(compilation)
        write_architecture(self.folder, one)
        return one.hash

    def compiled(self, model: Any, inputs: Any = None) -> tuple[Compilation, str]:
        """The architecture that checkpoints are of, and its hash."""
        compilation = self.compile(model, inputs)
        return compilation, self.put(compilation)

    def checkpoint(
        self, compiled: tuple[Compilation, str], tensors: Mapping[str, np.ndarray], name: str
    ) -> tuple[str, np.ndarray]:
        """Architecture and row of the network that has these tensors, named as in the model."""
        compilation, digest = compiled
        arrays = params_of(compilation, tensors, name)
        if arrays is not None:
            return digest, self.row(compilation.program, arrays)
        own = with_weights(compilation, tensors, name)
        return self.put(own), self.row(own.program, own.arrays)

    def row(self, program: Program, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The parameters in the order of the program, in the type that the zoo stores."""
        return self.stored(pack(program, arrays).numpy()[FIRST_SLOT:])

    def stored(self, row: np.ndarray) -> np.ndarray:
        """A row in the type of the zoo; every number of it is one."""
        with np.errstate(over="ignore"):
            result = row.astype(self.dtype)
        if not np.isfinite(result).all():
            beyond = np.isfinite(row).all()
            what = f"are beyond {self.dtype}" if beyond else "are not finite"
            count = int((~np.isfinite(result)).sum())
            raise ModelError(f"{count:,} of its {len(row):,} weights {what}")
        return result

    def _key(self, proto: onnx.ModelProto) -> str:
        sizes = self.sizes
        return structure_key(proto, self.options, sizes.shapes, sizes.dims, self.budget)

    def _learn(self, key: str, first: Seen, proto: onnx.ModelProto) -> None:
        """Find out which tensors are weights, from the same model with other numbers."""
        rng = np.random.default_rng(int(key[:16], 16))  # a seed that no network was drawn with
        arrays = {param.name: rng.normal(size=param.shape) for param in first.program.params}
        with contextlib.suppress(NgcError):  # one of them is also read as a number
            self.compile(with_tensors(proto, arrays))
        if self.known.seen.get(key) is not first:  # ... which gave another program
            self.known.seen.put(key, first)
