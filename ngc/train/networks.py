"""Sets of networks to learn from: weights on compiled plans, labels and splits -> batches.

Nothing here knows an architecture: parameters go into the slots of a compiled program by name, and
a batch of graphs is bound from the plan whenever it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from ngc.backends.blocks import bind_part, join, structure_of
from ngc.backends.graphs import GraphBatch
from ngc.backends.onnx_export import fill_skeleton, make_skeleton
from ngc.backends.probes import Prober, common_inputs
from ngc.backends.torch_exec import unpack
from ngc.compiler import Compilation, compile
from ngc.errors import NgcError, OptionError
from ngc.ir.slots import FIRST_SLOT, ONE
from ngc.models import Facts
from ngc.options import Options
from ngc.symmetry import SymmetryGroup, slot_permutation, symmetries
from ngc.train.images import SPLITS

if TYPE_CHECKING:
    import onnx

    from ngc.train.inr_sets import InrSet

Params = Mapping[str, Tensor]


class Weights(Protocol):
    """Weights [n, slots]: a tensor, or what reads some of them from files when they are taken."""

    def __getitem__(self, numbers: Tensor, /) -> Tensor: ...

    def to(self, device: torch.device, /) -> Weights: ...


@dataclass(frozen=True, eq=False)
class Family:
    """Networks of one architecture: one of them compiled, and the weights [n, slots] of all."""

    compilation: Compilation
    weights: Weights

    @cached_property
    def prober(self) -> Prober:
        return Prober(self.compilation.wiring, self.compilation.plan)

    def params(self, weights: Tensor) -> dict[str, Tensor]:
        """Parameters by name, [n, *shape] each, of weights [n, slots]: views."""
        return {
            param.name: weights[:, param.offset : param.offset + param.size].unflatten(
                1, param.shape
            )
            for param in self.compilation.program.params
        }

    def packed(self, params: Params) -> Tensor:
        """Weights [n, slots] of stacked parameters; the inverse of ``params``."""
        return pack_stack(self.compilation, params)

    @cached_property
    def symmetries(self) -> SymmetryGroup:
        return symmetries(self.compilation.wiring)

    def permuted(self, weights: Tensor, generator: torch.Generator) -> Tensor:
        """The same networks, of weights [n, slots], with their neurons in another order each."""
        device = generator.device
        seeds = torch.randint(2**62, (len(weights),), generator=generator, device=device).tolist()
        wiring = self.compilation.wiring
        orders = [slot_permutation(wiring, self.symmetries.random_element(s)) for s in seeds]
        return weights.gather(1, torch.from_numpy(np.stack(orders)).long().to(weights.device))

    def onnx(self, weights: Tensor) -> onnx.ModelProto:
        """The network of weights [slots], in the form of the model that was compiled."""
        one = self.compilation
        skeleton = make_skeleton(one.source.proto, one.program.params, one.arrays)
        return fill_skeleton(skeleton, unpack(one.program, weights))


def pack_stack(compilation: Compilation, params: Params) -> Tensor:
    """Weights [n, slots] of stacked parameters {name: [n, *shape]}."""
    program = compilation.program
    first = next(iter(params.values()))
    weights = first.new_zeros(len(first), program.num_slots)
    weights[:, ONE] = 1
    for param in program.params:
        if param.name not in params or tuple(params[param.name].shape[1:]) != param.shape:
            found = list(params[param.name].shape[1:]) if param.name in params else "nothing"
            raise NgcError(f"the set has {found}, not {list(param.shape)}", where=param.name)
        weights[:, param.offset : param.offset + param.size] = params[param.name].flatten(1)
    return weights


@dataclass(frozen=True, eq=False)
class Member:
    """The networks of a batch that are of one architecture: their ``places`` [n] in the batch and
    their ``weights`` [n, slots]."""

    family: Family
    places: Tensor
    weights: Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Some networks of a set: their ``numbers`` [b] there, their graphs, and their weights by
    architecture, in the order of the parts of ``graphs``."""

    numbers: Tensor
    graphs: GraphBatch
    members: tuple[Member, ...]


# New weights [n, slots] of networks of a family, for old ones.
Change = Callable[[Family, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class NetworkSet:
    """Networks of one or several architectures.

    Network k has the weights ``families[family[k]].weights[row[k]]`` and the label ``label[k]``, a
    number in ``classes``, or where there are none what is to be predicted; ``splits`` has the
    numbers of the networks of "train", "validation" and "test". ``source`` [N, 2] is the split
    and the number there of the picture an INR was fitted to.
    ``names`` and ``groups``, a word for its kind of architecture, are of each network, for reports.
    ``told`` [N, c] is what a table says of the networks, as numbers called ``columns`` [c].
    ``key`` identifies weights that lie in files.
    """

    families: tuple[Family, ...]
    family: Tensor
    row: Tensor
    label: Tensor
    splits: dict[str, Tensor]
    classes: tuple[str, ...] = ()
    source: Tensor = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.long))
    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    key: str = ""
    columns: tuple[str, ...] = ()
    told: Tensor | None = None

    def __len__(self) -> int:
        return len(self.row)

    @property
    def device(self) -> torch.device:
        return self.row.device

    def batch(self, numbers: Tensor, change: Change | None = None) -> Batch:
        """The networks with these numbers [b]; ``change`` makes their parameters new ones."""
        numbers = numbers.to(self.device)
        members = []
        for which, family in enumerate(self.families):
            places = torch.nonzero(self.family[numbers] == which).flatten()
            if len(places):
                weights = family.weights[self.row[numbers[places]]]
                if change is not None:
                    weights = change(family, weights)
                members.append(Member(family, places, weights))
        graphs = graphs_of(members)
        if self.told is not None:
            graphs = replace(graphs, told=self.told[numbers])
        return Batch(numbers, graphs, tuple(members))

    def facts(self) -> Facts:
        """What a model must know, of the training networks."""
        train = self.splits["train"]
        counts = torch.bincount(self.family[train], minlength=len(self.families)).tolist()
        used = [(one, count) for one, count in zip(self.families, counts) if count]
        structures = [(structure_of(one.compilation.plan), count) for one, count in used]
        facts = Facts.of(structures, common_inputs([one.prober for one, _ in used]))
        return replace(facts, columns=self.columns)

    def to(self, device: torch.device | str) -> NetworkSet:
        """A copy on a device; this one if it is there."""
        device = torch.device(device)
        if device == self.device:
            return self
        return replace(
            self,
            families=tuple(replace(one, weights=one.weights.to(device)) for one in self.families),
            family=self.family.to(device),
            row=self.row.to(device),
            label=self.label.to(device),
            splits={name: numbers.to(device) for name, numbers in self.splits.items()},
            source=self.source.to(device),
            told=None if self.told is None else self.told.to(device),
        )

    def digest(self) -> str:
        """Identifies weights, labels and splits."""
        found = hashlib.sha256(repr(self.classes).encode() + self.key.encode())
        tensors = [self.family, self.row, self.label, *self.splits.values()]
        tensors += [one.weights for one in self.families if isinstance(one.weights, Tensor)]
        for tensor in tensors:
            found.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        return found.hexdigest()[:16]


def graphs_of(members: Sequence[Member]) -> GraphBatch:
    """The graphs of networks of several architectures, in the order of their places."""
    return join(
        [
            (bind_part(one.family.compilation.plan, one.weights, one.family.prober), one.places)
            for one in members
        ]
    )


# --- sets of INRs ---------------------------------------------------------------------------------


def from_inrs(
    inrs: InrSet,
    options: Options,
    *,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
    seed: int = 0,
    classes: tuple[str, ...] = (),
) -> NetworkSet:
    """INRs as networks, with the first one compiled for all of them.

    ``train``, ``test``: how many to take, all by default. ``validation``: how many of the set's own
    validation split, all by default; where it has none, how many training networks to set aside, by
    default a tenth. Where it has no test split, test networks are set aside first in the same way.
    Which ones follows from the seed; the validation networks do not depend on how
    many are trained on.
    """
    compilation = compile(inrs.onnx(0), options=options)
    family = Family(compilation, pack_stack(compilation, inrs.params))
    splits = split_numbers(inrs.split, train, validation, test, seed)
    count = int(inrs.label.max()) + 1
    return NetworkSet(
        families=(family,),
        family=torch.zeros(len(inrs), dtype=torch.long),
        row=torch.arange(len(inrs)),
        label=inrs.label,
        splits=splits,
        classes=classes or _names(inrs) or tuple(str(k) for k in range(count)),
        source=torch.stack([inrs.split, inrs.index], dim=1),
    )


def _names(inrs: InrSet) -> tuple[str, ...]:
    """Of the classes, where the set knows one for each."""
    names = inrs.origin.get("classes", [])
    known = isinstance(names, list) and len(names) > int(inrs.label.max())
    return tuple(str(name) for name in names) if known else ()


def split_numbers(
    split: Tensor, train: int | None, validation: int | None, test: int | None, seed: int
) -> dict[str, Tensor]:
    """Numbers of the networks of each split, shuffled; ``split`` [N] is the set's own."""
    known = {name: _shuffled(split == number, seed, number) for name, number in SPLITS.items()}
    if not len(known["test"]):  # a folder without splits
        count = test if test is not None else max(1, len(known["train"]) // 10)
        known["test"] = _taken(known["train"], count, "test")
        known["train"] = known["train"][count:]
    if len(known["validation"]):
        aside = _taken(known["validation"], validation, "validation")
        found = {"train": known["train"], "validation": aside}
    else:
        count = validation if validation is not None else max(1, len(known["train"]) // 10)
        found = {
            "train": _taken(known["train"], None, "train", count),
            "validation": _taken(known["train"], count, "validation"),
        }
    return {
        "train": _taken(found["train"], train, "train"),
        "validation": found["validation"],
        "test": _taken(known["test"], test, "test"),
    }


def _shuffled(chosen: Tensor, seed: int, split: int) -> Tensor:
    numbers = torch.nonzero(chosen).flatten().numpy()
    return torch.from_numpy(np.random.default_rng((seed, split)).permutation(numbers))


def _taken(numbers: Tensor, count: int | None, name: str, skipped: int = 0) -> Tensor:
    """The first ``count`` numbers after those skipped, all by default; there must be some."""
    left = max(0, len(numbers) - skipped)
    if left < (count or 1):
        found = f"the set has {left} networks left for it, not {count or 'any'}"
        raise OptionError(found, where=f"data.{name}", hint="fewer networks, or a larger set")
    return numbers[skipped : skipped + count] if count is not None else numbers[skipped:]


def weight_change(vector: Tensor) -> float:
    """Root mean square of a change of the weights [..., slots], constants left out."""
    return float(vector[..., FIRST_SLOT:].square().mean().sqrt())
