"""Weights back under the names of the framework that a model comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor

from ngc.backends.onnx_export import digest_of
from ngc.backends.torch_exec import unpack
from ngc.errors import LiftError
from ngc.ir.program import Program
from ngc.ir.source import Origin, Place
from ngc.ir.tensors import to_torch


@dataclass(frozen=True, eq=False)
class StateDict:
    """How to write the tensors of a framework from weights [slots].

    ``places``: where each is among the parameters; ``rest``: the values of those that are none, for
    one network; ``computed``: digests of parameters that are no tensor of the framework's, or were
    computed from some, and of those they were computed from, which can have no other value
    therefore; ``extra``: what else is kept there
    under a name (in memory only).
    """

    framework: str
    places: Mapping[str, Place]
    rest: Mapping[str, Tensor]
    computed: Mapping[str, str]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, origin: Origin, program: Program, arrays: Mapping[str, np.ndarray],
        proto: onnx.ModelProto, folded: Mapping[str, tuple[str, ...]],
    ) -> StateDict:  # fmt: skip
        """For a network with these parameters, ``proto`` the model that was read, ``folded`` what
        parameters were computed from before lowering."""
        names = {param.name for param in program.params} - folded.keys()
        tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
        places = {key: place for key, place in origin.places.items() if place.name in names}
        lost = {key: place for key, place in origin.places.items() if place.name not in names}
        known = {
            key: place.read({place.name: numpy_helper.to_array(tensors[place.name])})
            for key, place in lost.items()
        }
        rest = {key: to_torch(array) for key, array in {**origin.rest, **known}.items()}
        sources = {s for p in program.params for s in (p.derived or folded.get(p.name, ()))}
        here = {place.name for place in places.values()} - sources
        computed = {
            param.name: digest_of(arrays[param.name])
            for param in program.params
            if param.name not in here
        }
        return cls(origin.framework, places, rest, computed, origin.extra)

    def write(self, program: Program, weights: Tensor) -> dict[str, Any]:
        """Every tensor by its name in the framework."""
        arrays = unpack(program, weights)
        own = {place.name for place in self.places.values()}
        for name, expected in self.computed.items():
            if digest_of(arrays[name]) != expected:
                if name in own:
                    reason = "others that are on the graph were computed from it, and have not"
                else:
                    reason = (
                        "the model has no tensor to keep it in: it was computed from others, or is "
                        "a constant of its code"
                    )
                raise LiftError(
                    f"its value has changed, but {reason}",
                    where=name,
                    hint="with_weights binds other tensors, and computes what depends on them",
                )
        found = {key: to_torch(place.read(arrays)) for key, place in self.places.items()}
        rest = {key: tensor.clone() for key, tensor in self.rest.items()}
        return {**found, **rest, **self.extra}

    def to_dict(self) -> dict[str, Any]:
        """As tensors, numbers and strings."""
        places = {key: [place.name, list(place.shape)] for key, place in self.places.items()}
        return {
            "framework": self.framework, "places": places, "rest": dict(self.rest),
            "computed": dict(self.computed),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> StateDict:
        places = {
            key: Place(str(name), tuple(int(n) for n in shape))
            for key, (name, shape) in entry["places"].items()
        }
        return cls(str(entry["framework"]), places, entry["rest"], entry["computed"])
