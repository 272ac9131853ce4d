"""Which importer a source is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ngc.errors import NgcError, OptionError
from ngc.frontends.onnx_files import WEIGHTS_ALONE
from ngc.zoo.importers.base import Importer, files_below
from ngc.zoo.importers.made import ABOUT, NETWORKS, Made
from ngc.zoo.importers.onnx_folder import SUFFIXES, OnnxFolder
from ngc.zoo.importers.small_cnn import LAYOUT, WEIGHTS, SmallCnn
from ngc.zoo.importers.state_dicts import StateDicts
from ngc.zoo.importers.tables import Table
from ngc.zoo.importers.wild_park import WildPark, checkpoints_below
from ngc.zoo.importers.zoo_part import Where, ZooPart
from ngc.zoo.store import facts_path


@dataclass(frozen=True)
class Given:
    """What the user says about a source."""

    source: Path
    model: Any = None
    inputs: Any = None
    table: Path | None = None
    where: Where = field(default_factory=dict)
    max_parameters: int | None = None


def onnx_folder(given: Given) -> Importer:
    return OnnxFolder(given.source, _table(given))


def state_dicts(given: Given) -> Importer:
    if given.model is None:
        raise OptionError("a folder of weights alone needs --model", where=str(given.source))
    return StateDicts(given.source, given.model, given.inputs, _table(given))


def small_cnn(given: Given) -> Importer:
    _no_table(given)
    return SmallCnn(given.source if given.source.is_dir() else given.source.parent)


def published_wild_park(given: Given) -> Importer:
    _no_table(given)
    return WildPark(given.source)


def made(given: Given) -> Importer:
    _no_table(given)
    return Made(given.source)


def zoo_part(given: Given) -> Importer:
    _no_table(given)
    return ZooPart(given.source, given.where, given.max_parameters)


KINDS: Mapping[str, Callable[[Given], Importer]] = {
    "onnx": onnx_folder,
    "state-dicts": state_dicts,
    "small-cnn": small_cnn,
    "wild-park": published_wild_park,
    "made": made,
    "zoo": zoo_part,
}


def find_importer(given: Given, kind: str | None = None) -> Importer:
    """The importer called ``kind``; by default the one that the files of the source are for."""
    if not given.source.exists():
        raise NgcError("there is no such file or folder", where=str(given.source))
    if kind is not None and kind not in KINDS:
        raise OptionError(f"no importer is called {kind!r}", hint=", ".join(KINDS))
    kind = kind or _kind_of(given)
    if kind != "zoo" and (given.where or given.max_parameters is not None):
        said = "only networks of a zoo can be chosen from"
        raise OptionError(said, where=str(given.source), hint="import all, then a part of that zoo")
    return KINDS[kind](given)


def _kind_of(given: Given) -> str:
    if given.model is not None:
        return "state-dicts"
    if facts_path(given.source).is_file():
        return "zoo"
    if given.source.name == WEIGHTS or (given.source / LAYOUT).is_file():
        return "small-cnn"
    if any((given.source / NETWORKS).glob(f"*/{ABOUT}")):
        return "made"
    if any(checkpoints_below(given.source)):
        return "wild-park"
    if any(files_below(given.source, SUFFIXES)):
        return "onnx"
    if any(files_below(given.source, WEIGHTS_ALONE)):
        raise NgcError(
            "it holds weights alone, without what network they are of",
            where=str(given.source),
            hint="--model model.onnx, or --model package.module:name --input 1x3x32x32",
        )
    raise NgcError("no networks found in it", where=str(given.source))


def _table(given: Given) -> Table | None:
    return None if given.table is None else Table.read(given.table)


def _no_table(given: Given) -> None:
    if given.table is not None:
        what = "it has a table of its own"
        raise OptionError(what, where=str(given.source), hint="without --table")
