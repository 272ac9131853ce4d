"""Networks of a zoo as a set to learn from: filters, splits by training run, weights on disk."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ngc.compiler import Compilation
from ngc.errors import NgcError, OptionError
from ngc.options import Options
from ngc.train.columns import encoded
from ngc.train.networks import Family, NetworkSet
from ngc.train.recipe import ZooData
from ngc.zoo import Rows, Zoo
from ngc.zoo.architectures import slots_of

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Stored:
    """Weights [n, slots] of networks of one architecture that stay in their files: taking some of
    them reads these alone, and puts them on ``device``."""

    rows: Rows
    device: torch.device

    def __getitem__(self, numbers: Tensor) -> Tensor:
        return slots_of(self.rows[numbers]).to(self.device)

    def to(self, device: torch.device) -> Stored:
        return Stored(self.rows, torch.device(device))


def from_zoo(
    zoo: Zoo, options: Options, data: ZooData, target: str, columns: Sequence[str] = ()
) -> NetworkSet:
    """The networks of a zoo that a recipe asks for; labels are the column ``target``, and models
    are told ``columns``."""
    if target in columns:
        raise OptionError(f"{target} is what is to be predicted", where="model.columns")
    chosen = chosen_of(zoo, data.where)
    label = zoo.numbers(target)[chosen]
    wrong = torch.nonzero(~((label >= 0) & (label <= 1))).flatten()
    if len(wrong):
        name, value = zoo.table["name"][int(chosen[wrong[0]])], float(label[wrong[0]])
        found = "no number" if math.isnan(value) else f"{value:g}"
        raise OptionError(
            f"{target} of {len(wrong)} networks is not from 0 to 1: of {name} it is {found}",
            where=str(zoo.path),
            hint="data.where, or another task.target",
        )
    used, family = zoo.architecture[chosen].unique(return_inverse=True)
    families = tuple(
        Family(one, Stored(zoo.rows(k), torch.device("cpu")))
        for k, one in zip(used.tolist(), compiled_alike(zoo, used.tolist(), options))
    )
    words = zoo.table.get("family")
    splits = splits_of(zoo, chosen, data)
    names, told = encoded(zoo, columns, chosen[splits["train"]])
    return NetworkSet(
        families=families,
        family=family,
        row=zoo.row[chosen],
        label=label.float(),
        splits=splits,
        names=tuple(zoo.table["name"][k] for k in chosen.tolist()),
        groups=tuple(words[k] for k in chosen.tolist()) if words else depths(families, family),
        key=digest_of(zoo),
        columns=names,
        told=told[chosen] if columns else None,
    )


def digest_of(zoo: Zoo) -> str:
    """Identifies a zoo by what it says of itself and its table; weights are not read for it."""
    found = hashlib.sha256(json.dumps(zoo.facts, sort_keys=True).encode())
    for column, values in zoo.table.items():
        found.update(json.dumps([column, values]).encode())
    return found.hexdigest()[:16]


def compiled_alike(zoo: Zoo, used: list[int], options: Options) -> list[Compilation]:
    """The architectures as graphs whose kernels are of one size: the largest, if none is given."""
    options = options.changed({"storage": "padded"})
    found = [zoo.architectures[k].compilation(options) for k in used]
    if options.kernel is not None:
        return found
    sizes = [one.plan.graph.layout.kernel for one in found]
    if len({len(size) for size in sizes}) > 1:
        raise NgcError("kernels have different numbers of axes", hint="graph.kernel")
    alike = options.changed({"kernel": tuple(max(axis) for axis in zip(*sizes))})
    return [zoo.architectures[k].compilation(alike) for k in used]


def chosen_of(zoo: Zoo, where: Mapping[str, str | int | float]) -> Tensor:
    """Numbers of the networks whose columns have these values."""
    kept = torch.ones(len(zoo), dtype=torch.bool)
    for column, value in where.items():
        kept &= zoo.having(column, [value])
    if not kept.any():
        known = "; ".join(f"{column}: {_values(zoo, column)}" for column in where)
        raise OptionError("no network is left", where="data.where", hint=known)
    return torch.nonzero(kept).flatten()


def _values(zoo: Zoo, column: str) -> str:
    """Some of those that a column has."""
    found = list(dict.fromkeys(zoo.column(column)))
    return ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")


def depths(families: tuple[Family, ...], family: Tensor) -> tuple[str, ...]:
    """A word for each network where the zoo has none: how many layers it has."""
    layers = [int(one.compilation.plan.graph.nodes.layer.max()) for one in families]
    return tuple(f"{layers[k]} layers" for k in family.tolist())


# --- splits -------------------------------------------------------------------------------------


def splits_of(zoo: Zoo, chosen: Tensor, data: ZooData) -> dict[str, Tensor]:
    """Numbers among the chosen networks of each split, shuffled."""
    alone = data.split == "network"
    if not alone and not {"run", "split"} & zoo.table.keys():
        raise OptionError(
            "it has no column run, so checkpoints of one training could be in several splits",
            where=str(zoo.path),
            hint="a column run in the table; or data.split: network, where each is of its own",
        )
    column = zoo.table["name"] if alone or "run" not in zoo.table else zoo.column("run")
    runs = [column[k] for k in chosen.tolist()]
    if data.split == "table" or (data.split == "auto" and "split" in zoo.table):
        said = [zoo.column("split")[k] for k in chosen.tolist()]
        split = np.array([SPLITS.index(word) if word in SPLITS else -1 for word in said])
    else:
        split = split_by_run(runs, data.validation, data.test, data.split_seed)
    found = {}
    for number, name in enumerate(SPLITS):
        places = np.flatnonzero(split == number)
        order = np.random.default_rng((data.split_seed, number)).permutation(len(places))
        if not len(places):
            where = f"the split {name}"
            raise OptionError("no network is in it", where=where, hint="more networks")
        found[name] = torch.from_numpy(places[order])
    if data.train is not None:
        found["train"] = _whole_runs(found["train"], runs, data.train)
    return found


def split_by_run(runs: list[str], validation: float, test: float, seed: int) -> np.ndarray:
    """[n]: the split of each network, as a number. All networks of a run are in one."""
    names, run = np.unique(np.asarray(runs), return_inverse=True)
    count = len(names)
    aside = [max(1, round(share * count)) for share in (validation, test)]
    if sum(aside) >= count:
        raise OptionError(
            f"{count} training runs are too few for a split", where="data", hint="more networks"
        )
    split_of_run = np.zeros(count, dtype=np.int64)
    order = np.random.default_rng(seed).permutation(count)
    split_of_run[order[: aside[0]]] = SPLITS.index("validation")
    split_of_run[order[aside[0] : sum(aside)]] = SPLITS.index("test")
    return split_of_run[run]


def _whole_runs(numbers: Tensor, runs: list[str], most: int) -> Tensor:
    """At most so many of the networks: those of the first runs, as far as they fit, and of one run
    at least."""
    of_run: dict[str, list[int]] = {}
    for number in numbers.tolist():
        of_run.setdefault(runs[number], []).append(number)
    kept: set[int] = set()
    for inner in of_run.values():
        if kept and len(kept) + len(inner) > most:
            break
        kept.update(inner)
    return numbers[torch.tensor([number in kept for number in numbers.tolist()])]
