"""Cases of elementwise operations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ngc.backends.torch_elementwise import ACTIVATIONS
from ngc.ir import program as ir
from tests.backends.cases import CASES, case, normal, positive

erf = np.vectorize(math.erf)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def exponential(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x < 0, alpha * (np.exp(x) - 1), x)


# Away from the kinks, so that finite differences hold.
REAL = (normal(3, 5) * 3).round(2) + np.float32(0.003)
UNIT = np.tanh(normal(3, 5)) * np.float32(0.9)
LARGE = np.array([-1e4, -90, -30, -1e-8, 0, 1e-8, 30, 90, 1e4], np.float32)

Formula = Callable[[np.ndarray], np.ndarray]
FORMULAS: list[tuple[str, tuple[float, ...], Formula]] = [
    ("relu", (), lambda x: np.maximum(x, 0)),
    ("leaky_relu", (0.1,), lambda x: np.where(x < 0, 0.1 * x, x)),
    ("elu", (0.7,), lambda x: exponential(x, 0.7)),
    ("celu", (2.0,), lambda x: np.maximum(x, 0) + np.minimum(0, 2 * (np.exp(x / 2) - 1))),
    ("selu", (1.5, 1.1), lambda x: 1.1 * exponential(x, 1.5)),
    ("sigmoid", (), sigmoid),
    ("hard_sigmoid", (0.3, 0.6), lambda x: np.clip(0.3 * x + 0.6, 0, 1)),
    ("hard_swish", (), lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    ("gelu", (), lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2)))),
    ("gelu_tanh", (), gelu_tanh),
    ("mish", (), lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    ("softplus", (), lambda x: np.log1p(np.exp(x))),
    ("softsign", (), lambda x: x / (1 + np.abs(x))),
    ("thresholded_relu", (0.8,), lambda x: np.where(x > 0.8, x, 0)),
    ("shrink", (0.8, 0.1), lambda x: np.where(x < -0.8, x + 0.1, np.where(x > 0.8, x - 0.1, 0))),
    ("swish", (1.3,), lambda x: x * sigmoid(1.3 * x)),
    ("erf", (), erf),
    ("clip", (-1.0, 0.5), lambda x: np.clip(x, -1, 0.5)),
    ("clip", (-math.inf, 0.5), lambda x: np.minimum(x, 0.5)),
    ("clip", (-math.inf, math.inf), lambda x: x),
    ("clip", (1.0, -1.0), lambda x: np.full_like(x, -1)),
    ("affine", (2.0, -3.0), lambda x: 2 * x - 3),
    ("affine", (2.0, 0.0), lambda x: 2 * x),
    ("affine", (1.0, -3.0), lambda x: x - 3),
    ("power", (3.0,), lambda x: x**3),
    ("base", (2.5,), lambda x: 2.5**x),
    ("floor", (), np.floor),
    ("ceil", (), np.ceil),
    ("round", (), np.round),
    ("sign", (), np.sign),
    ("abs", (), np.abs),
    ("neg", (), np.negative),
    ("reciprocal", (), lambda x: 1 / x),
    ("exp", (), np.exp),
    ("sin", (), np.sin),
    ("cos", (), np.cos),
    ("atan", (), np.arctan),
    ("sinh", (), np.sinh),
    ("cosh", (), np.cosh),
    ("tanh", (), np.tanh),
    ("asinh", (), np.arcsinh),
]
for _fn, _a, _formula in FORMULAS:
    case(f"{_fn} {_a}", ir.Activation, _formula, {"x": REAL}, fn=_fn, a=_a)
for _fn, _a, _formula in [
    ("tan", (), np.tan),
    ("asin", (), np.arcsin),
    ("acos", (), np.arccos),
    ("atanh", (), np.arctanh),
]:
    case(_fn, ir.Activation, _formula, {"x": UNIT}, fn=_fn, a=_a)
for _fn, _a, _formula, _least in [
    ("sqrt", (), np.sqrt, 0.0),
    ("log", (), np.log, 0.0),
    ("acosh", (), np.arccosh, 1.0),
    ("power", (-0.5,), lambda x: x**-0.5, 0.0),
]:
    _x = positive(3, 5) + np.float32(_least)
    case(f"{_fn} {_a}", ir.Activation, _formula, {"x": _x}, fn=_fn, a=_a)
for _fn, _formula in [
    ("softplus", lambda x: np.logaddexp(x, 0)),
    ("sigmoid", lambda x: np.exp(-np.logaddexp(-x.astype(np.float64), 0))),
    ("mish", lambda x: x * np.tanh(np.logaddexp(x, 0))),
    ("silu", lambda x: x * np.exp(-np.logaddexp(-x.astype(np.float64), 0))),
]:
    case(
        f"{_fn} of large numbers",
        ir.Activation,
        _formula,
        {"x": LARGE},
        fn=_fn,
        dtype="float32",
        smooth=False,
    )
_halves = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
case("round halves to even", ir.Activation, np.round, {"x": _halves}, fn="round", smooth=False)
_odd = np.array([np.nan, np.inf, -np.inf, 1, 0], np.float32)
case("is_nan", ir.Activation, np.isnan, {"x": _odd}, fn="is_nan")
for _signs, _is_inf in [
    ((), np.isinf),
    ((1.0, 0.0), np.isneginf),
    ((0.0, 1.0), np.isposinf),
    ((0.0, 0.0), lambda x: x > np.inf),
]:
    case(f"is_inf {_signs}", ir.Activation, _is_inf, {"x": _odd}, fn="is_inf", a=_signs)
case("not", ir.Activation, np.logical_not, {"x": np.array([True, False])}, fn="not")

INTEGERS = np.array([-(2**53) - 1, -7, -1, 0, 2, 9])
for _fn, _a, _formula in [
    ("affine", (2.0, 1.0), lambda x: 2 * x + 1),
    ("affine", (3.0, 0.0), lambda x: 3 * x),
    ("clip", (-5.0, math.inf), lambda x: np.maximum(x, -5)),
    ("relu", (), lambda x: np.maximum(x, 0)),
    ("neg", (), np.negative),
    ("sign", (), np.sign),
    ("power", (2.0,), lambda x: x**2),
    ("bitwise_not", (), np.invert),
]:
    case(f"{_fn} of integers", ir.Activation, _formula, {"x": INTEGERS}, fn=_fn, a=_a)
assert set(ACTIVATIONS) <= {c.fields["fn"] for c in CASES if c.cls is ir.Activation}

# --- with parameters ---------------------------------------------------------------------------

X = {"x": normal(2, 3, 4)}
for _fn, _formula2 in {
    "mul": lambda x, f: x * f,
    "div": lambda x, f: x / f,
    "rdiv": lambda x, f: f / x,
}.items():
    case(_fn, ir.Scale, _formula2, {"x": positive(2, 3, 4)}, {"factor": positive(3, 1)}, fn=_fn)
for _fn, _formula2 in {
    "add": lambda x, t: x + t,
    "sub": lambda x, t: x - t,
    "rsub": lambda x, t: t - x,
}.items():
    case(_fn, ir.Shift, _formula2, X, {"term": normal(4)}, fn=_fn)
case("per channel", ir.PRelu, lambda x, s: np.where(x >= 0, x, s * x), X, {"slope": normal(3, 1)})


def batch_norm(x: np.ndarray, *operands: np.ndarray) -> np.ndarray:
    scale, bias, mean, var = (p.reshape(-1, *[1] * (x.ndim - 2)) for p in operands)
    return (x - mean) / np.sqrt(var + 0.1) * scale + bias


for _shape in ((5, 3), (2, 3, 4), (2, 3, 2, 3)):
    _operands = {"scale": normal(3), "bias": normal(3, seed=1), "mean": normal(3, seed=2)}
    case(
        f"rank {len(_shape)}",
        ir.BatchNorm,
        batch_norm,
        {"x": normal(*_shape)},
        {**_operands, "var": positive(3)},
        epsilon=0.1,
    )

# --- several activations -----------------------------------------------------------------------

FLOATS = {"x": normal(2, 3, 4), "y": normal(3, 1, seed=1)}
for _fn, _formula2 in {
    "add": np.add,
    "mul": np.multiply,
    "sub": np.subtract,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "mean": lambda x, y: (x + y) / 2,
    "mod": np.mod,
    "fmod": np.fmod,
    "less": np.less,
    "greater_equal": np.greater_equal,
}.items():
    case(_fn, ir.Combine, _formula2, FLOATS, xs=("x", "y"), fn=_fn, smooth="mod" not in _fn)
case("pow", ir.Combine, np.power, {"x": positive(2, 3), "y": normal(3)}, xs=("x", "y"), fn="pow")
case(
    "three",
    ir.Combine,
    lambda x, y, z: x + y + z,
    {**FLOATS, "z": normal(4)},
    xs=("x", "y", "z"),
    fn="add",
)
case(
    "mean of three",
    ir.Combine,
    lambda x, y, z: (x + y + z) / 3,
    {**FLOATS, "z": normal(4)},
    xs=("x", "y", "z"),
    fn="mean",
)
case("one", ir.Combine, lambda x: x, X, xs=("x",), fn="max")
case(
    "where",
    ir.Combine,
    np.where,
    {"c": normal(2, 3, 1) > 0, **FLOATS},
    xs=("c", "x", "y"),
    fn="where",
)
_signed = {"x": np.array([-7, -7, 7, 7, 0, 2**60 + 1]), "y": np.array([2, -2, 2, -2, 5, 3])}
for _fn, _formula2 in {
    "div": lambda x, y: np.array([-3, 3, 3, -3, 0, (2**60 + 1) // 3]),
    "mod": np.mod,
    "fmod": np.fmod,
    "equal": np.equal,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
}.items():
    case(f"{_fn} of integers", ir.Combine, _formula2, _signed, xs=("x", "y"), fn=_fn)
for _dtype in (np.uint8, np.uint16, np.uint32, np.uint64):
    _pair = {"x": np.array([250, 3, 6], _dtype), "y": np.array([7, 2, 4], _dtype)}
    for _fn, _formula2 in {
        "add": np.add,
        "sub": np.subtract,
        "div": np.floor_divide,
        "shift_left": np.left_shift,
        "shift_right": np.right_shift,
    }.items():
        case(f"{_fn} of {_pair['x'].dtype}", ir.Combine, _formula2, _pair, xs=("x", "y"), fn=_fn)
_truths = {"x": np.array([True, True, False, False]), "y": np.array([True, False, True, False])}
for _fn, _formula2 in {
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "equal": np.equal,
}.items():
    case(f"{_fn} of truths", ir.Combine, _formula2, _truths, xs=("x", "y"), fn=_fn)
