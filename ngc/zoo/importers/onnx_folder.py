"""Any folder of ONNX files, with sub-folders; a table may say more about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from ngc.zoo.compiling import Compiler
from ngc.zoo.importers.base import Member, Network, inside
from ngc.zoo.importers.files import FileImporter
from ngc.zoo.importers.tables import Table

SUFFIXES = (".onnx",)


@dataclass(frozen=True)
class OnnxFolder(FileImporter):
    kind: ClassVar[str] = "onnx"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    what: ClassVar[str] = "ONNX files"

    source: Path
    table: Table | None = field(default=None, repr=False)

    def read(self, member: Member, compiler: Compiler) -> Network:
        architecture, row = compiler.file(inside(self.source, member.name))
        return Network(architecture, row, member.metadata)
