"""A part of another zoo, such as its last checkpoints, or its small networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from ngc.errors import OptionError
from ngc.zoo.architectures import write_architecture
from ngc.zoo.compiling import Compiler
from ngc.zoo.importers.base import Importer, Member, Network
from ngc.zoo.store import Zoo, open_zoo

Where = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class ZooPart(Importer):
    """``where``: the values that a column may have, for each column that counts;
    ``max_parameters``: of a network."""

    kind: ClassVar[str] = "zoo"

    source: Path
    where: Where = field(default_factory=dict)
    max_parameters: int | None = None

    @cached_property
    def zoo(self) -> Zoo:
        return open_zoo(self.source)

    @cached_property
    def _numbers(self) -> list[int]:
        kept = torch.ones(len(self.zoo), dtype=torch.bool)
        for column, values in self.where.items():
            kept &= self.zoo.having(column, values)
        if self.max_parameters is not None:
            sizes = torch.tensor([self.zoo.rows(k).parameters for k in self._architectures])
            kept &= (sizes <= self.max_parameters)[self.zoo.architecture]
        if not kept.any():
            raise OptionError("no network of it is chosen", where=str(self.source))
        return torch.nonzero(kept).flatten().tolist()

    @property
    def _architectures(self) -> range:
        return range(len(self.zoo.architectures))

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {self.zoo.table["name"][k]: k for k in self._numbers}

    def prepare(self, compiler: Compiler) -> None:
        norm = self.zoo.facts["norm"]
        if compiler.options.norm != norm:
            said = f"it was imported with norm={norm}"
            raise OptionError(said, where=str(self.source), hint=f"--norm {norm}")

    def names(self) -> Sequence[str]:
        return list(self._number_of)

    def members(self, start: int, stop: int) -> list[Member]:
        table = self.zoo.table
        return [
            Member(table["name"][k], {column: table[column][k] for column in table})
            for k in self._numbers[start:stop]
        ]

    def read(self, member: Member, compiler: Compiler) -> Network:
        number = self._number_of[member.name]
        which = int(self.zoo.architecture[number])
        one = self.zoo.architectures[which]
        compiler.kept(one.hash, lambda: write_architecture(compiler.folder, one))
        row = self.zoo.rows(which)[self.zoo.row[number][None]][0]
        return Network(one.hash, compiler.stored(row.numpy()), member.metadata)

    def member_bytes(self) -> int:
        return 4 * max(self.zoo.rows(k).parameters for k in self._architectures)

    def settings(self) -> dict[str, str]:
        told = {f"where {column}": ",".join(values) for column, values in self.where.items()}
        most = {} if self.max_parameters is None else {"parameters": str(self.max_parameters)}
        return {**told, **most}

    def __getstate__(self) -> dict[str, Any]:
        return {
            "source": self.source, "where": self.where, "max_parameters": self.max_parameters,
        }  # fmt: skip
