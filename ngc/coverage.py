"""Where each parameter of a source model has gone: on the graph, folded, or not represented."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ngc.ir.program import Program

ON_GRAPH = "on the graph"
FOLDED = "folded"
ABSENT = "not represented"


@dataclass(frozen=True)
class Fate:
    """What became of one floating-point tensor of the source model, and why."""

    name: str
    shape: tuple[int, ...]
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Coverage:
    """The fate of every parameter of a model; ``complete`` when each is on the graph or has a
    reason not to be."""

    fates: tuple[Fate, ...]

    def of(self, state: str) -> tuple[Fate, ...]:
        return tuple(fate for fate in self.fates if fate.state == state)

    @property
    def complete(self) -> bool:
        return all(fate.state == ON_GRAPH or fate.reason for fate in self.fates)


def coverage(
    program: Program,
    on_graph: np.ndarray,
    initializers: Mapping[str, tuple[int, ...]],
    reasons: Mapping[str, str],
    folded: Mapping[str, tuple[str, ...]],
) -> Coverage:
    """``on_graph`` [slots]: which entries are on a node or edge; ``initializers``: shapes of the
    floating-point tensors of the source; ``reasons``: why one that is no parameter is not;
    ``folded``: parameters changed before lowering, and what each was computed from."""
    fates: list[Fate] = []
    derived: dict[str, list[str]] = {}
    for param in program.params:
        sources = param.derived or folded.get(param.name, ())
        for source in sources:
            derived.setdefault(source, []).append(param.name)
        found = on_graph[param.offset : param.offset + param.size]
        if found.all():
            reason = f"computed from {', '.join(sources)}" if sources else ""
            fates.append(Fate(param.name, param.shape, ON_GRAPH, reason))
        else:
            missing = int((~found).sum())
            fates.append(Fate(param.name, param.shape, ABSENT, _unused(missing, param.size)))
    known = {fate.name for fate in fates}
    for name, shape in initializers.items():
        if name in known:
            continue
        if name in derived:
            into = ", ".join(derived[name])
            fates.append(Fate(name, shape, FOLDED, f"evaluated into {into}"))
        else:
            fates.append(Fate(name, shape, ABSENT, reasons.get(name, "")))
    return Coverage(tuple(fates))


def _unused(missing: int, size: int) -> str:
    missed = f"{missing} of {size} entries"
    return f"{missed} take no part in the result (sliced away or multiplied by zero)"
