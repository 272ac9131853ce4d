"""Cases of reductions, normalisation, softmax, running sums and sorting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ngc.backends.torch_reduce import REDUCTIONS
from ngc.ir import program as ir
from tests.backends.cases import case, normal, positive

X = {"x": normal(2, 3, 4)}

Reduction = Callable[[np.ndarray, tuple[int, ...], bool], Any]
FORMULAS: dict[str, Reduction] = {
    "sum": lambda x, axes, keep: x.sum(axes, keepdims=keep),
    "mean": lambda x, axes, keep: x.mean(axes, keepdims=keep),
    "max": lambda x, axes, keep: x.max(axes, keepdims=keep),
    "min": lambda x, axes, keep: x.min(axes, keepdims=keep),
    "prod": lambda x, axes, keep: x.prod(axes, keepdims=keep),
    "l1": lambda x, axes, keep: np.abs(x).sum(axes, keepdims=keep),
    "l2": lambda x, axes, keep: np.sqrt((x * x).sum(axes, keepdims=keep)),
    "sum_square": lambda x, axes, keep: (x * x).sum(axes, keepdims=keep),
    "log_sum": lambda x, axes, keep: np.log(x.sum(axes, keepdims=keep)),
    "log_sum_exp": lambda x, axes, keep: np.log(np.exp(x).sum(axes, keepdims=keep)),
}
assert set(REDUCTIONS) <= set(FORMULAS)
for _fn, _reduction in FORMULAS.items():
    for _axes, _keep in (((1,), True), ((0, 2), False), ((0, 1, 2), False)):
        case(
            f"{_fn} {_axes}",
            ir.Reduce,
            lambda x, f=_reduction, a=_axes, k=_keep: f(x, a, k),
            {"x": positive(2, 3, 4)},
            fn=_fn,
            axes=_axes,
            keepdims=_keep,
        )
    _ints = np.array([[1, 2, -7], [3, 2, 9]], np.int32)
    if "log" not in _fn:
        case(
            f"{_fn} of integers",
            ir.Reduce,
            lambda x, f=_reduction: np.trunc(f(x, (0,), False)),
            {"x": _ints},
            dtype="int32",
            fn=_fn,
            axes=(0,),
            keepdims=False,
        )
case("no axes", ir.Reduce, lambda x: x, X, fn="sum_square", axes=(), keepdims=True)
_nothing = {"x": np.zeros((2, 0, 3), np.float32)}
for _fn, _neutral in {
    "sum": 0,
    "prod": 1,
    "max": -np.inf,
    "min": np.inf,
    "log_sum_exp": -np.inf,
}.items():
    case(
        f"{_fn} of nothing",
        ir.Reduce,
        lambda x, n=_neutral: np.full((2, 3), n, np.float32),
        _nothing,
        fn=_fn,
        axes=(1,),
        keepdims=False,
        smooth=False,
    )
case(
    "max of no integers",
    ir.Reduce,
    lambda x: np.full(2, -128, np.int8),
    {"x": np.zeros((2, 0), np.int8)},
    fn="max",
    axes=(1,),
    keepdims=False,
)
_truths = {"x": np.array([[True, False], [False, False]])}
case("max of truths", ir.Reduce, lambda x: x.any(1), _truths, fn="max", axes=(1,), keepdims=False)
_ties = {"x": np.array([[1, 3, 3, 0], [2, 2, 0, 2]], np.float32)}
for _fn, _places in {
    "argmax": [1, 0],
    "argmin": [3, 2],
    "argmax_last": [2, 3],
    "argmin_last": [3, 2],
}.items():
    case(_fn, ir.Reduce, lambda x, p=_places: np.array(p), _ties, fn=_fn, axes=(1,), keepdims=False)
case(
    "hard sums",
    ir.Reduce,
    lambda x: np.array([1000 + np.log(2)]),
    {"x": np.array([[1000, 1000, -np.inf]], np.float32)},
    fn="log_sum_exp",
    axes=(1,),
    keepdims=False,
    dtype="float32",
    smooth=False,
)

# --- normalisation -----------------------------------------------------------------------------


def standard(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


for _axes in ((2,), (1, 2), (1,), (0, 2)):
    case(
        f"standard {_axes}",
        ir.Normalise,
        lambda x, a=_axes: standard(x, a, 0.1),
        X,
        fn="standard",
        axes=_axes,
        epsilon=0.1,
    )
    case(
        f"rms {_axes}",
        ir.Normalise,
        lambda x, a=_axes: x / np.sqrt((x * x).mean(a, keepdims=True) + 0.1),
        X,
        fn="rms",
        axes=_axes,
        epsilon=0.1,
    )
    case(
        f"l1 {_axes}",
        ir.Normalise,
        lambda x, a=_axes: x / np.abs(x).sum(a, keepdims=True),
        X,
        fn="l1",
        axes=_axes,
    )
    case(
        f"l2 {_axes}",
        ir.Normalise,
        lambda x, a=_axes: x / np.sqrt((x * x).sum(a, keepdims=True)),
        X,
        fn="l2",
        axes=_axes,
        epsilon=1e-12,
    )
_zeros = {"x": np.zeros((2, 3), np.float32)}
case("l2 of zeros", ir.Normalise, lambda x: x, _zeros, fn="l2", axes=(1,), smooth=False)


def local_response(x: np.ndarray, alpha: float, beta: float, bias: float, size: int) -> np.ndarray:
    """ONNX LRN: from c - floor((size - 1) / 2) to c + ceil((size - 1) / 2)."""
    total = np.zeros_like(x)
    for c in range(x.shape[1]):
        low, high = max(0, c - (size - 1) // 2), c + size // 2 + 1
        total[:, c] = (x[:, low:high] ** 2).sum(1)
    return x / (bias + alpha / size * total) ** beta


for _size in (1, 3, 4, 5):
    _a = (0.5, 0.75, 1.5, _size)
    case(
        f"lrn {_size}",
        ir.Normalise,
        lambda x, a=_a: local_response(x, *a),
        {"x": normal(2, 5, 2, 3)},
        fn="lrn",
        axes=(1,),
        a=tuple(map(float, _a)),
    )


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    x = np.exp(x.astype(np.float64) - x.max(axis, keepdims=True))
    return (x / x.sum(axis, keepdims=True)).astype(np.float32)


HARD = {"x": np.array([[1e4, 1e4 + 1, -1e4], [-300, -301, -np.inf]], np.float32)}
for _axis in (0, 1, 2):
    case(
        f"softmax {_axis}",
        ir.Softmax,
        lambda x, a=_axis: softmax(x, a),
        X,
        fn="softmax",
        axis=_axis,
    )
    case(
        f"log {_axis}",
        ir.Softmax,
        lambda x, a=_axis: np.log(softmax(x, a)),
        X,
        fn="log_softmax",
        axis=_axis,
    )
case("hard", ir.Softmax, lambda x: softmax(x, 1), HARD, fn="softmax", axis=1, smooth=False)
case(
    "hard log",
    ir.Softmax,
    lambda x: np.array([[-1.3132617, -0.3132617, -20001.3132617]]),
    {"x": HARD["x"][:1]},
    fn="log_softmax",
    axis=1,
    dtype="float32",
    smooth=False,
)
case(
    "hardmax",
    ir.Softmax,
    lambda x: np.eye(4, dtype=np.float32)[[1, 0]],
    _ties,
    fn="hardmax",
    axis=1,
    smooth=False,
)

# --- along one axis, in order ------------------------------------------------------------------


def cumulate(x: np.ndarray, fn: str, exclusive: bool, reverse: bool) -> np.ndarray:
    x = x[:, ::-1] if reverse else x
    if exclusive:
        x = np.concatenate([np.full_like(x[:, :1], int(fn == "prod")), x[:, :-1]], 1)
    x = (np.cumsum if fn == "sum" else np.cumprod)(x, 1)
    return x[:, ::-1] if reverse else x


for _fn in ("sum", "prod"):
    for _exclusive in (False, True):
        for _reverse in (False, True):
            case(
                f"{_fn} exclusive={_exclusive} reverse={_reverse}",
                ir.Cumulate,
                lambda x, f=_fn, e=_exclusive, r=_reverse: cumulate(x, f, e, r),
                X,
                fn=_fn,
                axis=1,
                exclusive=_exclusive,
                reverse=_reverse,
            )
case(
    "integers",
    ir.Cumulate,
    lambda x: x.cumsum(0, dtype=np.int32),
    {"x": np.arange(5, dtype=np.int32)},
    fn="sum",
    axis=0,
)
case(
    "largest",
    ir.TopK,
    lambda x: np.sort(x, 1)[:, ::-1][:, :2],
    X,
    axis=1,
    largest=True,
    result="values",
)
case("smallest", ir.TopK, lambda x: np.sort(x, 1)[:, :2], X, axis=1, largest=False, result="values")
case(
    "ties",
    ir.TopK,
    lambda x: np.array([[1, 2, 0], [0, 1, 3]]),
    _ties,
    axis=1,
    largest=True,
    result="indices",
)
