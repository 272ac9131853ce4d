"""Kernels of elementwise operations: activations, combinations, scale and shift."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce

import torch
from torch import Tensor
from torch.nn import functional

from ngc.backends.torch_kernels import Function, Values, executes, is_floating, number
from ngc.ir import program as ir

# fn -> function of x and the numbers of the activation, with ONNX's defaults.
ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": lambda x, alpha=0.01: functional.leaky_relu(x, alpha),
    "elu": lambda x, alpha=1.0: functional.elu(x, alpha),
    "celu": lambda x, alpha=1.0: functional.celu(x, alpha),
    "selu": lambda x, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875: (
        gamma * functional.elu(x, alpha)
    ),
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda x, alpha=0.2, beta=0.5: torch.clamp(alpha * x + beta, 0, 1),
    "hard_swish": functional.hardswish,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "mish": functional.mish,
    # Beyond the threshold softplus is linear: at 40 that is exact in float64 too.
    "softplus": partial(functional.softplus, threshold=40.0),
    "softsign": functional.softsign,
    "thresholded_relu": lambda x, alpha=1.0: functional.threshold(x, alpha, 0),
    "shrink": lambda x, lambd=0.5, bias=0.0: torch.where(
        x < -lambd, x + bias, torch.where(x > lambd, x - bias, 0)
    ),
    "swish": lambda x, alpha=1.0: x * torch.sigmoid(alpha * x),
    "silu": functional.silu,
    "erf": torch.erf,
    "affine": lambda x, factor, term: x * factor + term,
    "power": torch.pow,
    "base": lambda x, base: torch.pow(base, x),
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,  # half to even
    "sign": torch.sign,
    "abs": torch.abs,
    "neg": torch.neg,
    "reciprocal": torch.reciprocal,
    "sqrt": torch.sqrt,
    "exp": torch.exp,
    "log": torch.log,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
    "not": torch.logical_not,
    "is_nan": torch.isnan,
    "is_inf": lambda x, negative=1, positive=1: IS_INF[bool(negative), bool(positive)](x),
    "bitwise_not": torch.bitwise_not,
}

IS_INF: dict[tuple[bool, bool], Callable[[Tensor], Tensor]] = {
    (True, True): torch.isinf,
    (True, False): torch.isneginf,
    (False, True): torch.isposinf,
    (False, False): lambda x: torch.zeros_like(x, dtype=torch.bool),
}


@executes(ir.Activation)
def activation(op: ir.Activation, values: Values) -> Function:
    dtype = values[op.x].dtype
    numbers = [number(value, dtype) for value in op.a]
    match op.fn:
        case "clip":
            low = None if numbers[0] == -math.inf else numbers[0]
            high = None if numbers[1] == math.inf else numbers[1]
            if low is None and high is None:
                return lambda x: x
            return lambda x: torch.clamp(x, low, high)
        case "affine" if numbers[1] == 0:
            return lambda x: x * numbers[0]
        case "affine" if numbers[0] == 1:
            return lambda x: x + numbers[1]
    function = ACTIVATIONS[op.fn]
    return partial(_with_numbers, function, tuple(numbers)) if numbers else function


def _with_numbers(function: Function, numbers: tuple[float, ...], x: Tensor) -> Tensor:
    return function(x, *numbers)


@executes(ir.PRelu)
def prelu(op: ir.PRelu, values: Values) -> Function:
    return lambda x, slope: torch.where(x >= 0, x, slope * x)


FACTORS: dict[str, Function] = {
    "mul": torch.mul,
    "div": torch.div,
    "rdiv": lambda x, factor: factor / x,
}
TERMS: dict[str, Function] = {
    "add": torch.add,
    "sub": torch.sub,
    "rsub": lambda x, term: term - x,
}


@executes(ir.Scale)
def scale(op: ir.Scale, values: Values) -> Function:
    return FACTORS[op.fn]


@executes(ir.Shift)
def shift(op: ir.Shift, values: Values) -> Function:
    return TERMS[op.fn]


@executes(ir.BatchNorm)
def batch_norm(op: ir.BatchNorm, values: Values) -> Function:
    # functional.batch_norm has no derivative for mean and variance, which are parameters here.
    shape = (-1,) + (1,) * (len(op.out.shape) - 2)
    epsilon = op.epsilon

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        factor = scale * torch.rsqrt(var + epsilon)
        term = bias - mean * factor
        return torch.addcmul(term.view(shape), x, factor.view(shape))

    return run


# fn -> function of two tensors; more are folded from the left.
COMBINATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "mul": torch.mul,
    "sub": torch.sub,
    "div": torch.div,
    "max": torch.maximum,
    "min": torch.minimum,
    "pow": torch.pow,
    "mod": torch.remainder,
    "fmod": torch.fmod,
    "and": torch.logical_and,
    "or": torch.logical_or,
    "xor": torch.logical_xor,
    "equal": torch.eq,
    "less": torch.lt,
    "less_equal": torch.le,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "bitwise_and": torch.bitwise_and,
    "bitwise_or": torch.bitwise_or,
    "bitwise_xor": torch.bitwise_xor,
    "shift_left": torch.bitwise_left_shift,
    "shift_right": torch.bitwise_right_shift,
}


@executes(ir.Combine)
def combine(op: ir.Combine, values: Values) -> Function:
    count = len(op.xs)
    match op.fn:
        case "where":
            return lambda condition, x, y: torch.where(condition.bool(), x, y)
        case "mean":
            return lambda *xs: reduce(torch.add, xs) / count
        case "div" if not is_floating(op.out.dtype):
            return lambda x, y: torch.div(x, y, rounding_mode="trunc")
    function = COMBINATIONS[op.fn]
    if count == 2:
        return function
    return lambda *xs: reduce(function, xs)
