"""What every frontend hands over: a model that was read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
import onnx_ir


@dataclass(frozen=True, eq=False)
class Source:
    """A model that was read: self-contained (no external data), checked, nodes in order.

    ``model`` shares its tensors with ``proto``. Where normalising changed weights, ``folded`` says
    which tensors of ``original`` each changed tensor was computed from.
    """

    proto: onnx.ModelProto
    model: onnx_ir.Model
    name: str
    notes: tuple[str, ...] = ()
    folded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    original: onnx.ModelProto | None = None
