"""The user's own table of a folder: ``--table FILE.csv`` with a row for each member.

Only where each row begins is kept in memory; the rows of a shard are read when it is imported.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ngc.errors import NgcError

KEYS = ("name", "file")  # columns that say which member a row is of
SHOWN = 5


@dataclass(frozen=True)
class Table:
    """Where the rows of a CSV begin, by the name of their member."""

    path: Path
    columns: tuple[str, ...] = ()
    key: int = 0
    starts: dict[str, int] = field(default_factory=dict, repr=False)
    digest: str = ""

    @classmethod
    def read(cls, path: Path) -> Table:
        if not path.is_file():
            raise NgcError("there is no such file", where=str(path))
        rows = _rows(path)
        _, header = next(rows, (0, []))
        header = [text.strip() for text in header]
        header[:1] = [text.lstrip("\ufeff") for text in header[:1]]
        key = next((header.index(name) for name in KEYS if name in header), None)
        if key is None:
            raise NgcError(
                f"no column is called name or file; its columns: {', '.join(header) or 'none'}",
                where=str(path),
                hint="name,accuracy,run,step with paths like runs/a/10.onnx as names",
            )
        starts: dict[str, int] = {}
        wrong: list[NgcError] = []
        for start, row in rows:
            if not row:
                continue
            if len(row) != len(header):
                where = f"{path}, row {len(starts) + 1}"
                raise NgcError(f"{len(row)} fields, not {len(header)}", where=where)
            name = PurePosixPath(row[key].strip()).as_posix()
            if name in starts:
                raise NgcError(f"two rows for {name}", where=str(path))
            starts[name] = start
            try:
                check_meaning(dict(zip(header, row)), name)
            except NgcError as error:
                wrong.append(error)
        if wrong:
            hint = next((error.hint for error in wrong if error.hint), "")
            raise NgcError(_listed(wrong), where=str(path), hint=hint)
        return cls(path, tuple(header), key, starts, digest_of_file(path))

    def require(self, names: Sequence[str]) -> None:
        """An error that names members without a row."""
        missing = [name for name in names if self._start(name) is None]
        if missing:
            more = f", and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
            raise NgcError(
                f"no row for {len(missing):,} of {len(names):,} members: "
                f"{', '.join(missing[:SHOWN])}{more}",
                where=str(self.path),
                hint="paths relative to the folder, with or without suffix, in the column "
                f"{self.columns[self.key]}",
            )

    def without_member(self, names: Sequence[str]) -> list[str]:
        """Names of rows that are of none of these members."""
        bare = (PurePosixPath(name).with_suffix("").as_posix() for name in names)
        return sorted(self.starts.keys() - {*names, *bare})

    def rows_of(self, names: Sequence[str]) -> list[dict[str, str]]:
        """What the table says of these members."""
        found = []
        with self.path.open("rb") as file:
            for name in names:
                start = self._start(name)
                assert start is not None
                file.seek(start)
                row = next(csv.reader(line.decode() for line in file))
                told = dict(zip(self.columns, (text.strip() for text in row)))
                del told[self.columns[self.key]]
                found.append(told)
        return found

    def _start(self, name: str) -> int | None:
        """Of a member's row, under its path with or without suffix."""
        bare = PurePosixPath(name).with_suffix("").as_posix()
        return self.starts.get(name, self.starts.get(bare))


def _listed(wrong: Sequence[NgcError]) -> str:
    """Errors of rows, in one text."""
    if len(wrong) == 1:
        return f"{wrong[0].where}: {wrong[0].message}"
    more = [f"  and {len(wrong) - SHOWN:,} more"] if len(wrong) > SHOWN else []
    shown = (f"  {error.where}: {error.message}" for error in wrong[:SHOWN])
    return "\n".join([f"{len(wrong):,} rows cannot be", *shown, *more])


SPLITS = ("train", "validation", "test")


def check_meaning(told: dict[str, str], where: str) -> None:
    """An accuracy is a number from 0 to 1, or not given; a split is one of three, or not given."""
    split = told.get("split", "").strip()
    if split and split not in SPLITS:
        raise NgcError(f"split is {split!r}", where=where, hint=", ".join(SPLITS))
    text = told.get("accuracy", "").strip()
    if text.lower() in ("", "nan"):
        return
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        hint = "a share: 0.93 for 93 %" if 1 < value <= 100 else ""
        raise NgcError(f"accuracy is {text!r}, not a number from 0 to 1", where=where, hint=hint)


def digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(where it begins, its fields) of every row of a CSV; a field may hold line ends."""
    position = start = 0
    with path.open("rb") as file:

        def lines() -> Iterator[str]:
            nonlocal position
            for line in file:
                position += len(line)
                yield line.decode()

        try:
            for row in csv.reader(lines()):
                yield start, row
                start = position
        except (csv.Error, UnicodeDecodeError) as error:
            raise NgcError(f"not a table ({error})", where=str(path)) from error
