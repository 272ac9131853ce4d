"""A program held against what the model of a framework itself answered: faults on the way to ONNX,
which onnxruntime cannot see."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ngc.backends.torch_exec import Executor
from ngc.compare import FORGIVABLE, difference, floor, moved_by_rounding, numpy_of, tolerated
from ngc.compiler import Compilation
from ngc.ir.source import Sample
from ngc.samples import Arrays, tensors
from ngc.widen import is_narrow


@dataclass(frozen=True)
class Answers:
    """Largest error, what is wrong, and what should be said: also why nothing was compared."""

    error: float = 0.0
    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def held_against_answers(c: Compilation, executor: Executor, limit: float) -> Answers:
    """Every output of a network with its own weights, on the inputs of its sample."""
    sample = c.source.sample
    assert sample is not None
    if is_narrow(c.source.proto):
        return _unasked("it computes in half precision")
    chosen = _inputs(c, sample)
    if chosen is None or len(c.program.outputs) != len(sample.outputs):
        return _unasked("it was compiled for other inputs or outputs")
    with torch.no_grad():
        found = numpy_of(executor(c.weights, tensors(chosen)))
    worst = 0.0
    faults: list[str] = []
    remarks: list[str] = []
    moved: dict[str, float] = {}
    for (name, ref), answer in zip(c.program.outputs, sample.outputs):
        if found[name].size != answer.size:
            faults.append(f"output {name}: the model itself answers {list(answer.shape)}")
            continue
        error, message = difference(
            found[name].reshape(answer.shape), answer, floor(c.program, ref)
        )
        worst = max(worst, error)
        if error <= limit:
            continue
        moved = moved or moved_by_rounding(c.program, c.weights, chosen)
        if moved[name] > FORGIVABLE:
            remarks += _unasked(f"rounding drowns output {name}").remarks
        elif not tolerated(error, moved[name]):
            faults.append(f"the model itself answers otherwise, output {name}: {message}")
    return Answers(worst if not remarks else 0.0, tuple(faults), tuple(remarks))


def _unasked(reason: str) -> Answers:
    return Answers(remarks=(f"not held against the model's own answers: {reason}",))


def _inputs(c: Compilation, sample: Sample) -> Arrays | None:
    """Those of the sample, by name; None where the program has others."""
    proto = c.source.proto
    initial = {tensor.name for tensor in proto.graph.initializer}
    names = [value.name for value in proto.graph.input if value.name not in initial]
    given = dict(zip(names, sample.inputs)) if len(names) == len(sample.inputs) else {}
    own = {op.out.name: op.out.shape for op in c.program.inputs}
    if any(name not in given or given[name].shape != shape for name, shape in own.items()):
        return None
    return {name: given[name] for name in own}
