"""Kinds of settings that constructors of models share; recipes are checked against them."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

Size = Annotated[int, Ge(1)]
Count = Annotated[int, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]
Deviation = Annotated[float, Ge(0)]
Memory = Annotated[float, Gt(0)]

# Whether activation functions are embedded: none, those of the training networks, or these by name.
Activations = bool | tuple[str, ...]

Readout = Literal["outputs", "mean", "max", "attention"]
Pool = Literal["max", "mean", "sum"]
