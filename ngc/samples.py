"""What to run a network on: random inputs, and weights that show what it computes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch

from ngc.backends.torch_exec import Executor, pack, unpack
from ngc.ir import program as ir
from ngc.ir.program import Param, Program
from ngc.ir.slots import FIRST_SLOT, Slots

Arrays = dict[str, np.ndarray]

# Operations that sum their inputs with weights.
WEIGHTED = (ir.Linear, ir.Convolution, ir.ConvolutionTranspose)


# Integers that index no table are drawn from this many values: enough to tell bytes, categories
# and positions apart.
FREE_INTEGERS = 256


def random_inputs(program: Program, seed: int) -> Arrays:
    """Standard normal numbers; for integers, ids that every table they index has."""
    rng = np.random.default_rng(seed)
    limits = _id_limits(program)
    inputs: Arrays = {}
    for op in program.inputs:
        value = op.out
        dtype = np.dtype(value.dtype)
        if dtype == np.bool_:
            inputs[value.name] = np.asarray(rng.random(value.shape) < 0.5)
        elif dtype.kind in "iu":
            high = min(limits.get(value.name, FREE_INTEGERS), np.iinfo(dtype).max)
            inputs[value.name] = np.asarray(rng.integers(0, high, value.shape), dtype=dtype)
        else:
            inputs[value.name] = np.asarray(rng.standard_normal(value.shape), dtype=dtype)
    return inputs


def _id_limits(program: Program) -> dict[str, int]:
    """For each integer input, how many values from 0 on it may take: rows of the smallest table
    that it indexes, numbers that it is compared with. Ids computed in a way that is not followed
    here stay 0 or 1."""
    # Value -> (input, what has been added to it on the way at most).
    trace: dict[str, tuple[str, int]] = {op.out.name: (op.out.name, 0) for op in program.inputs}
    touched: dict[str, str] = {op.out.name: op.out.name for op in program.inputs}
    constants = {op.out.name: op for op in program.ops if isinstance(op, ir.Constant)}
    shapes = {name: value.shape for name, value in program.values().items()}
    limits: dict[str, int] = {}

    def limit(ref: str, size: int) -> None:
        source, added = trace.get(ref, (touched.get(ref, ""), size - 2))
        if source:
            limits[source] = max(1, min(size - added, limits.get(source, size)))

    for op in program.ops:
        known = [ref for ref in op.inputs if ref in touched]
        if isinstance(op, ir.Embedding):
            limit(op.ids, op.weight.shape[0])
        elif isinstance(op, ir.Gather):
            limit(op.ids, min(shapes[op.x]) if op.fn == "nd" else shapes[op.x][op.axis])
        elif isinstance(op, ir.Scatter):
            limit(op.ids, op.out.shape[op.axis])
        elif isinstance(op, ir.Combine) and op.fn in ("equal", "less", "greater"):
            for ref in set(op.inputs) & constants.keys():
                largest = int(np.max(constants[ref].data.numpy(), initial=0))
                for other in set(known) & trace.keys():
                    limits.setdefault(trace[other][0], max(2, largest + 1))
        if known:
            touched[op.out.name] = touched[known[0]]
        followed = _follow(op, trace, constants)
        if followed is not None:
            trace[op.out.name] = followed
    return limits


def _follow(
    op: ir.Op, trace: Mapping[str, tuple[str, int]], constants: Mapping[str, ir.Constant]
) -> tuple[str, int] | None:
    """The input that a value is, up to a constant that has been added."""
    found = [ref for ref in op.inputs if ref in trace]
    if len(found) != 1:
        return None
    source, added = trace[found[0]]
    match op:
        case _ if op.is_view or isinstance(op, ir.Cast):
            return source, added
        case ir.Activation(fn="affine", a=(1.0, offset)):
            return source, added + max(0, math.ceil(offset))
        case ir.Combine(fn="add", xs=xs) if all(r in constants for r in xs if r != found[0]):
            largest = (int(constants[r].data.numpy().max()) for r in xs if r != found[0])
            return source, added + sum(max(0, n) for n in largest)
    return None


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
        while not isinstance(op, WEIGHTED) and op.inputs:
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
        for param in _params_of(program, [op]):
            if param.name not in fixed:
                result[param.offset : param.offset + param.size] /= deviation
    return _as_stored(program, result)


def scaled(
    program: Program, weights: torch.Tensor, factor: float, fixed: Collection[str] = ()
) -> torch.Tensor:
    """The weights, with those that are summed over multiplied by a factor."""
    result = weights.clone()
    for param in _params_of(program, [op for op in program.ops if isinstance(op, WEIGHTED)]):
        if param.name not in fixed:
            result[param.offset : param.offset + param.size] *= factor
    return _as_stored(program, result)


def tensors(inputs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(a)) for name, a in inputs.items()}


def _as_stored(program: Program, weights: torch.Tensor) -> torch.Tensor:
    """Parameters of half precision are rounded."""
    if all(param.dtype == "float32" for param in program.params) and weights.dtype == torch.float32:
        return weights
    return pack(program, unpack(program, weights), dtype=weights.dtype)


def _params_of(program: Program, ops: Sequence[ir.Op]) -> list[Param]:
    """The parameters of operations, each once."""
    operands = (slots for op in ops for slots in op.operands.values())
    return list(dict.fromkeys(param for slots in operands for param in _params_in(program, slots)))


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
