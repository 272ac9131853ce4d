"""Cases of sources and data movement."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ngc.ir import program as ir
from ngc.ir.slots import Array
from tests.backends.cases import case, normal

X = {"x": normal(2, 3, 4)}

case("itself", ir.Parameter, lambda d: d, params={"data": normal(2, 3)})
case("itself", ir.Constant, lambda: normal(2, 3), data=Array.of(normal(2, 3)))
case("integers", ir.Constant, lambda: np.arange(3), data=Array.of(np.arange(3)))
case("to matrix", ir.Reshape, lambda x: x.reshape(6, 4), X)
case("cycle", ir.Transpose, lambda x: x.transpose(2, 0, 1), X, perm=(2, 0, 1))
case("steps", ir.Slice, lambda x: x[:, 1:, 1::2], X, starts=(0, 1, 1), steps=(1, 1, 2))
case("backwards", ir.Slice, lambda x: x[::-1, :, ::-2], X, starts=(1, 0, 3), steps=(-1, 1, -2))
case("nothing", ir.Slice, lambda x: x[:, :0], X, starts=(0, 0, 0), steps=(1, 1, 1))
case("new axes", ir.Expand, lambda x: np.broadcast_to(x, (5, 2, 3, 4)), X)
case("size 1", ir.Expand, lambda x: np.broadcast_to(x, (2, 3, 4)), {"x": normal(3, 1)})
for _index in ([2, 0, 0, 1], [0, 2], [1], [1, 2, 3]):
    case(
        str(_index),
        ir.Take,
        lambda x, i=_index: x[:, :, i],
        X,
        axis=2,
        index=Array.of(np.array(_index)),
    )
_any = np.array([[5, 0, 23], [7, 7, 1]])
case("anything", ir.Select, lambda x: x.reshape(-1)[_any], X, index=Array.of(_any))
_diagonal = np.arange(0, 16, 5)
case("diagonal", ir.Select, np.diagonal, {"x": normal(4, 4)}, index=Array.of(_diagonal))
case(
    "two",
    ir.Concat,
    lambda a, b: np.concatenate([a, b], 1),
    X | {"y": normal(2, 5, 4)},
    xs=("x", "y"),
    axis=1,
)
case("empty", ir.Concat, lambda: np.zeros((2, 0, 3)), xs=(), axis=1)
case("zeros", ir.Pad, lambda x: np.pad(x, [(0, 1), (2, 0), (1, 3)]), X, pads=(0, 2, 1, 1, 0, 3))
case(
    "value",
    ir.Pad,
    lambda x: np.pad(x, [(0, 0), (1, 0), (0, 0)], constant_values=7),
    X,
    pads=(0, 1, 0, 0, 0, 0),
    value=7.0,
)
case(
    "integers",
    ir.Pad,
    lambda x: np.pad(x, 1, constant_values=2),
    {"x": np.arange(3)},
    pads=(1, 1),
    value=2.0,
)
case("truncate", ir.Cast, np.trunc, {"x": normal(9) * 3}, dtype="int64")
case("to bool", ir.Cast, lambda x: x != 0, {"x": np.array([0.0, 0.3, -1.0, np.nan], np.float32)})
case("to double", ir.Cast, lambda x: x, X, dtype="float64")
case("wide unsigned", ir.Cast, lambda x: x.astype(np.uint32), {"x": np.array([0, 7, -1])})

# --- picking by ids that are activations -------------------------------------------------------

IDS = np.array([[2, 0, -1], [1, 1, 0]])
case("rows", ir.Embedding, lambda i, w: w[i], {"ids": IDS}, {"weight": normal(4, 5)})
case(
    "int32",
    ir.Embedding,
    lambda i, w: w[i],
    {"ids": IDS[0].astype(np.int32)},
    {"weight": normal(4, 2, 3)},
)
for _axis in (0, 1, 2):
    case(
        f"axis {_axis}",
        ir.Gather,
        lambda x, i, a=_axis: np.take(x, i % x.shape[a], a),
        {"x": normal(3, 4, 3), "ids": IDS},
        fn="axis",
        axis=_axis,
    )
case(
    "scalar",
    ir.Gather,
    lambda x, i: x[:, i],
    {"x": normal(3, 4), "ids": np.array(2)},
    fn="axis",
    axis=1,
)
case(
    "elements",
    ir.Gather,
    lambda x, i: np.take_along_axis(x[:2, :3], i % 3, 1),
    {"x": normal(2, 3), "ids": IDS},
    fn="elements",
    axis=1,
)
case(
    "elements 0",
    ir.Gather,
    lambda x, i: np.take_along_axis(x[:, :3], i % 4, 0),
    {"x": normal(4, 5), "ids": IDS},
    fn="elements",
    axis=0,
)
_pairs = np.array([[[0, 1], [1, -1]], [[1, 0], [0, 0]], [[-1, 2], [0, 1]]])
case(
    "nd",
    ir.Gather,
    lambda x, i: x[i[..., 0], i[..., 1]],
    {"x": normal(2, 3, 4), "ids": _pairs},
    fn="nd",
    axis=0,
)
case(
    "nd batched",
    ir.Gather,
    lambda x, i: np.stack([x[n][i[n][:, 0], i[n][:, 1]] for n in range(3)]),
    {"x": normal(3, 2, 4, 2), "ids": _pairs},
    fn="nd",
    axis=1,
)
# Of two writes to one place either may win (ONNX), so that has no gradient: only the others do it.
_apart = np.array([[2, -1], [0, 3], [1, 2]])
_twice = np.array([[2, -1], [0, 0], [1, 2]])


def _written(fn: Callable[[float, float], float]) -> Callable[..., np.ndarray]:
    def reference(x: np.ndarray, ids: np.ndarray, updates: np.ndarray) -> np.ndarray:
        result = x.copy()
        for row, column in np.ndindex(ids.shape):
            place = row, ids[row, column]
            result[place] = fn(result[place], updates[row, column])
        return result

    return reference


_functions: dict[str, Callable[[float, float], float]] = {
    "write": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": max,
    "min": min,
}
for _fn, _function in _functions.items():
    case(
        _fn,
        ir.Scatter,
        _written(_function),
        {"x": normal(3, 4), "ids": _apart if _fn == "write" else _twice, "updates": normal(3, 2)},
        fn=_fn,
        axis=1,
    )
