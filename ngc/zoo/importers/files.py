"""Importers of folders in which each file is a network; a table may say more about them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ngc.zoo.importers.base import Importer, Member, files_below, mean_bytes, none_found
from ngc.zoo.importers.tables import SHOWN, Table


class FileImporter(Importer):
    suffixes: ClassVar[tuple[str, ...]]
    what: ClassVar[str]
    source: Path
    table: Table | None

    @cached_property
    def _names(self) -> list[str]:
        names = sorted(files_below(self.source, self.suffixes))
        if not names:
            raise none_found(self.source, self.what)
        if self.table is not None:
            self.table.require(names)
        return names

    def names(self) -> Sequence[str]:
        return self._names

    def members(self, start: int, stop: int) -> list[Member]:
        names = self._names[start:stop]
        if self.table is None:
            return [Member(name) for name in names]
        return [Member(name, told) for name, told in zip(names, self.table.rows_of(names))]

    def member_bytes(self) -> int:
        return mean_bytes(self.source, self._names)

    def notes(self) -> list[str]:
        extra = [] if self.table is None else self.table.without_member(self._names)
        if self.table is None or not extra:
            return []
        more = ", ..." if len(extra) > SHOWN else ""
        said = f"{len(extra):,} rows of {self.table.path} are of no file here"
        return [f"{said}: {', '.join(extra[:SHOWN])}{more}"]

    def settings(self) -> dict[str, str]:
        return {} if self.table is None else {"table": self.table.digest}

    def __getstate__(self) -> dict[str, Any]:
        """Other processes are told which members they read."""
        return {**self.__dict__, "_names": None, "table": None}
