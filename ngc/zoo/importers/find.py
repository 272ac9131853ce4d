"""Which importer a source is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngc.errors import NgcError, OptionError
from ngc.zoo.importers.base import Importer, files_below
from ngc.zoo.importers.onnx_folder import SUFFIXES, OnnxFolder
from ngc.zoo.importers.tables import Table


@dataclass(frozen=True)
class Given:
    """What the user says about a source."""

    source: Path
    model: Any = None
    inputs: Any = None
    table: Path | None = None


def onnx_folder(given: Given) -> Importer:
    return OnnxFolder(given.source, _table(given))


KINDS: Mapping[str, Callable[[Given], Importer]] = {
    "onnx": onnx_folder,
}


def find_importer(given: Given, kind: str | None = None) -> Importer:
    """The importer called ``kind``; by default the one that the files of the source are for."""
    if not given.source.exists():
        raise NgcError("there is no such file or folder", where=str(given.source))
    if kind is not None and kind not in KINDS:
        raise OptionError(f"no importer is called {kind!r}", hint=", ".join(KINDS))
    return KINDS[kind or _kind_of(given)](given)


def _kind_of(given: Given) -> str:
    if any(files_below(given.source, SUFFIXES)):
        return "onnx"
    raise NgcError("no networks found in it", where=str(given.source))


def _table(given: Given) -> Table | None:
    return None if given.table is None else Table.read(given.table)
