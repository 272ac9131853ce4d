"""Options of a compilation: one object for the API, the command line and recipes."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ngc.errors import OptionError

CHOICES: dict[str, tuple[str, ...]] = {
    "flatten": ("repeat", "virtual", "kernel"),
    "linear_as": ("conv1x1", "separate"),
    "norm": ("nodes", "fold"),
    "residual": ("direct", "nodes"),
    "attention": ("explicit", "fused"),
    "recurrent": ("rolled", "unrolled"),
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
    kernel: size that kernels are padded to, e.g. 7x7 or (7, 7), for kernels of one axis 7; None
        takes the largest of the model.
    linear_as: ``conv1x1`` centres a Linear's weight in the kernel, ``separate`` gives it a column.
    norm: ``nodes`` keeps normalisations as neurons, ``fold`` folds inference BatchNorm into the
        neighbouring weights.
    residual: ``direct`` ends skip edges in the neurons that are added to, ``nodes`` gives every sum
        neurons of its own.
    attention: ``explicit`` has neurons for queries, keys, values and scores; ``fused`` one for each
        head and inner dimension, with edges that carry (W_Q, W_K, W_V).
    recurrent: ``rolled`` has one set of neurons and edges for all steps of a recurrent network,
        with recurrent edges from its state; ``unrolled`` has neurons for every step.
    activation: ``embed`` makes it a category of the neuron, ``nodes`` gives it neurons.
    reverse: ``none``, ``append`` (reversed edges with the same features) or ``features`` (both
        directions, each with own weight, opposite weight and their sum).
    pos: position ids per ``layer`` (inputs and outputs one each), or ``none``.
    storage: kernels ``padded`` to one width, ``ragged``, or ``auto`` (padded while it is small,
        and wherever ``kernel`` is given or ``reverse`` is ``features``).
    input_axes: axes of an input that carry its neurons, where ngc's own choice is not wanted, e.g.
        {"x": (1, 2)} or {"x": "1,2"}.
    """

    flatten: str = "repeat"
    kernel: tuple[int, ...] | None = None
    linear_as: str = "conv1x1"
    norm: str = "nodes"
    residual: str = "direct"
    attention: str = "explicit"
    recurrent: str = "rolled"
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
        if self.kernel is not None:
            object.__setattr__(self, "kernel", _kernel(self.kernel))
        object.__setattr__(self, "input_axes", _input_axes(self.input_axes))

    def to_dict(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def changed(self, changes: Mapping[str, Any]) -> Options:
        """These options with some fields changed."""
        known = [f.name for f in fields(self)]
        for name in changes:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                listed = f"no option is called {name!r}; options: {', '.join(known)}"
                raise OptionError(listed, hint=near[0] if near else "")
        return replace(self, **changes)


def _kernel(given: object) -> tuple[int, ...]:
    try:
        kernel = _integers(given, "x")
    except (TypeError, ValueError):
        raise OptionError(f"cannot read the kernel size {given!r}", hint="7x7") from None
    if not kernel or any(n < 1 for n in kernel):
        raise OptionError(f"kernel cannot be {given!r}", hint="sizes like 7x7")
    return kernel


def _input_axes(given: object) -> dict[str, tuple[int, ...]]:
    if not isinstance(given, Mapping):
        raise OptionError(f"input_axes cannot be {given!r}", hint='{"x": "1,2"}')
    found = {}
    for name, axes in given.items():
        try:
            found[str(name)] = _integers(axes, ",")
        except (TypeError, ValueError):
            raise OptionError(
                f"cannot read the axes {axes!r} of input {name}", hint='{"x": "1,2"}'
            ) from None
    return found


def _integers(given: object, separator: str) -> tuple[int, ...]:
    """Numbers given as text, as one number or one after another."""
    if isinstance(given, str):
        return tuple(int(part) for part in given.split(separator)) if given else ()
    if isinstance(given, Iterable):
        return tuple(operator.index(part) for part in given)
    return (operator.index(given),)  # type: ignore[arg-type]
