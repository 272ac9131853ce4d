"""What ``ngc zoo train`` writes.

zoo_train.yaml                    the recipe
networks/ID/network.json          {"architecture": ..., "run": ..., "seed": ..., "hyper": {...}}
networks/ID/EPOCH.safetensors     the state_dict after that epoch
networks/ID/metrics.csv           epoch, train_loss, test_loss, accuracy
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ngc.checkpoints import read_tensors
from ngc.errors import ModelError
from ngc.zoo import wild_park
from ngc.zoo.compiling import Compiler
from ngc.zoo.importers.base import Importer, Member, Network, mean_bytes, none_found
from ngc.zoo.importers.modules import config_of, family_of, row_of
from ngc.zoo.importers.tables import check_meaning

NETWORKS, ABOUT, METRICS, SUFFIX = "networks", "network.json", "metrics.csv", ".safetensors"


@dataclass(frozen=True)
class About:
    """What is known of the checkpoints of one network: of all, and of each epoch."""

    config: wild_park.Config
    told: dict[str, str]
    epochs: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Made(Importer):
    kind: ClassVar[str] = "made"

    source: Path

    @cached_property
    def _names(self) -> list[str]:
        names = []
        for about in sorted((self.source / NETWORKS).glob(f"*/{ABOUT}")):
            epochs = [path.stem for path in about.parent.glob(f"[0-9]*{SUFFIX}")]
            for epoch in sorted((e for e in epochs if e.isdecimal()), key=int):
                names.append(f"{about.parent.name}/{epoch}{SUFFIX}")
        if not names:
            what = "checkpoints"
            raise none_found(self.source, what, f"{NETWORKS}/ID/EPOCH{SUFFIX}, of ngc zoo train")
        return names

    def names(self) -> Sequence[str]:
        return self._names

    def members(self, start: int, stop: int) -> list[Member]:
        return [Member(name) for name in self._names[start:stop]]

    def read(self, member: Member, compiler: Compiler) -> Network:
        path = self.source / NETWORKS / member.name
        about = compiler.recent(str(path.parent), lambda: _about(path.parent))
        if path.stem not in about.epochs:
            raise ModelError(f"no row for epoch {path.stem} in {METRICS}")
        told = {**about.told, **about.epochs[path.stem]}
        check_meaning(told, "")
        architecture, row = row_of(about.config, read_tensors(path), compiler)
        return Network(architecture, row, {**told, "family": family_of(about.config)})

    def member_bytes(self) -> int:
        return mean_bytes(self.source / NETWORKS, self._names)

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source}


def _about(folder: Path) -> About:
    try:
        about = json.loads((folder / ABOUT).read_text())
        with (folder / METRICS).open(newline="") as file:
            rows = list(csv.DictReader(file))
        told = {"run": str(about["run"])}
        told |= {f"hyper.{name}": str(value) for name, value in about.get("hyper", {}).items()}
        epochs = {}
        for row in rows:
            values = {name: value or "" for name, value in row.items() if name is not None}
            epoch = values.pop("epoch")
            epochs[epoch] = {"step": epoch, **values}
        return About(config_of(about["architecture"]), told, epochs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise ModelError(
            f"{ABOUT} or {METRICS} beside it cannot be read ({kind}: {error})"
        ) from error
