"""Reading a zoo: its table in memory, its weights through memory maps."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ngc.errors import ModelError, NgcError, OptionError
from ngc.known import Recent
from ngc.zoo.architectures import ZooArchitecture, read_architecture
from ngc.zoo.shards import Place, read_header, read_table, rows_path, table_path

FORMAT = 1
OPEN_FILES = 64  # memory maps that are kept: each takes a file descriptor


@dataclass(frozen=True, eq=False)
class Rows:
    """The parameters of all networks of one architecture, [networks, parameters] on disk.

    ``rows[numbers]`` reads those alone; ``places`` are where they lie, by the number of the shard.
    """

    files: Files
    places: tuple[tuple[int, Place], ...]
    parameters: int

    @cached_property
    def starts(self) -> np.ndarray:
        """The first row of each shard, and the count of all."""
        return np.cumsum([0, *(place.count for _, place in self.places)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, numbers: Tensor | Sequence[int]) -> Tensor:
        """Rows [n, parameters], float32, of these numbers [n]."""
        wanted = torch.as_tensor(numbers, dtype=torch.long).cpu().numpy()
        if wanted.ndim != 1 or (len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self)):
            raise OptionError(f"rows are numbers [n] from 0 to {len(self) - 1}")
        found = np.empty((len(wanted), self.parameters), dtype=np.float32)
        shards = np.searchsorted(self.starts, wanted, side="right") - 1
        for which in np.unique(shards):
            here = np.flatnonzero(shards == which)
            number, place = self.places[which]
            found[here] = self.files.tensor(number, place)[wanted[here] - self.starts[which]]
        return torch.from_numpy(found)

    def tensor(self) -> Tensor:
        """All of them."""
        return self[torch.arange(len(self))]


@dataclass(eq=False)
class Files:
    """The weights of the shards of one zoo, mapped when they are read."""

    folder: Path
    mapped: Recent = field(default_factory=lambda: Recent(OPEN_FILES))

    def tensor(self, shard: int, place: Place) -> np.ndarray:
        """[count, parameters], in the type it is stored in."""
        data = self.mapped.used(shard)
        if data is None:
            path = rows_path(self.folder, shard)
            try:
                data = np.memmap(path, dtype=np.uint8, mode="r")
            except (OSError, ValueError) as error:
                raise NgcError(f"cannot read it ({error})", where=str(path)) from error
            self.mapped.put(shard, data)
        size = place.count * place.parameters * place.dtype.itemsize
        part = data[place.offset : place.offset + size]
        if len(part) != size:
            raise NgcError("it has been cut short", where=str(rows_path(self.folder, shard)))
        return part.view(place.dtype).reshape(place.count, place.parameters)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "mapped": Recent(OPEN_FILES)}


class Architectures(Sequence[ZooArchitecture]):
    """The architectures of a zoo, each read when it is asked for."""

    def __init__(self, folder: Path, hashes: Sequence[str]) -> None:
        self.folder, self.hashes = folder, tuple(hashes)
        self._read: dict[int, ZooArchitecture] = {}

    def __len__(self) -> int:
        return len(self.hashes)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return tuple(self[k] for k in range(len(self))[number])
        number = range(len(self))[number]
        if number not in self._read:
            self._read[number] = read_architecture(self.folder, self.hashes[number])
        return self._read[number]

    def __iter__(self) -> Iterator[ZooArchitecture]:
        return (self[k] for k in range(len(self)))


@dataclass(frozen=True, eq=False)
class Zoo:
    """Many networks of several architectures.

    Network k is of architecture ``architectures[architecture[k]]`` and has the parameters
    ``rows(architecture[k])[row[k]]``. ``table``: a column of text for each thing that is known of
    the networks, "name" among them; "" where a network has none. ``facts`` is zoo.json.
    """

    path: Path
    architectures: Architectures
    architecture: Tensor
    row: Tensor
    table: dict[str, list[str]]
    facts: dict[str, Any]
    places: tuple[tuple[tuple[int, Place], ...], ...]
    files: Files

    def __len__(self) -> int:
        return len(self.row)

    def __repr__(self) -> str:
        return (
            f"Zoo({str(self.path)!r}, {len(self):,} networks, {len(self.places):,} architectures)"
        )

    def rows(self, architecture: int) -> Rows:
        """The parameters of the networks of one architecture, read from disk when indexed."""
        places = self.places[architecture]
        return Rows(self.files, places, places[0][1].parameters)

    def column(self, name: str) -> list[str]:
        """A column of the table."""
        if name not in self.table:
            known = ", ".join(self.table)
            raise OptionError(f"its table has no column {name}", where=str(self.path), hint=known)
        return self.table[name]

    def numbers(self, column: str) -> Tensor:
        """A column [N] as float64, NaN where it is empty."""
        found = np.empty(len(self), dtype=np.float64)
        for k, text in enumerate(self.column(column)):
            number = number_of(text) if text else math.nan
            if number is None:
                where = f"{self.path}, {self.table['name'][k]}"
                raise NgcError(f"{column} is {text!r}, not a number", where=where)
            found[k] = number
        return torch.from_numpy(found)

    def having(self, column: str, values: Iterable[str | int | float]) -> Tensor:
        """Which networks have one of these values in a column, [N] bool. A number is that however
        it is written, 20 or 20.0; so is a text that no network has letter for letter."""
        cells = self.column(column)
        known, chosen = {*cells}, set[str]()
        for value in values:
            number = number_of(str(value))
            if value in known:
                chosen.add(str(value))
            elif number is not None:
                chosen |= {cell for cell in known if number_of(cell) == number}
        return torch.tensor([cell in chosen for cell in cells])


def number_of(text: str) -> float | None:
    """The number that a cell of a table holds."""
    try:
        return float(text)
    except ValueError:
        return None


def open_zoo(path: str | Path) -> Zoo:
    """The zoo in a folder that ``import_zoo`` wrote."""
    path = Path(path)
    facts = read_facts(path)
    if facts is None:
        raise NgcError("there is no zoo", where=str(path), hint="ngc zoo import DIR -o ZOO")
    if not facts.get("complete"):
        raise NgcError(
            "its import has not come to its end",
            where=str(path),
            hint="the same command again goes on with it",
        )
    return _opened(path, facts)


def _opened(path: Path, facts: dict[str, Any]) -> Zoo:
    known: dict[str, int] = {}
    places: list[list[tuple[int, Place]]] = []
    counts: list[int] = []  # rows of each architecture so far
    which: list[int] = []
    rows: list[int] = []
    table: dict[str, list[str]] = {}
    same: dict[str, str] = {}  # one text in memory for all equal ones
    for number in range(len(facts["shards"])):
        header, _ = read_header(rows_path(path, number))
        columns, lines = read_table(table_path(path, number))
        for digest in sorted(header):
            if digest not in known:
                known[digest] = len(known)
                places.append([])
                counts.append(0)
            places[known[digest]].append((number, header[digest]))
        before = len(which)
        try:
            own = {name: columns.index(name) for name in ("name", "architecture", "row")}
            for line in lines:
                architecture, row = known[line[own["architecture"]]], int(line[own["row"]])
                if not 0 <= row < header[line[own["architecture"]]].count:
                    raise ValueError(row)
                which.append(architecture)
                rows.append(row + counts[architecture])
        except (ValueError, KeyError) as error:
            where = str(table_path(path, number))
            raise NgcError("its rows do not fit the weights beside it", where=where) from error
        for k, column in enumerate(columns):
            if k in (own["architecture"], own["row"]):
                continue
            values = table.setdefault(column, [""] * before)
            values.extend(same.setdefault(line[k], line[k]) for line in lines)
        for values in table.values():
            values.extend([""] * (len(which) - len(values)))
        for digest, place in header.items():
            counts[known[digest]] += place.count
    if not which:
        raise ModelError("it holds no network", where=str(path))
    return Zoo(
        path,
        Architectures(path, list(known)),
        torch.tensor(which),
        torch.tensor(rows),
        table,
        facts,
        tuple(map(tuple, places)),
        Files(path),
    )


def facts_path(folder: Path) -> Path:
    return folder / "zoo.json"


def read_facts(folder: Path) -> dict[str, Any] | None:
    """zoo.json; None where there is none."""
    path = facts_path(folder)
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise NgcError(f"cannot read it ({error})", where=str(path)) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("shards"), list):
        raise NgcError("not the description of a zoo", where=str(path))
    if facts.get("format") != FORMAT:
        raise NgcError(f"format {facts.get('format')}, ngc reads {FORMAT}", where=str(path))
    return facts
