"""Which networks a trained model can read: all reasons against one together, before it is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn

from ngc.backends.graphs import GraphBatch, Part, Structure
from ngc.errors import OptionError


@dataclass(frozen=True)
class Fault:
    """What a network has, what this model knows instead, and a setting that has no such limit."""

    found: str
    known: str
    setting: str = ""


@runtime_checkable
class Limited(Protocol):
    """A module that cannot read every network."""

    def faults(self, part: Part) -> Iterator[Fault]: ...


def faults_of(model: nn.Module, part: Part) -> list[Fault]:
    """What all modules of a model have against networks of an architecture."""
    limited = [module for module in model.modules() if isinstance(module, Limited)]
    return list(dict.fromkeys(fault for module in limited for fault in module.faults(part)))


def refusal(faults: Iterable[Fault]) -> OptionError:
    """One error of all of them."""
    found = list(faults)
    listed = ", ".join(f"{fault.found} ({fault.known})" for fault in found)
    settings = ", ".join(dict.fromkeys(fault.setting for fault in found if fault.setting))
    ways = [f"with {settings}", "on such networks"] if settings else ["on such networks"]
    return OptionError(
        f"this model reads no network with {listed}", hint=f"one trained {', or '.join(ways)}"
    )


# Architectures that a model has nothing against: each is looked at once.
_READ: WeakKeyDictionary[nn.Module, WeakSet[Structure]] = WeakKeyDictionary()


def require(model: nn.Module, batch: GraphBatch) -> None:
    """Refuse a batch with networks that a model cannot read."""
    for part, parameter in zip(batch.parts, model.parameters()):
        kinds = {part.x.dtype, parameter.dtype}
        if len(kinds) > 1 and torch.float64 in kinds:
            raise OptionError(
                f"weights of {part.x.dtype} for a model of {parameter.dtype}",
                hint="weights.float(), or model.double()",
            )
    read = _READ.setdefault(model, WeakSet())
    for part in batch.parts:
        if part.structure not in read:
            if found := faults_of(model, part):
                raise refusal(found)
            read.add(part.structure)
