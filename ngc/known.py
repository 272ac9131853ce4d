"""Architectures that were compiled before: another network of one costs reading its weights.

Everything in a model but the contents of its floating-point initializers is hashed
(``structure_key``). A second model of the same hash has the program and the plan of the first,
where it differs in nothing but weights.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from ngc.budget import Budget
from ngc.errors import ModelError
from ngc.ir.program import Program
from ngc.options import Options
from ngc.plan import Plan

# Models with more weights are lowered anew each time: that takes less than to look at them all.
MAX_REMEMBERED = 2**24


class Recent(OrderedDict):  # type: ignore[type-arg]
    """The entries used last."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def put(self, key: Any, value: Any) -> None:
        self[key] = value
        while len(self) > self.limit:
            self.popitem(last=False)

    def used(self, key: Any) -> Any:
        """The entry, None where there is none; it is the last to be forgotten."""
        if key not in self:
            return None
        self.move_to_end(key)
        return self[key]


@dataclass(eq=False)
class Seen:
    """What compiling a first network found out about its architecture.

    ``contents``: digest of each of its floating-point initializers. ``weights``: those that are
    known to be weights and nothing else, since a network that differs in them gave the same
    program; any other might also have been read as a number (a bound, an exponent).
    """

    program: Program
    plan: Plan
    contents: dict[str, str]
    notes: tuple[str, ...]
    weights: set[str] = field(default_factory=set)


class Known:
    """The last ``limit`` architectures: their plans, and what was seen of their networks."""

    def __init__(self, limit: int = 32) -> None:
        self.plans = Recent(limit)
        self.seen = Recent(limit)

    def clear(self) -> None:
        self.plans.clear()
        self.seen.clear()

    def find(self, key: str, proto: onnx.ModelProto) -> tuple[Seen, dict[str, np.ndarray]] | None:
        """The architecture of a model, and its own parameters, where nothing but weights differs
        from a network that was compiled."""
        seen = self.seen.used(key)
        if seen is None:
            return None
        floats = float_initializers(proto)
        others = {name: tensor for name, tensor in floats.items() if name not in seen.weights}
        if any(digest != seen.contents[name] for name, digest in _contents(others).items()):
            return None
        arrays = {}
        for param in seen.program.params:
            array = onnx.numpy_helper.to_array(floats[param.name])
            if array.shape != param.shape:
                raise ModelError("the data do not fit the stated size", where=param.name)
            arrays[param.name] = array
        return seen, arrays

    def remember(
        self, key: str, proto: onnx.ModelProto, program: Program, plan: Plan, notes: tuple[str, ...]
    ) -> None:
        """Note what one more network says about its architecture."""
        floats = float_initializers(proto)
        computed = any(param.derived or param.name not in floats for param in program.params)
        if computed or program.num_slots > MAX_REMEMBERED:
            return  # parameters that were computed have to be computed again
        contents = _contents(floats)
        seen = self.seen.get(key)
        if seen is None or seen.plan is not plan:
            self.seen.put(key, Seen(program, plan, contents, notes))
            return
        names = {param.name for param in program.params}
        seen.weights |= {name for name in names if contents[name] != seen.contents[name]}


def float_initializers(proto: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Those that can be parameters, by name."""
    floating = (
        onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16,
    )  # fmt: skip
    return {t.name: t for t in proto.graph.initializer if t.data_type in floating}


def structure_key(
    proto: onnx.ModelProto,
    options: Options,
    shapes: Mapping[str, Sequence[int]] | None,
    dims: Mapping[str, int] | None,
    budget: Budget,
) -> str:
    """Hash of everything in the model but the contents of floating-point initializers, and of what
    a compilation depends on besides."""
    head = (options, shapes, dims, budget, proto.ir_version, proto.producer_name)
    digest = hashlib.sha256(repr(head).encode())
    graph = proto.graph
    floats = float_initializers(proto)
    # Names that torch's exporter gives to values say which of them are parameters.
    parts = (
        proto.opset_import, graph.input, graph.output, graph.node, proto.functions,
        graph.value_info, graph.metadata_props,
    )  # fmt: skip
    for part in parts:
        digest.update(b"|")
        for item in part:
            digest.update(item.SerializeToString(deterministic=True))
    for tensor in graph.initializer:
        if tensor.name in floats:
            digest.update(repr((tensor.name, tuple(tensor.dims), tensor.data_type)).encode())
        else:
            digest.update(tensor.SerializeToString(deterministic=True))
    for sparse in graph.sparse_initializer:
        digest.update(sparse.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _contents(tensors: Mapping[str, onnx.TensorProto]) -> dict[str, str]:
    return {
        name: hashlib.sha256(tensor.SerializeToString(deterministic=True)).hexdigest()
        for name, tensor in tensors.items()
    }
