"""Shards of a zoo: some networks in two files, written whole or not at all.

    shards/00000.safetensors   for each architecture a tensor [networks, parameters], by its hash
    shards/00000.csv           a row a network; it is written last, and says that the shard is done

The first is written row by row and read through a memory map.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ngc.errors import NgcError
from ngc.files import write_beside

DTYPES: dict[str, tuple[str, np.dtype]] = {
    "float32": ("F32", np.dtype("<f4")),
    "float16": ("F16", np.dtype("<f2")),
}
OF_CODE = dict(DTYPES.values())

# The columns that every table has, and those that have a meaning: they come first.
OWN = ("name", "architecture", "row")
MEANT = ("accuracy", "run", "step", "split", "family")


@dataclass
class Shard:
    """The networks of one shard, as they come: rows of each architecture, and the table."""

    rows: dict[str, list[np.ndarray]] = field(default_factory=dict)
    table: list[dict[str, str]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, digest: str, row: np.ndarray, metadata: Mapping[str, str]) -> None:
        rows = self.rows.setdefault(digest, [])
        own = {"name": name, "architecture": digest, "row": str(len(rows))}
        self.table.append(own | {key: metadata[key] for key in metadata if key not in own})
        rows.append(row)

    def write(self, folder: Path, number: int, dtype: str) -> None:
        write_beside(rows_path(folder, number), lambda file: self._write_rows(file, dtype))
        write_beside(table_path(folder, number), lambda file: file.write(self._csv()))

    def _write_rows(self, file: BinaryIO, dtype: str) -> None:
        code, kind = DTYPES[dtype]
        entries: dict[str, Any] = {
            "__metadata__": {"skipped": json.dumps(self.skipped)} if self.skipped else {}
        }
        start = 0
        for digest in sorted(self.rows):
            rows = self.rows[digest]
            size = len(rows) * len(rows[0]) * kind.itemsize
            entries[digest] = {
                "dtype": code,
                "shape": [len(rows), len(rows[0])],
                "data_offsets": [start, start + size],
            }
            start += size
        header = json.dumps(entries, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        file.write(len(header).to_bytes(8, "little") + header)
        for digest in sorted(self.rows):
            for row in self.rows[digest]:
                file.write(np.ascontiguousarray(row, dtype=kind).data)

    def _csv(self) -> bytes:
        found = dict.fromkeys(key for row in self.table for key in row)
        columns = [*OWN, *(c for c in MEANT if c in found)]
        columns += [c for c in found if c not in columns]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.table)
        return text.getvalue().encode()


def rows_path(folder: Path, number: int) -> Path:
    return folder / "shards" / f"{number:05d}.safetensors"


def table_path(folder: Path, number: int) -> Path:
    return folder / "shards" / f"{number:05d}.csv"


@dataclass(frozen=True)
class Place:
    """Where the rows of one architecture are in a shard: a tensor [count, parameters]."""

    offset: int
    count: int
    parameters: int
    dtype: np.dtype


def read_header(path: Path) -> tuple[dict[str, Place], list[tuple[str, str]]]:
    """The tensors of a shard by architecture, and its skipped members with the reasons."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            whole = path.stat().st_size
            entries = json.loads(file.read(min(size, whole)))
        told = entries.pop("__metadata__", {})
        skipped = [
            (str(name), str(reason)) for name, reason in json.loads(told.get("skipped", "[]"))
        ]
        places = {}
        for digest, entry in entries.items():
            count, parameters = entry["shape"]
            start, end = entry["data_offsets"]
            dtype = OF_CODE[entry["dtype"]]
            if end - start != count * parameters * dtype.itemsize or 8 + size + end > whole:
                raise ValueError("sizes")
            places[digest] = Place(8 + size + start, count, parameters, dtype)
    except OSError as error:
        raise NgcError(f"cannot read it: {error.strerror}", where=str(path)) from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise NgcError("not a shard of a zoo, or damaged", where=str(path)) from error
    return places, skipped


def read_table(path: Path) -> tuple[Sequence[str], list[list[str]]]:
    """Columns and rows of a CSV."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except OSError as error:
        raise NgcError(f"cannot read it: {error.strerror}", where=str(path)) from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise NgcError(f"not a table ({error})", where=str(path)) from error
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise NgcError("not a table: its rows differ in length", where=str(path))
    return rows[0], rows[1:]
