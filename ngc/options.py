"""Options of a compilation: one object for the API, the command line and recipes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ngc.errors import OptionError

CHOICES: dict[str, tuple[str, ...]] = {
    "flatten": ("repeat", "virtual", "kernel"),
    "linear_as": ("conv1x1", "separate"),
    "norm": ("nodes", "fold"),
    "residual": ("direct", "nodes"),
    "activation": ("embed", "nodes"),
    "reverse": ("none", "append", "features"),
    "pos": ("layer", "none"),
    "storage": ("auto", "padded", "ragged"),
}


@dataclass(frozen=True)
class Options:
    """How a program becomes a graph (docs/graph-features.md).

    flatten: a Linear that reads a flattened map: ``repeat`` copies the neurons before it per
        position, ``virtual`` puts a layer of weight-one edges between, ``kernel`` makes the
        positions the kernel of the Linear's edges.
    kernel: largest kernel, e.g. (7, 7); None takes the largest of the model.
    linear_as: ``conv1x1`` centres a Linear's weight in the kernel, ``separate`` gives it a column.
    norm: ``nodes`` keeps normalisations as neurons, ``fold`` folds inference BatchNorm into the
        neighbouring weights.
    residual: ``direct`` ends skip edges in the neurons that are added to, ``nodes`` gives every sum
        neurons of its own.
    activation: ``embed`` makes it a category of the neuron, ``nodes`` gives it neurons.
    reverse: ``none``, ``append`` (reversed edges with the same features) or ``features`` (both
        directions, each with own weight, opposite weight and their sum).
    pos: position ids per ``layer`` (inputs and outputs one each), or ``none``.
    storage: kernels ``padded`` to one width, ``ragged``, or ``auto`` (padded while it is small,
        and wherever ``kernel`` is given or ``reverse`` is ``features``).
    input_axes: axes of an input that carry its neurons, where ngc's own choice is not wanted.
    """

    flatten: str = "repeat"
    kernel: tuple[int, ...] | None = None
    linear_as: str = "conv1x1"
    norm: str = "nodes"
    residual: str = "direct"
    activation: str = "embed"
    reverse: str = "none"
    pos: str = "layer"
    storage: str = "auto"
    input_axes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                hint = f"one of {', '.join(allowed)}"
                raise OptionError(f"{name} cannot be {value!r}", hint=hint)
        if self.reverse == "features" and self.storage == "ragged":
            raise OptionError("reverse=features needs padded kernels", hint="storage=padded")
        if self.kernel is not None and (not self.kernel or any(n < 1 for n in self.kernel)):
            raise OptionError(f"kernel cannot be {self.kernel!r}", hint="sizes like 7x7")

    def to_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}
