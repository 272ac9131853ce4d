"""What every frontend hands over: a model that was read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir


@dataclass(frozen=True)
class Place:
    """Where a tensor of a framework is: the parameter ``name``, in another ``shape`` if it is."""

    name: str
    shape: tuple[int, ...]

    def read(self, params: Mapping[str, np.ndarray]) -> np.ndarray:
        return params[self.name].reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Origin:
    """What the framework that a model comes from calls its tensors.

    ``places``: tensors that are in the ONNX model, several names for one where they are tied;
    ``rest``: the values of those that are not (counters, buffers that nothing reads); ``extra``:
    what else the model keeps under a name.
    """

    framework: str
    places: Mapping[str, Place]
    rest: Mapping[str, np.ndarray]
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Sample:
    """What the model of a framework itself answers: inputs and outputs in the order of the ONNX
    model's. Held against the program, it shows what went wrong on the way to ONNX."""

    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class Exported:
    """What the frontend of a framework makes of a model: ONNX, the names of its tensors, its own
    answers, if it can be run, and what the user should know."""

    proto: onnx.ModelProto
    origin: Origin
    sample: Sample | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Source:
    """A model that was read: self-contained (no external data), checked, nodes in order.

    ``model`` shares its tensors with ``proto``. Where normalising changed weights, ``folded`` says
    which tensors of ``original`` each changed tensor was computed from. ``origin``: names of the
    tensors in the framework that the model was exported from; ``sample``: answers of its own.
    """

    proto: onnx.ModelProto
    model: onnx_ir.Model
    name: str
    notes: tuple[str, ...] = ()
    folded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    original: onnx.ModelProto | None = None
    origin: Origin | None = None
    sample: Sample | None = None
