"""Checkpoints: files of weights alone, for an architecture that is compiled already.

Names are those of the model's framework, or of its ONNX file, and are matched strictly: everything
that is missing, unknown or of another shape is reported together. What a ``state_dict`` has and an
ONNX file has not are counters of batches: they are kept, and come back with the weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch
from torch import Tensor

from ngc.backends.onnx_export import with_tensors
from ngc.budget import Budget
from ngc.compiler import FILE, Compilation, compile, origin_in_file
from ngc.errors import ModelError, OptionError
from ngc.frontends.onnx_files import WEIGHTS_ALONE
from ngc.ir.source import Origin, Place, Source
from ngc.ir.tensors import to_numpy

SHOWN = 5  # names in a report

# Where training programs keep the weights in a file of theirs.
WRAPPERS = ("state_dict", "model_state_dict", "model")

COUNTER = "num_batches_tracked"

RENAMED = (
    "exporters rename weights unless told not to: torch.onnx.export(module, inputs, path, "
    "dynamo=True, optimize=False); or --plan-from package.module:factory"
)


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint by name. Runs no code from the file."""
    path = Path(path)
    if not path.is_file():
        raise ModelError("there is no such file", where=str(path))
    try:
        match path.suffix:
            case ".safetensors":
                from safetensors.torch import load_file

                found: Any = load_file(path)
            case ".npz":
                with np.load(path, allow_pickle=False) as arrays:
                    return {name: arrays[name] for name in arrays.files}
            case _ if path.suffix in WEIGHTS_ALONE:
                found = torch.load(path, map_location="cpu", weights_only=True)
            case _:
                raise ModelError(
                    f"{path.suffix or 'a file without a suffix'} is no kind of checkpoint",
                    where=str(path),
                    hint=", ".join(WEIGHTS_ALONE),
                )
    except ModelError:
        raise
    except Exception as error:  # of whatever reads it; torch advises to run code
        kind = type(error).__name__
        raise ModelError(
            f"not a checkpoint that can be read safely ({kind})", where=str(path)
        ) from error
    if isinstance(found, Mapping):
        found = _unwrapped(found, str(path))
    tensors = {}
    if isinstance(found, Mapping):
        tensors = _arrays({str(n): t for n, t in found.items() if isinstance(t, Tensor)}, str(path))
    if not tensors:
        raise ModelError("it holds no tensors by name", where=str(path))
    return tensors


def _unwrapped(found: Mapping[Any, Any], where: str) -> Mapping[Any, Any]:
    """The weights among what a training program saved with them."""
    inner = {
        str(name): value
        for name, value in found.items()
        if isinstance(value, Mapping) and any(isinstance(t, Tensor) for t in value.values())
    }
    for name in WRAPPERS:
        if name in inner:
            return inner[name]
    if not inner or any(isinstance(value, Tensor) for value in found.values()):
        return found
    if len(inner) > 1:
        raise ModelError(
            f"it holds tensors in several places: {_listed(list(inner))}",
            where=where,
            hint=f"save one of them: torch.save(checkpoint[{next(iter(inner))!r}], path)",
        )
    return next(iter(inner.values()))


def _arrays(tensors: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    """As numpy has them; a tensor it cannot hold is refused by name."""
    found = {}
    for name, tensor in tensors.items():
        try:
            found[name] = to_numpy(tensor) if isinstance(tensor, Tensor) else np.asarray(tensor)
        except (TypeError, RuntimeError, NotImplementedError) as error:
            kinds = (getattr(tensor, kind, "") for kind in ("dtype", "layout", "device"))
            listed = ", ".join(str(kind) for kind in kinds)
            raise ModelError(f"{name} cannot be read ({listed})", where=where) from error
    return found


def with_weights(
    compilation: Compilation, weights: Mapping[str, Any] | str | Path, name: str = ""
) -> Compilation:
    """The network of this architecture with other weights: a checkpoint, or tensors by name."""
    given, name = _given(weights, name)
    source = compilation.source
    proto, origin = _described(compilation, given)
    rest = _check(proto, origin, given, name or source.name)
    tensors = {place.name: given[key] for key, place in origin.places.items() if key in given}
    changed = with_tensors(proto, tensors)
    named = Source(
        changed, onnx_ir.from_proto(changed), name or source.name, source.notes,
        origin=replace(origin, rest={**origin.rest, **rest}),
    )  # fmt: skip
    arrays = _params_among(compilation, tensors)
    if arrays is not None:
        return replace(compilation, source=named, arrays=arrays)
    return _compiled_anew(compilation, named)


def params_of(
    compilation: Compilation, weights: Mapping[str, Any] | str | Path, name: str = ""
) -> dict[str, np.ndarray] | None:
    """The parameters of ``with_weights``, without the rest of the network; None where they have to
    be computed."""
    given, name = _given(weights, name)
    proto, origin = _described(compilation, given)
    _check(proto, origin, given, name or compilation.source.name)
    tensors = {place.name: given[key] for key, place in origin.places.items() if key in given}
    return _params_among(compilation, tensors)


def _given(weights: Mapping[str, Any] | str | Path, name: str) -> tuple[dict[str, np.ndarray], str]:
    """Tensors by name, and what to call them."""
    if isinstance(weights, str | Path):
        return read_tensors(weights), name or str(weights)
    if isinstance(weights, Mapping):
        given = {str(key): value for key, value in weights.items()}
        return _arrays(given, name or "weights"), name
    raise OptionError(
        f"weights are a {type(weights).__name__}", hint="tensors by name, or a checkpoint file"
    )


def _described(compilation: Compilation, given: Collection[str]) -> tuple[onnx.ModelProto, Origin]:
    """The model as it was read, and the names of its tensors. Integers of an ONNX file are mostly
    sizes that its exporter wrote down; those that a checkpoint names are tensors of the network."""
    source = compilation.source
    proto = source.proto if source.original is None else source.original
    if source.origin is not None and source.origin.framework != FILE:
        return proto, source.origin
    origin = origin_in_file(proto)
    integers = {
        tensor.name: Place(tensor.name, tuple(tensor.dims))
        for tensor in proto.graph.initializer
        if tensor.name in given and tensor.name not in origin.places
    }
    return proto, replace(origin, places={**origin.places, **integers})


def _params_among(
    compilation: Compilation, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray] | None:
    """The parameters among the tensors of a model, where they are all there, and the other ones,
    which may have shaped the program, are what they were."""
    params = {param.name: param for param in compilation.program.params}
    if compilation.source.original is not None or not params.keys() <= tensors.keys():
        return None
    for tensor in compilation.source.proto.graph.initializer:
        if tensor.name in tensors and tensor.name not in params:
            own = onnx.numpy_helper.to_array(tensor)
            if not np.array_equal(own, tensors[tensor.name], equal_nan=True):
                return None
    return {
        key: tensors[key].reshape(param.shape).astype(param.dtype) for key, param in params.items()
    }


def _compiled_anew(compilation: Compilation, source: Source) -> Compilation:
    """Where parameters were computed from others, they have to be computed again."""
    found = compile(
        source.proto,
        options=compilation.plan.options,
        shapes={op.out.name: op.out.shape for op in compilation.program.inputs},
        budget=Budget(max_elements=compilation.max_elements),
    )
    return replace(found, source=replace(found.source, name=source.name, origin=source.origin))


def _check(
    proto: onnx.ModelProto, origin: Origin, given: Mapping[str, np.ndarray], where: str
) -> dict[str, np.ndarray]:
    """The tensors that are no part of the graph; an error of all that does not fit."""
    known = {place.name for key, place in origin.places.items() if key in given}
    missing = [key for key, place in origin.places.items() if place.name not in known]
    counters = _counters(given)
    kept = set(origin.rest)
    if origin.framework == FILE:
        kept |= {key for key in counters if f"{counters[key]}.running_mean" in origin.places}
    unknown = [key for key in given if key not in origin.places and key not in kept]
    stored = {
        tensor.name: str(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        for tensor in proto.graph.initializer
    }
    kinds = [
        f"{key} is {given[key].dtype}, not {stored[place.name]}"
        for key, place in origin.places.items()
        if key in given and not _widens(str(given[key].dtype), stored[place.name])
    ]
    shapes = [
        f"{key} is {list(given[key].shape)}, not {list(place.shape)}"
        for key, place in origin.places.items()
        if key in given and given[key].shape != place.shape
    ]
    tied: dict[str, str] = {}
    differ = []
    for key, place in origin.places.items():
        if key in given:
            first = tied.setdefault(place.name, key)
            if not np.array_equal(given[key], given[first], equal_nan=True):
                differ.append(f"{first} and {key}")
    faults = [
        f"{text}: {_listed(names)}"
        for text, names in (
            ("missing", missing), ("not in the model", unknown), ("of another shape", shapes),
            ("of another type", kinds),
            ("tied in the model, different here", differ),
        )
        if names
    ]  # fmt: skip
    if faults:
        absent = [key for key in (*origin.places, *origin.rest) if key not in given]
        if origin.framework == FILE:
            unknown = [key for key in unknown if given[key].dtype.kind not in "iub"]
        hint = _prefix(absent, unknown)
        if not hint and origin.framework == FILE and missing and unknown:
            hint = RENAMED
        raise ModelError(
            f"the checkpoint does not fit the model. {'; '.join(faults)}",
            where=where,
            hint=hint or ("tensors of that type" if kinds else ""),
        )
    return {key: given[key] for key in given if key in kept}


def _counters(given: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The counters of batches that torch keeps beside the statistics of a norm, and the names of
    those norms. No exporter writes them: a network that is used does not read them."""
    found = {}
    for key, array in given.items():
        norm, _, last = key.rpartition(".")
        is_counter = last == COUNTER and array.dtype == np.int64 and array.shape == ()
        if is_counter and {f"{norm}.running_mean", f"{norm}.running_var"} <= given.keys():
            found[key] = norm
    return found


# Types whose every number another type has.
WIDER = {
    "bfloat16": ("bfloat16", "float32", "float64"),
    "float16": ("float16", "float32", "float64"),
    "float32": ("float32", "float64"),
}


def _widens(found: str, wanted: str) -> bool:
    return wanted in WIDER.get(found, (found,))


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _prefix(absent: list[str], unknown: list[str]) -> str:
    """What names differ by, where that is a common beginning."""
    for longer, shorter, way in ((unknown, absent, "drop"), (absent, unknown, "put")):
        for name in shorter[:1]:
            found = {one[: -len(name)] for one in longer if one.endswith(name)}
            for prefix in found:
                if prefix and {prefix + one for one in shorter} <= set(longer):
                    return f"{way} {prefix!r} in front of each name"
    return ""
