"""Run a neural program in torch: differentiable, under ``torch.func`` too, recording on request.

The weights of a program are one vector, ``[0, 1, *parameters]``, each parameter row-major in the
order of ``program.params``; operands are views of it. The kernels are in ``torch_moves``,
``torch_elementwise``, ``torch_linear`` and ``torch_reduce``.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from ngc.backends import torch_elementwise, torch_linear, torch_moves, torch_reduce
from ngc.backends.torch_kernels import (
    DTYPES,
    STORED_ONLY,
    Function,
    Kernel,
    kernel_of,
    reader,
    refuse,
)
from ngc.errors import ModelError, ShapeError
from ngc.ir import program as ir
from ngc.ir.program import Program
from ngc.ir.slots import FIRST_SLOT, ONE, ZERO, Array, Slots

FAMILIES = (torch_elementwise, torch_linear, torch_moves, torch_reduce)  # they register kernels


# --- the weight vector -------------------------------------------------------------------------


def pack(
    program: Program, arrays: Mapping[str, np.ndarray], dtype: torch.dtype | None = None
) -> Tensor:
    """The weight vector [num_slots] of these parameter values, by name.

    float32, or float64 where a parameter is stored so; narrower types widen exactly.
    """
    if dtype is None:
        double = any(param.dtype == "float64" for param in program.params)
        dtype = torch.float64 if double else torch.float32
    vector = np.empty(program.num_slots, np.float64 if dtype == torch.float64 else np.float32)
    vector[ZERO], vector[ONE] = 0, 1
    for param in program.params:
        if param.name not in arrays:
            raise ModelError("no value for this parameter", where=param.name)
        array = np.asarray(arrays[param.name])
        if array.shape != param.shape:
            raise ShapeError(
                f"the value has shape {list(array.shape)}, the parameter {list(param.shape)}",
                where=param.name,
            )
        vector[param.offset : param.offset + param.size] = array.reshape(-1)
    return torch.from_numpy(vector).to(dtype)


def unpack(program: Program, weights: Tensor) -> dict[str, np.ndarray]:
    """Parameters by name, in the dtype they are stored in; the inverse of ``pack``, bit for bit."""
    if tuple(weights.shape) != (program.num_slots,):
        raise ShapeError(
            f"the weights have shape {list(weights.shape)}, not [{program.num_slots}]",
            where=program.name,
        )
    weights = weights.detach().cpu()
    if weights.dtype not in (torch.float32, torch.float64):
        weights = weights.float()
    vector = weights.numpy()
    return {
        param.name: _stored(vector[param.offset : param.offset + param.size], param.dtype).reshape(
            param.shape
        )
        for param in program.params
    }


def _stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """A copy in a stored dtype, rounded to nearest."""
    with np.errstate(invalid="ignore"):  # NaN
        result = values.astype(np.dtype(dtype))
    if result.dtype == ml_dtypes.bfloat16:
        # The conversion makes every NaN the same one; bfloat16 is the upper half of float32.
        nan = np.isnan(values)
        upper = values[nan].astype(np.float32).view(np.uint32) >> 16
        result.view(np.uint16)[nan] = upper
    return result


# --- running -----------------------------------------------------------------------------------

WHOLE = -1  # the piece of the weights that is all of them


@dataclass(frozen=True, slots=True)
class Read:
    """One parameter operand: a function of a piece of the weights in ``dtype``, and of the
    constants from ``first`` to ``last``."""

    function: Function
    piece: int
    dtype: torch.dtype
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, ready to run. Values are numbered by the operation that makes them."""

    op: ir.Op
    out: int
    function: Function
    reads: tuple[int, ...]
    operands: tuple[Read, ...]
    first: int
    last: int
    shape: ir.Ints
    dtype: torch.dtype
    dead: tuple[int, ...]  # values read for the last time


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Leave transforms and inference mode: tensors made here outlive the call they are made in."""
    with torch._C._DisableFuncTorch(), torch.inference_mode(False):
        yield


class Executor:
    """A program as a function ``(weights [num_slots], inputs) -> outputs``, by output name.

    Prepared once, called often. It is differentiable in weights and inputs and runs under
    ``torch.func`` transforms, e.g. ``vmap(executor, in_dims=(0, None))`` over stacked weights
    [many, num_slots]. Every result has the dtype the program gives it; ``dtype`` replaces all
    floating-point ones (float64 for a reference, bfloat16 for speed). It runs on the device of the
    weights. Results may share memory with the weights and inputs: treat them as read-only.
    """

    def __init__(self, program: Program, dtype: torch.dtype | None = None) -> None:
        self.program, self.dtype = program, dtype
        self._constants: list[Tensor] = []
        self._on_device: dict[torch.device, list[Tensor]] = {}
        values = program.values()
        self._numbers = {op.out.name: k for k, op in enumerate(program.ops)}
        missing = [ref for _, ref in program.outputs if ref not in self._numbers]
        if missing:
            raise ModelError(f"output {missing[0]!r} is never computed", where=program.name)
        last_use = self._last_uses()
        self._sizes = [FIRST_SLOT, *(param.size for param in program.params)]
        self._starts = [0, *itertools.accumulate(self._sizes)]
        with _plain_tensors():
            self._steps = [
                self._step(k, op, values, last_use)
                for k, op in enumerate(program.ops)
                if not isinstance(op, ir.Input)
            ]
        self._inputs = [
            (op.out, self.torch_dtype(op), self._numbers[op.out.name]) for op in program.inputs
        ]
        self._outputs = [(name, self._numbers[ref]) for name, ref in program.outputs]
        self._weight_dtypes = {read.dtype for step in self._steps for read in step.operands}

    def __call__(self, weights: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._run(weights, inputs, set())[0]

    def record(
        self, weights: Tensor, inputs: Mapping[str, Tensor], names: Collection[str] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The outputs, and the values of these names (None: all values), by name."""
        wanted = self._numbers if names is None else names
        unknown = [name for name in wanted if name not in self._numbers]
        if unknown:
            raise ModelError(f"the program has no value {unknown[0]!r}", where=self.program.name)
        numbers = {self._numbers[name] for name in wanted}
        outputs, env = self._run(weights, inputs, numbers)
        return outputs, {name: env[self._numbers[name]] for name in wanted}

    # --- preparation ---

    def torch_dtype(self, op: ir.Op) -> torch.dtype:
        if op.out.dtype not in DTYPES:
            raise refuse(op, f"torch has no dtype {op.out.dtype}")
        dtype = DTYPES[op.out.dtype]
        return self.dtype if self.dtype is not None and dtype.is_floating_point else dtype

    def _last_uses(self) -> dict[int, list[int]]:
        """Number of an operation -> values that nothing reads after it."""
        last = {k: k for k in range(len(self.program.ops))}
        for k, op in enumerate(self.program.ops):
            for ref in op.inputs:
                if ref not in self._numbers or self._numbers[ref] >= k:
                    raise ModelError(f"{ref!r} is read before it is computed", where=op.out.name)
                last[self._numbers[ref]] = k
        kept = {self._numbers[ref] for _, ref in self.program.outputs}
        uses: dict[int, list[int]] = {}
        for value, k in last.items():
            if value not in kept:
                uses.setdefault(k, []).append(value)
        return uses

    def _step(
        self, k: int, op: ir.Op, values: dict[str, ir.Value], last_use: dict[int, list[int]]
    ) -> Step:
        dtype = self.torch_dtype(op)
        operands = tuple(self._read(slots, dtype) for slots in op.operands.values())
        kernel = kernel_of(op, values)
        function = kernel.function
        involved = [DTYPES[values[ref].dtype] for ref in op.inputs]
        if any(d in STORED_ONLY for d in [dtype, *involved]):
            function = _through_int64(function)
        numbers, bounds = tuple(self._numbers[ref] for ref in op.inputs), self._store(kernel)
        dead = tuple(last_use.get(k, ()))
        return Step(op, k, function, numbers, operands, *bounds, op.out.shape, dtype, dead)

    def _read(self, slots: Slots, dtype: torch.dtype) -> Read:
        piece, slots = _within_piece(slots, self._starts)
        length = self._starts[-1] if piece == WHOLE else self._sizes[piece]
        kernel = reader(slots, length)
        return Read(kernel.function, piece, dtype, *self._store(kernel))

    def _store(self, kernel: Kernel) -> tuple[int, int]:
        first = len(self._constants)
        for array in kernel.constants:
            tensor = torch.from_numpy(np.array(array))
            if self.dtype is not None and tensor.is_floating_point():
                tensor = tensor.to(self.dtype)
            self._constants.append(tensor)
        return first, len(self._constants)

    def _constants_on(self, device: torch.device) -> list[Tensor]:
        if device.type == "cpu":
            return self._constants
        if device not in self._on_device:
            with _plain_tensors():
                self._on_device[device] = [tensor.to(device) for tensor in self._constants]
        return self._on_device[device]

    # --- running ---

    def _run(
        self, weights: Tensor, inputs: Mapping[str, Tensor], keep: Collection[int]
    ) -> tuple[dict[str, Tensor], list[Any]]:
        if tuple(weights.shape) != (self.program.num_slots,):
            raise ShapeError(
                f"the weights have shape {list(weights.shape)}, not [{self.program.num_slots}]",
                where=self.program.name,
                hint="torch.func.vmap over stacked weights",
            )
        # Cut once: the derivative of a cut joins the pieces, that of each narrow fills a vector.
        pieces = {
            kind: (*(cut := weights.to(kind)).split(self._sizes), cut)
            for kind in self._weight_dtypes
        }
        constants = self._constants_on(weights.device)
        env: list[Any] = [None] * len(self.program.ops)
        for value, dtype, k in self._inputs:
            env[k] = _fitting(value, inputs).to(dtype)
        for step in self._steps:
            tensors = [env[n] for n in step.reads]
            for read in step.operands:
                index = constants[read.first : read.last]
                tensors.append(read.function(pieces[read.dtype][read.piece], *index))
            tensors += constants[step.first : step.last]
            try:
                result = step.function(*tensors)
            except (RuntimeError, IndexError) as error:  # an id out of range, an integer over zero
                message = f"{step.op.mnemonic} cannot be computed ({error})"
                raise ModelError(message, where=step.op.origin or step.op.out.name) from error
            if result.shape != step.shape:
                raise AssertionError(f"{step.op.out} has shape {list(result.shape)}")
            env[step.out] = result if result.dtype == step.dtype else result.to(step.dtype)
            for dead in step.dead:
                if dead not in keep:
                    env[dead] = None
        return {name: env[k] for name, k in self._outputs}, env


def _within_piece(slots: Slots, starts: list[int]) -> tuple[int, Slots]:
    """The piece of the weights that holds all these slots (piece 0: the two constants; the others
    the parameters), and the slots within it."""
    if slots.size == 0:
        return WHOLE, slots
    if slots.entries is not None:
        entries = slots.numpy()
        low, high = int(entries.min()), int(entries.max())
    else:
        ends = [step * (size - 1) for size, step in zip(slots.shape, slots.strides, strict=True)]
        low = slots.offset + sum(end for end in ends if end < 0)
        high = slots.offset + sum(end for end in ends if end > 0)
    piece = bisect.bisect_right(starts, low) - 1
    if high >= starts[piece + 1]:
        return WHOLE, slots
    if slots.entries is not None:
        return piece, replace(slots, entries=Array.of(slots.numpy() - starts[piece]))
    return piece, replace(slots, offset=slots.offset - starts[piece])


def _fitting(value: ir.Value, inputs: Mapping[str, Tensor]) -> Tensor:
    """The tensor given for an input."""
    if value.name not in inputs:
        raise ModelError("no tensor given for this input", where=f"input {value.name}")
    tensor = inputs[value.name]
    if tuple(tensor.shape) != value.shape:
        raise ShapeError(
            f"the tensor has shape {list(tensor.shape)}, the program wants {list(value.shape)}",
            where=f"input {value.name}",
        )
    return tensor


def _through_int64(function: Function) -> Function:
    """The function on int64 in place of the unsigned types that torch only stores."""

    def run(*tensors: Tensor) -> Tensor:
        return function(*(t.to(torch.int64) if t.dtype in STORED_ONLY else t for t in tensors))

    return run


def run(program: Program, weights: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs of a program, by name. Prepare an ``Executor`` to call it more than once."""
    return Executor(program)(weights, inputs)
