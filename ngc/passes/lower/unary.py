"""Functions of one tensor, entry by entry: activations, Clip, Cast, Dropout, PRelu."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir

from ngc.ir import program as ir
from ngc.passes.lower.base import WIDENED, Builder, Known, Operand, Rule, is_float, lowers

# Operators that are one Activation: what the program calls it, and its attributes with defaults.
ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "Abs": ("abs", {}),
    "Acos": ("acos", {}),
    "Acosh": ("acosh", {}),
    "Asin": ("asin", {}),
    "Asinh": ("asinh", {}),
    "Atan": ("atan", {}),
    "Atanh": ("atanh", {}),
    "BitwiseNot": ("bitwise_not", {}),
    "Ceil": ("ceil", {}),
    "Celu": ("celu", {"alpha": 1.0}),
    "Cos": ("cos", {}),
    "Cosh": ("cosh", {}),
    "Elu": ("elu", {"alpha": 1.0}),
    "Erf": ("erf", {}),
    "Exp": ("exp", {}),
    "Floor": ("floor", {}),
    "HardSigmoid": ("hard_sigmoid", {"alpha": 0.2, "beta": 0.5}),
    "HardSwish": ("hard_swish", {}),
    "LeakyRelu": ("leaky_relu", {"alpha": 0.01}),
    "Log": ("log", {}),
    "Mish": ("mish", {}),
    "Neg": ("neg", {}),
    "Reciprocal": ("reciprocal", {}),
    "Relu": ("relu", {}),
    "Round": ("round", {}),
    "Selu": ("selu", {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}),
    "Shrink": ("shrink", {"lambd": 0.5, "bias": 0.0}),
    "Sigmoid": ("sigmoid", {}),
    "Sign": ("sign", {}),
    "Sin": ("sin", {}),
    "Sinh": ("sinh", {}),
    "Softplus": ("softplus", {}),
    "Softsign": ("softsign", {}),
    "Sqrt": ("sqrt", {}),
    "Swish": ("swish", {"alpha": 1.0}),
    "Tan": ("tan", {}),
    "Tanh": ("tanh", {}),
    "ThresholdedRelu": ("thresholded_relu", {"alpha": 1.0}),
}


def _activation(fn: str, defaults: dict[str, float]) -> Rule:
    def rule(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
        numbers = (node.attributes.get_float(name, value) for name, value in defaults.items())
        return b.activation(x, fn, *numbers)

    return rule


for _op_type, (_fn, _defaults) in ACTIVATIONS.items():
    lowers(_op_type)(_activation(_fn, _defaults))


@lowers("Gelu", since=20)
def gelu(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """x times the normal distribution function, exact or by its tanh approximation."""
    tanh = node.attributes.get_string("approximate", "none") == "tanh"
    return b.activation(x, "gelu_tanh" if tanh else "gelu")


@lowers("Not", since=1)
def not_(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """True where x is False."""
    return b.activation(x, "not", dtype="bool")


@lowers("IsNaN", since=9)
def is_nan(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """True where x is not a number."""
    return b.activation(x, "is_nan", dtype="bool")


@lowers("IsInf", since=10)
def is_inf(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """True where x is infinite, of the signs asked for."""
    negative = node.attributes.get_int("detect_negative", 1)
    positive = node.attributes.get_int("detect_positive", 1)
    return b.activation(x, "is_inf", negative, positive, dtype="bool")


@lowers("Clip", since=1)
def clip_1(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """Bounds are attributes."""
    low, high = node.attributes.get_float("min"), node.attributes.get_float("max")
    return clipped(b, x, low, high)


@lowers("Clip", since=11)
def clip(
    b: Builder,
    node: onnx_ir.Node,
    x: Operand,
    low: Operand | None = None,
    high: Operand | None = None,
) -> Operand:
    """min(max(x, low), high); bounds are structure, never parameters."""
    if is_float(x.dtype) and not isinstance(low, ir.Value) and not isinstance(high, ir.Value):
        bounds = (
            None if bound is None else float(b.values_of(bound, name).reshape(()))
            for bound, name in ((low, "min"), (high, "max"))
        )
        return clipped(b, x, *bounds)
    for bound, fn in ((low, "max"), (high, "min")):
        if bound is not None:
            plain = Known(bound.array) if isinstance(bound, Known) else bound
            x = b.combine(fn, x, b.reshape(plain, ()), dtype=x.dtype)
    return x


def clipped(b: Builder, x: Operand, low: float | None, high: float | None) -> Operand:
    """x between two numbers; None leaves a side open."""
    if low is None and high is None:
        return x
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    return b.activation(x, "clip", low, high)


@lowers("PRelu", since=1)
def prelu_1(b: Builder, node: onnx_ir.Node, x: Operand, slope: Operand) -> Operand:
    """The slope is one number, or one a channel."""
    if math.prod(slope.shape) > 1:
        slope = b.reshape(slope, (-1, *(1 for _ in x.shape[2:])))
    return prelu(b, node, x, slope)


@lowers("PRelu", since=7)
def prelu(b: Builder, node: onnx_ir.Node, x: Operand, slope: Operand) -> Operand:
    """x where x >= 0, else slope times x; the slope broadcasts to x."""
    if b.broadcast(x, slope) != x.shape:
        raise b.misshapen(f"slope {list(slope.shape)} does not broadcast to {list(x.shape)}")
    if isinstance(slope, Known) and is_float(slope.dtype):
        value, slots = b.value(x), b.slots(slope)
        return b.emit(ir.PRelu, x.shape, x.dtype, x=value.name, slope=slots)
    zero = Known(np.zeros((), dtype=x.dtype))
    negative = b.combine("less", x, zero, dtype="bool")
    return b.combine("where", negative, b.combine("mul", slope, x), x)


@lowers("Cast", since=1, movement=True)
def cast(b: Builder, node: onnx_ir.Node, x: Operand) -> Operand:
    """x in another type. float16 and bfloat16 are computed in float32."""
    to = onnx_ir.DataType(node.attributes.get_int("to"))
    if isinstance(x, Known) and not (is_float(x.dtype) and to in _FLOATS):
        return b.evaluate(node, (x,))[0]
    return _cast(b, x, str(to.numpy()))


# Weights cast to narrow types keep their values: the narrow types are computed in float32.
_FLOATS = (
    onnx_ir.DataType.FLOAT, onnx_ir.DataType.DOUBLE, onnx_ir.DataType.FLOAT16,
    onnx_ir.DataType.BFLOAT16,
)  # fmt: skip


@lowers("CastLike", since=15, movement=True)
def cast_like(b: Builder, node: onnx_ir.Node, x: Operand, target: Operand) -> Operand:
    """x in the type of another tensor."""
    floats = is_float(x.dtype) and is_float(target.dtype)
    if isinstance(x, Known) and isinstance(target, Known) and not floats:
        return b.evaluate(node, (x, target))[0]
    return _cast(b, x, target.dtype)


def _cast(b: Builder, x: Operand, dtype: str) -> Operand:
    if dtype in WIDENED:
        b.note(f"{dtype} is computed in float32")
    return b.cast(x, dtype)


@lowers("Dropout", since=1, movement=True)
def dropout_1(b: Builder, node: onnx_ir.Node, x: Operand) -> tuple[Operand, Operand]:
    """Inference: x itself. The mask has the type of x before opset 10, then it is boolean."""
    dtype = "bool" if b.opsets.get("", 1) >= 10 else x.dtype
    return x, Known(np.broadcast_to(np.ones((), dtype=dtype), x.shape))


@lowers("Dropout", since=12, movement=True)
def dropout(
    b: Builder,
    node: onnx_ir.Node,
    x: Operand,
    ratio: Operand | None = None,
    training: Operand | None = None,
) -> tuple[Operand, Operand]:
    """Inference: x itself, and a mask that is True everywhere."""
    in_training = training is not None and bool(b.values_of(training, "training_mode").reshape(()))
    if in_training and (ratio is None or float(b.values_of(ratio, "ratio").reshape(())) != 0.0):
        raise b.refuse("it drops entries at random: training_mode is set")
    return x, Known(np.broadcast_to(np.ones((), dtype=bool), x.shape))
