"""A folder of weights alone (safetensors, npz, pt), all of one architecture that a model describes.

Names are those of the model, and are matched strictly, as ``ngc compile --plan-from`` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ngc.checkpoints import read_tensors
from ngc.compiler import Compilation
from ngc.frontends.onnx_files import WEIGHTS_ALONE
from ngc.zoo.compiling import Compiler
from ngc.zoo.importers.base import Member, Network, inside
from ngc.zoo.importers.files import FileImporter
from ngc.zoo.importers.tables import Table, digest_of_file


@dataclass(frozen=True)
class StateDicts(FileImporter):
    """``model``, ``inputs``: the architecture, as ``ngc.compile`` takes it."""

    kind: ClassVar[str] = "state-dicts"
    suffixes: ClassVar[tuple[str, ...]] = WEIGHTS_ALONE
    what: ClassVar[str] = "files of weights"

    source: Path
    model: Any
    inputs: Any = None
    table: Table | None = field(default=None, repr=False)

    def read(self, member: Member, compiler: Compiler) -> Network:
        tensors = read_tensors(inside(self.source, member.name))
        found = compiler.checkpoint(self._compiled(compiler), tensors, member.name)
        return Network(*found, member.metadata)

    def prepare(self, compiler: Compiler) -> None:
        self._compiled(compiler)

    def _compiled(self, compiler: Compiler) -> tuple[Compilation, str]:
        return compiler.kept(self.kind, lambda: compiler.compiled(self.model, self.inputs))

    def settings(self) -> dict[str, str]:
        model = self.model if isinstance(self.model, str | Path) else type(self.model).__name__
        told = {"model": str(model)}
        if self.inputs is not None and isinstance(self.model, str):
            told["inputs"] = str(self.inputs)
        if isinstance(self.model, str | Path) and Path(self.model).is_file():
            told = {"model": digest_of_file(Path(self.model))}
        return {**told, **super().settings()}
