"""Any folder of ONNX files, with sub-folders; a table may say more about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from ngc.zoo.compiling import Compiler
from ngc.zoo.importers.base import (
    Importer,
    Member,
    Network,
    files_below,
    inside,
    mean_bytes,
    none_found,
)
from ngc.zoo.importers.tables import Table

SUFFIXES = (".onnx",)


@dataclass(frozen=True)
class OnnxFolder(Importer):
    kind: ClassVar[str] = "onnx"
    source: Path
    table: Table | None = field(default=None, repr=False)

    @cached_property
    def _names(self) -> list[str]:
        names = sorted(files_below(self.source, SUFFIXES))
        if not names:
            raise none_found(self.source, "ONNX files")
        if self.table is not None:
            self.table.require(names)
        return names

    def names(self) -> Sequence[str]:
        return self._names

    def members(self, start: int, stop: int) -> list[Member]:
        return with_table(self._names[start:stop], self.table)

    def read(self, member: Member, compiler: Compiler) -> Network:
        architecture, row = compiler.file(inside(self.source, member.name))
        return Network(architecture, row, member.metadata)

    def member_bytes(self) -> int:
        return mean_bytes(self.source, self._names)

    def settings(self) -> dict[str, str]:
        return {} if self.table is None else {"table": self.table.digest}

    def __getstate__(self) -> dict[str, object]:
        return {"source": self.source}  # other processes are told which members they read


def with_table(names: Sequence[str], table: Table | None) -> list[Member]:
    if table is None:
        return [Member(name) for name in names]
    return [Member(name, told) for name, told in zip(names, table.rows_of(names))]
