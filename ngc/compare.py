"""How results are compared: relative to their scale, and with what rounding does to them."""

from __future__ import annotations

import numpy as np
import torch

from ngc.backends.torch_exec import Executor
from ngc.ir.program import Program
from ngc.samples import Arrays, tensors


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Shape, dtype and every bit, NaN and -0 included."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind not in "fiub":
        return a.tobytes() == b.tobytes()
    whole = f"u{a.dtype.itemsize}"
    first, second = (np.ascontiguousarray(x).reshape(-1).view(whole) for x in (a, b))
    return bool(np.array_equal(first, second))


def first_difference(found: np.ndarray, expected: np.ndarray) -> str:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return f"is {found.dtype} {list(found.shape)}, not {expected.dtype} {list(expected.shape)}"
    first = np.unravel_index(int((~_same(found, expected)).argmax()), found.shape)
    place = ", ".join(str(int(k)) for k in first)
    return f"first at [{place}]: {found[first]:.6g}, expected {expected[first]:.6g}"


# Below the smallest number that float32 holds with full precision, scales mean nothing.
TINY = 1e-30
# onnxruntime's sigmoid and softmax are exact to some 1e-8 of their range only.
BOUNDED = {"sigmoid": 1e-3, "hard_sigmoid": 1e-3, "softmax": 1e-3}


def floor(program: Program, ref: str) -> float:
    """The smallest scale to measure an output by: results near zero of an operation with a range
    of its own are measured by that range."""
    producers = program.producers()
    op = producers[ref]
    while op.is_view and op.inputs:
        op = producers[op.inputs[0]]
    return BOUNDED.get(getattr(op, "fn", ""), TINY)


# Where rounding moves outputs by more than this, agreement would prove nothing.
FORGIVABLE = 1e-3


def tolerated(error: float, noise: float) -> bool:
    """Whether an error is of the size that rounding makes in this network anyway."""
    # One number is summed in many orders: runtimes differ among each other by more than one of
    # them differs from the exact result.
    return noise <= FORGIVABLE and error <= 10 * noise


def difference(
    found: np.ndarray, reference: np.ndarray, smallest: float = TINY
) -> tuple[float, str]:
    """Largest error relative to the scale of the reference, and the first value beyond it."""
    if found.shape != reference.shape:
        return float("inf"), f"shape {list(found.shape)}, expected {list(reference.shape)}"
    if reference.size == 0:
        return 0.0, ""
    a, b = found.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(b)
    # Without one finite value there is nothing to hold the result against.
    scale = max(np.abs(b[finite]).max(), smallest) if finite.any() else 1.0
    with np.errstate(invalid="ignore"):
        error = np.where(finite, np.abs(a - b), np.where(_same(a, b), 0.0, np.inf))
    error = np.where(np.isnan(error), np.inf, error) / scale
    worst = float(error.max())
    first = np.unravel_index(int((error > 0.1 * worst).argmax()), error.shape)
    place = ", ".join(str(int(k)) for k in first)
    return worst, f"error {worst:.1e}, first at [{place}]: {a[first]:.6g}, expected {b[first]:.6g}"


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a == b) | (np.isnan(a) & np.isnan(b))


# By the type of a parameter; half precision is computed with in single (``Oracle``, ``Executor``),
# and integers are exact.
_SINGLE = torch.finfo(torch.float32).eps
LAST_BIT = {
    "float16": _SINGLE, "bfloat16": _SINGLE, "float32": _SINGLE,
    "float64": torch.finfo(torch.float64).eps,
}  # fmt: skip
# How often the last bits of the weights are drawn anew. One number may hardly move by luck.
DRAWS = 8


def moved_by_rounding(program: Program, weights: torch.Tensor, inputs: Arrays) -> dict[str, float]:
    """For each output, how far rounding may move it, relative to its scale.

    The larger of what single precision does to it, and of what a change of the weights in their
    last bit does (in double precision; several draws). The first alone is one draw of luck where
    an output has few entries. The second also shows what sums lose to cancellation, as each of
    their terms moves on its own (Monte Carlo arithmetic, Parker 1997, on the weights).
    """
    given = tensors(inputs)
    generator = torch.Generator().manual_seed(0)
    executor = Executor(program, torch.float64)
    last_bit = torch.zeros(weights.shape, dtype=torch.float64)
    for param in program.params:
        last_bit[param.offset : param.offset + param.size] = LAST_BIT.get(param.dtype, 0.0)
    with torch.no_grad():
        single = Executor(program)(weights, given)
        exact = executor(weights.double(), given)
        moved = {name: difference(a.numpy(), exact[name].numpy())[0] for name, a in single.items()}
        for _ in range(DRAWS):
            drawn = torch.rand(weights.shape, generator=generator, dtype=torch.float64) * 2 - 1
            outputs = executor(weights.double() * (1 + drawn * last_bit), given)
            for name, a in outputs.items():
                error, _ = difference(a.numpy(), exact[name].numpy())
                moved[name] = max(moved[name], error)
    return moved


def numpy_of(values: dict[str, torch.Tensor]) -> Arrays:
    return {name: value.numpy() for name, value in values.items()}
