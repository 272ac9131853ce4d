"""What to run a network on: random inputs, and weights that show what it computes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import torch

from ngc.backends.torch_exec import Executor, pack, unpack
from ngc.ir import program as ir
from ngc.ir.program import Param, Program
from ngc.ir.slots import FIRST_SLOT, Slots

Arrays = dict[str, np.ndarray]


def random_inputs(program: Program, seed: int) -> Arrays:
    """Standard normal numbers; for integers, ids that every table they index has."""
    rng = np.random.default_rng(seed)
    limits = _id_limits(program)
    inputs: Arrays = {}
    for op in program.inputs:
        value = op.out
        dtype = np.dtype(value.dtype)
        if dtype == np.bool_:
            inputs[value.name] = rng.random(value.shape) < 0.5
        elif dtype.kind in "iu":
            high = limits.get(value.name, 2)
            inputs[value.name] = rng.integers(0, high, value.shape).astype(dtype)
        else:
            inputs[value.name] = rng.standard_normal(value.shape).astype(dtype)
    return inputs


def _id_limits(program: Program) -> dict[str, int]:
    """For each integer input that indexes a table, the size of the smallest one."""
    source: dict[str, str] = {op.out.name: op.out.name for op in program.inputs}
    shapes = {name: value.shape for name, value in program.values().items()}
    limits: dict[str, int] = {}
    for op in program.ops:
        size, ref = 0, ""
        if isinstance(op, ir.Embedding):
            size, ref = op.weight.shape[0], op.ids
        elif isinstance(op, ir.Gather) and op.fn != "nd":
            size, ref = shapes[op.x][op.axis], op.ids
        if size and ref in source:
            limits[source[ref]] = min(size, limits.get(source[ref], size))
        if (op.is_view or isinstance(op, ir.Cast)) and op.inputs[0] in source:
            source[op.out.name] = source[op.inputs[0]]
    return limits


def other_weights(
    program: Program, weights: torch.Tensor, seed: int, fixed: Collection[str] = ()
) -> torch.Tensor:
    """Random weights under which signals neither die nor explode on their way: normal with
    variance 2 / fan-in (He et al. 2015) where weights are summed over, near one where they scale,
    small where they are added. ``fixed`` parameters keep their values."""
    generator = torch.Generator().manual_seed(seed)
    drawn: set[str] = set(fixed)
    result = weights.clone()
    for op in program.ops:
        for role, slots in op.operands.items():
            for param in _params_in(program, slots):
                if param.name in drawn:
                    continue
                drawn.add(param.name)
                noise = torch.randn(param.size, generator=generator, dtype=weights.dtype)
                own = slice(param.offset, param.offset + param.size)
                result[own] = _drawn(op, role, noise)
    return _as_stored(program, result)


def calibrated(
    executor: Executor,
    weights: torch.Tensor,
    inputs: Mapping[str, np.ndarray],
    fixed: Collection[str] = (),
) -> torch.Tensor:
    """The weights, with those of the last layers divided by the deviation of what they compute: a
    softmax that is one at one place and zero elsewhere would hide nearly any mistake before it."""
    program = executor.program
    producers = program.producers()
    last: dict[str, ir.Op] = {}
    for _, ref in program.outputs:
        op = producers[ref]
        weighted = (ir.Linear, ir.Convolution, ir.ConvolutionTranspose)
        while not isinstance(op, weighted) and op.inputs:
            op = producers[op.inputs[0]]
        if op.operands:
            last[op.out.name] = op
    if not last:
        return weights
    with torch.no_grad():
        _, values = executor.record(weights, tensors(inputs), list(last))
    result = weights.clone()
    for name, op in last.items():
        deviation = float(values[name].double().std()) if values[name].numel() > 1 else 1.0
        if not 0 < deviation < math.inf:
            continue
        for param in {p for slots in op.operands.values() for p in _params_in(program, slots)}:
            if param.name not in fixed:
                result[param.offset : param.offset + param.size] /= deviation
    return _as_stored(program, result)


def tensors(inputs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in inputs.items()}


def _as_stored(program: Program, weights: torch.Tensor) -> torch.Tensor:
    """Parameters of half precision are rounded."""
    if all(param.dtype == "float32" for param in program.params) and weights.dtype == torch.float32:
        return weights
    return pack(program, unpack(program, weights), dtype=weights.dtype)


def _params_in(program: Program, slots: Slots) -> list[Param]:
    """Parameters that a strided operand begins in, or that a listed one has entries of."""
    starts = np.array([param.offset for param in program.params], dtype=np.int64)
    entries = slots.numpy().reshape(-1) if slots.entries is not None else np.array([slots.offset])
    if not slots.size or not len(starts):
        return []
    found = np.unique(np.searchsorted(starts, entries[entries >= FIRST_SLOT], "right") - 1)
    return [program.params[k] for k in found.tolist()]


def _drawn(op: ir.Op, role: str, noise: torch.Tensor) -> torch.Tensor:
    """Standard normal noise, made fit for a role of an operation."""
    match op, role:
        case ir.Linear(spec=spec, weight=weight), _:
            _, right, out = spec.replace("->", ",").split(",")
            fan_in = math.prod(n for c, n in zip(right, weight.shape) if c not in out)
            return noise * math.sqrt(2 / max(fan_in, 1))
        case ir.Convolution(weight=weight), _:
            return noise * math.sqrt(2 / max(math.prod(weight.shape[1:]), 1))
        case ir.ConvolutionTranspose(weight=weight, strides=strides, groups=groups), _:
            taps = math.prod((weight.shape[0] // groups, *weight.shape[2:])) / math.prod(strides)
            return noise * math.sqrt(2 / max(taps, 1))
        case (ir.BatchNorm(), "var" | "scale") | (ir.Scale(), _):
            return 1 + 0.5 * noise.clamp(-1.5, 1.5)
        case ir.Embedding(), _:
            return noise
    return 0.2 * noise
