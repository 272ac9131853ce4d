"""The single-operator cases of the ONNX backend tests, lowered and run.

Every tensor of a case is an input of its model, weights too. So each case comes in two forms: as it
is, and with all inputs but the first made initializers, which is how networks carry their weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import torch
from onnx import numpy_helper

import ngc.passes.lower  # noqa: F401  (registers the rules)
from ngc.backends.torch_exec import Executor, pack
from ngc.errors import UnsupportedOp, UnsupportedOps
from ngc.ir.check import violations
from ngc.passes.lower.driver import Lowered, lower

AGREES, REFUSED, FAILED = "agrees", "refused", "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of one form of one case: ``operators`` that were refused, or what went wrong."""

    case: str
    form: str
    status: str
    operators: tuple[str, ...] = ()
    message: str = ""


@cache
def cases() -> tuple[Any, ...]:
    """The test cases of the installed onnx, by name."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # arithmetic of the generators on purpose out of range
        found = collect_testcases(None)
    return tuple(sorted(found, key=lambda case: str(case.name)))


def outcomes(form: str) -> Iterator[Outcome]:
    """Outcome of every case that has this form, "inputs" or "frozen"."""
    for case in cases():
        values = [array_of(value) for value in case.data_sets[0][0]]
        if form == "inputs":
            yield outcome(case, form, case.model, values)
        elif (frozen := freeze(case.model, values)) is not None:
            yield outcome(case, form, frozen, values[:1])


def array_of(value: Any) -> Any:
    """Narrow types come as protos."""
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def freeze(model: onnx.ModelProto, values: list[Any]) -> onnx.ModelProto | None:
    """The model with every input but the first made an initializer; None where it has but one, or
    one that is no tensor."""
    if len(values) < 2 or not all(isinstance(value, np.ndarray) for value in values):
        return None
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for info, value in zip(model.graph.input[1:], values[1:], strict=True):
        result.graph.initializer.append(numpy_helper.from_array(value, info.name))
        result.graph.input.remove(info)
    return result


def outcome(case: Any, form: str, model: onnx.ModelProto, values: list[Any]) -> Outcome:
    feeds = dict(zip((info.name for info in model.graph.input), values))
    shapes = {name: value.shape for name, value in feeds.items() if hasattr(value, "shape")}
    try:
        lowered = lower(onnx_ir.from_proto(model), shapes)
    except UnsupportedOps as error:
        kinds = tuple(sorted({one.op_type for one in error.errors}))
        return Outcome(case.name, form, REFUSED, kinds, str(error))
    except UnsupportedOp as error:
        return Outcome(case.name, form, REFUSED, (error.op_type,), str(error))
    except Exception as error:
        return Outcome(case.name, form, FAILED, (), f"{type(error).__name__}: {error}")
    try:
        complaint = difference(case, lowered, feeds)
    except Exception as error:
        complaint = f"{type(error).__name__}: {error}"
    return Outcome(case.name, form, FAILED if complaint else AGREES, (), complaint)


def difference(case: Any, lowered: Lowered, feeds: dict[str, np.ndarray]) -> str:
    """How the program differs from the expected outputs; empty where it does not."""
    program = lowered.program
    if found := violations(program):
        return f"invalid program: {found[0]}"
    tensors = {
        op.out.name: torch.from_numpy(np.array(feeds[op.out.name]).astype(op.out.dtype))
        for op in program.inputs
    }
    results = Executor(program)(pack(program, lowered.arrays), tensors)
    for (name, _), value in zip(program.outputs, case.data_sets[0][1], strict=True):
        result, expected = results[name].numpy(), array_of(value)
        if result.shape != expected.shape:
            return f"{name} has shape {result.shape}, not {expected.shape}"
        rtol = case.rtol
        if expected.dtype.name in ("float16", "bfloat16"):
            # The program computes in float32, the case rounds after each step.
            result = result.astype(expected.dtype)
            rtol = max(rtol, 2 * float(ml_dtypes.finfo(expected.dtype).eps))
        if result.dtype != expected.dtype:
            return f"{name} is {result.dtype}, not {expected.dtype}"
        wide = "complex128" if expected.dtype.kind == "c" else "float64"
        try:
            np.testing.assert_allclose(
                result.astype(wide), expected.astype(wide), rtol=rtol, atol=case.atol
            )
        except AssertionError as error:
            return f"{name} differs: {' '.join(str(error).split())}"
    return ""
