"""CNN Wild Park as published (Kofinas et al. 2024, Zenodo 12797219).

    RUN/CHECKPOINT/checkpoint.pt    {"model": state_dict, "config": ..., "last_result": ..., ...}
    *splits*.json                   {"train" | "val" | "test": {"path": [...], ...}}, if there

Networks are what the public code (neural-graphs, cnn_sampler.py) says: convolutions; before the
activation the output of an earlier layer is added to the first channels, as many as both have;
global average pool; linear.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ngc.errors import ModelError, NgcError
from ngc.zoo import wild_park
from ngc.zoo.compiling import Compiler
from ngc.zoo.importers.base import Importer, Member, Network, files_below, mean_bytes, none_found
from ngc.zoo.importers.inert import read_torch_file
from ngc.zoo.importers.modules import family_of, row_of
from ngc.zoo.importers.tables import check_meaning, digest_of_file

CHECKPOINT = "checkpoint.pt"
SIZE = 32  # of the images of CIFAR-10
SPLITS = {"train": "train", "val": "validation", "test": "test"}
ACTIVATIONS = {"none": "identity"}  # theirs -> ours
PER_LAYER = ("kernel_size", "stride", "padding", "residual", "activation")


@dataclass(frozen=True)
class WildPark(Importer):
    kind: ClassVar[str] = "wild-park"

    source: Path

    @cached_property
    def _names(self) -> list[str]:
        names = sorted(checkpoints_below(self.source))
        if not names:
            raise none_found(self.source, "checkpoints", f"RUN/CHECKPOINT/{CHECKPOINT}")
        return names

    @cached_property
    def _splits_file(self) -> Path | None:
        """The file of splits in the folder, if there is one."""
        found = sorted(path for path in self.source.glob("*.json") if "split" in path.name)
        if len(found) > 1:
            listed = ", ".join(path.name for path in found)
            raise NgcError(f"several files of splits: {listed}", where=str(self.source))
        return found[0] if found else None

    @cached_property
    def _splits(self) -> dict[tuple[str, ...], str]:
        """The split of each checkpoint, by its run and its name."""
        return {} if self._splits_file is None else dict(_listed(self._splits_file))

    def names(self) -> Sequence[str]:
        if self._splits:
            lost = [name for name in self._names if _ends(name) not in self._splits]
            if lost:
                what = f"{len(lost):,} checkpoints are in no split: {', '.join(lost[:5])}"
                raise NgcError(what, where=str(self._splits_file))
        return self._names

    def members(self, start: int, stop: int) -> list[Member]:
        found = []
        for name in self._names[start:stop]:
            told = {"split": self._splits[_ends(name)]} if self._splits else {}
            found.append(Member(name, {"run": Path(name).parent.parent.as_posix(), **told}))
        return found

    def read(self, member: Member, compiler: Compiler) -> Network:
        content = read_torch_file(self.source / member.name)
        config = config_of(content.get("config"))
        architecture, row = row_of(config, content["model"], compiler)
        result = content.get("last_result")
        result = result if isinstance(result, dict) else {}
        known = {
            "accuracy": result.get("test/acc"),
            "run": member.metadata["run"],
            "step": content.get("iteration"),
            "split": member.metadata.get("split"),
            "family": family_of(config),
            "test_loss": result.get("test/loss"),
        }
        told = {key: str(value) for key, value in known.items() if value is not None}
        check_meaning(told, "")
        return Network(architecture, row, told)

    def member_bytes(self) -> int:
        return mean_bytes(self.source, self._names)

    def settings(self) -> dict[str, str]:
        file = self._splits_file
        return {} if file is None else {"splits": digest_of_file(file)}

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source}


def checkpoints_below(folder: Path) -> Iterator[str]:
    for name in files_below(folder, (CHECKPOINT,)):
        if name.endswith(f"/{CHECKPOINT}") and name.count("/") >= 2:
            yield name


def config_of(values: Any) -> wild_park.Config:
    """Their configuration as ours."""
    if not isinstance(values, Mapping):
        raise ModelError("it has no config")
    missing = [name for name in ("channels", "n_classes", *PER_LAYER) if name not in values]
    if missing:
        raise ModelError(f"its config has no {', '.join(missing)}")
    channels = values["channels"]
    columns = [values[name] for name in PER_LAYER]
    if not isinstance(channels, list) or any(
        not isinstance(column, list) or len(column) != len(channels) - 1 for column in columns
    ):
        raise ModelError("the lists of its config differ in length")
    layers = []
    for count, kernel, stride, padding, residual, activation in zip(channels[1:], *columns):
        if not isinstance(kernel, int) or padding != kernel // 2:
            raise ModelError(f"a kernel of {kernel} with padding {padding}; half of it is read")
        layer = {"channels": count, "kernel": kernel, "stride": stride}
        layer["activation"] = ACTIVATIONS.get(activation, activation)
        layers.append({**layer, "skip": None if residual == -1 else residual})
    return wild_park.Config.from_dict(
        {"layers": layers, "inputs": [channels[0], SIZE, SIZE], "classes": values["n_classes"]}
    )


def _listed(path: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """Checkpoints of a file of splits."""
    try:
        content = json.loads(path.read_text())
        for name, listed in content.items():
            paths = listed["path"] if isinstance(listed, dict) else listed
            for text in paths:
                yield _ends(text), SPLITS[name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        expected = '{"train" | "val" | "test": {"path": [...]}}'
        raise NgcError("not a file of splits", where=str(path), hint=expected) from error


def _ends(path: str) -> tuple[str, ...]:
    """Run and checkpoint: what lists name before these depends on where they were written."""
    return Path(path).parts[-3:-1]
