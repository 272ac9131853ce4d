"""What every importer offers: the names of its members, and one network after another."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from ngc.errors import ModelError, NgcError
from ngc.zoo.compiling import Compiler

SAMPLED = 64  # files whose sizes are looked at, to tell how large a member is


@dataclass(frozen=True)
class Member:
    """One network before it is read: its name in the source, and what is known of it."""

    name: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Network:
    """One network: the hash of its architecture, its parameters [parameters], and its metadata."""

    architecture: str
    row: np.ndarray
    metadata: Mapping[str, str]


class Importer(ABC):
    """A source of networks. It goes to other processes: what it keeps open, ``Compiler.kept``
    holds."""

    kind: ClassVar[str]
    source: Path

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Of all members, in an order that is always the same."""

    @abstractmethod
    def members(self, start: int, stop: int) -> list[Member]:
        """Those with these numbers; the metadata of tables are looked up here."""

    @abstractmethod
    def read(self, member: Member, compiler: Compiler) -> Network:
        """One network; an NgcError says why it cannot be read."""

    @abstractmethod
    def member_bytes(self) -> int:
        """About how large a member is."""

    def prepare(self, compiler: Compiler) -> None:  # noqa: B027 (most need nothing)
        """What every network needs: an error here is none of a member. Once a process."""

    def notes(self) -> list[str]:
        """What is odd about the source as a whole, in a line each."""
        return []

    def settings(self) -> dict[str, str]:
        """What else the zoo depends on: an import only goes on if it is the same."""
        return {}


def files_below(folder: Path, suffixes: Sequence[str]) -> Iterator[str]:
    """Files with one of these suffixes in a folder and the folders in it, in no order; hidden ones
    are no members."""
    if folder.is_file():
        yield from [folder.name] if folder.suffix in suffixes else []
        return
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = "" if place == str(folder) else f"{Path(place).relative_to(folder).as_posix()}/"
        for name in files:
            if name.endswith(tuple(suffixes)) and not name.startswith("."):
                yield inner + name


def inside(source: Path, name: str) -> Path:
    """The file of a member."""
    return source if source.is_file() else source / name


def mean_bytes(source: Path, names: Sequence[str]) -> int:
    """Of some of the files."""
    some = names[:: max(1, len(names) // SAMPLED)]
    sizes = [path.stat().st_size for name in some if (path := inside(source, name)).is_file()]
    return sum(sizes) // max(1, len(sizes))


def none_found(source: Path, what: str, hint: str = "") -> NgcError:
    return ModelError(f"no {what} found in it", where=str(source), hint=hint)
