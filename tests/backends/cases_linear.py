"""Cases of contractions, convolutions, pools and resampling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ngc.ir import program as ir
from ngc.ir.slots import Array
from tests.backends.cases import case, normal

IMAGE = {"x": normal(2, 4, 6, 5)}
X = {"x": normal(2, 3, 4)}

# --- contractions ------------------------------------------------------------------------------

for _spec, _x, _w in (
    ("bi,oi->bo", (5, 3), (4, 3)),
    ("bti,io->bto", (2, 5, 3), (3, 4)),
    ("kj,ik->ij", (3, 5), (4, 3)),
    ("i,oi->o", (3,), (4, 3)),
    ("bti,ti->bt", (2, 5, 3), (5, 3)),
    ("bcs,ts->bct", (2, 3, 4), (5, 4)),
    ("bhi,hio->bho", (2, 3, 4), (3, 4, 5)),
    ("bi,g->big", (2, 3), (4,)),
    ("bij,o->bo", (2, 3, 4), (5,)),
    ("abc,cde->abde", (2, 3, 4), (4, 2, 3)),
):
    case(
        _spec,
        ir.Linear,
        lambda x, w, s=_spec: np.einsum(s, x, w),
        {"x": normal(*_x)},
        {"weight": normal(*_w, seed=1)},
        spec=_spec,
    )
for _spec, _x, _w in (
    ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("bhqk,bhkd->bhqd", (2, 3, 4, 5), (2, 3, 5, 6)),
    ("bqhd,bkhd->bhqk", (2, 4, 3, 5), (2, 6, 3, 5)),
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("i,j->ij", (2,), (3,)),
):
    case(
        _spec,
        ir.Contract,
        lambda x, y, s=_spec: np.einsum(s, x, y),
        {"a": normal(*_x), "b": normal(*_w, seed=1)},
        a="a",
        b="b",
        spec=_spec,
    )


# --- windows -----------------------------------------------------------------------------------


def padded(x: np.ndarray, pads: tuple[int, ...], value: float, far: int = 0) -> np.ndarray:
    """x padded over its last axes, ``far`` entries more at the ends."""
    rank = len(pads) // 2
    widths = [(0, 0)] * (x.ndim - rank) + [(b, e + far) for b, e in zip(pads, pads[rank:])]
    return np.pad(x, widths, constant_values=value)


def window(place: tuple[int, ...], strides: Any, dilations: Any, kernel: Any) -> tuple[Any, ...]:
    return tuple(
        slice(p * s, p * s + (k - 1) * d + 1, d)
        for p, s, d, k in zip(place, strides, dilations, kernel)
    )


def windowed(
    x: np.ndarray,
    function: Callable[[np.ndarray], np.ndarray],
    out: tuple[int, ...],
    kernel: Any,
    strides: Any,
    dilations: Any,
) -> np.ndarray:
    """function of each window [..., *kernel], stacked over the places of the windows."""
    results = [
        function(x[(..., *window(place, strides, dilations, kernel))])
        for place in itertools.product(*map(range, out))
    ]
    return np.stack(results, -1).reshape(*results[0].shape, *out)


def num_windows(size: Any, pads: Any, kernel: Any, strides: Any, dilations: Any, ceil: bool) -> Any:
    rank = len(kernel)
    result = []
    for k in range(rank):
        room = size[k] + pads[k] + pads[rank + k] - dilations[k] * (kernel[k] - 1) - 1
        count = (math.ceil if ceil else math.floor)(room / strides[k]) + 1
        if ceil and (count - 1) * strides[k] >= size[k] + pads[k]:
            count -= 1
        result.append(count)
    return tuple(result)


def convolve(
    x: np.ndarray, w: np.ndarray, pads: Any, strides: Any, dilations: Any, groups: int
) -> np.ndarray:
    out = num_windows(x.shape[2:], pads, w.shape[2:], strides, dilations, False)
    x = padded(x, pads, 0)
    parts = []
    for xs, ws in zip(np.split(x, groups, 1), np.split(w, groups, 0)):
        letters = "uvwz"[: w.ndim - 2]
        spec = f"nc{letters},oc{letters}->no"
        parts.append(
            windowed(
                xs,
                lambda t, ws=ws, s=spec: np.einsum(s, t, ws),
                out,
                w.shape[2:],
                strides,
                dilations,
            )
        )
    return np.concatenate(parts, 1)


for _name, _x, _w, _pads, _strides, _dilations, _groups in (
    ("plain", (2, 4, 6, 5), (3, 4, 3, 2), (0, 0, 0, 0), (1, 1), (1, 1), 1),
    ("even pads", (2, 4, 6, 5), (3, 4, 3, 2), (1, 2, 1, 2), (2, 1), (1, 2), 1),
    ("uneven pads", (2, 4, 6, 5), (3, 4, 3, 2), (0, 1, 2, 0), (2, 1), (1, 1), 1),
    ("grouped", (2, 4, 6, 5), (6, 2, 3, 3), (1, 1, 1, 1), (1, 1), (1, 1), 2),
    ("depthwise", (2, 4, 6, 5), (4, 1, 3, 3), (1, 1, 1, 1), (1, 1), (1, 1), 4),
    ("1d", (2, 3, 7), (4, 3, 3), (2, 0), (2,), (2,), 1),
    ("3d", (1, 2, 3, 4, 3), (2, 1, 2, 2, 2), (1, 0, 0, 0, 1, 0), (1, 2, 1), (1, 1, 1), 2),
    (
        "4d",
        (1, 2, 3, 3, 2, 3),
        (4, 1, 2, 2, 2, 2),
        (1, 0, 0, 0, 0, 1, 0, 1),
        (1, 1, 1, 2),
        (1, 1, 1, 1),
        2,
    ),
):
    _fields = {"pads": _pads, "strides": _strides, "dilations": _dilations, "groups": _groups}
    case(
        _name,
        ir.Convolution,
        lambda x, w, f=_fields: convolve(x, w, **f),
        {"x": normal(*_x)},
        {"weight": normal(*_w, seed=1)},
        **_fields,
    )


def convolve_transposed(
    x: np.ndarray, w: np.ndarray, pads: Any, strides: Any, dilations: Any, groups: int
) -> np.ndarray:
    """Every entry of x adds its multiple of the kernel; then the result is cropped."""
    kernel = w.shape[2:]
    rank = len(kernel)
    full = [
        (n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(x.shape[2:], strides, kernel, dilations)
    ]
    result = np.zeros((x.shape[0], w.shape[1] * groups, *full), np.float32)
    for place in itertools.product(*map(range, x.shape[2:])):
        for g, (xs, ws) in enumerate(
            zip(np.split(x[(..., *place)], groups, 1), np.split(w, groups))
        ):
            channels = slice(g * w.shape[1], (g + 1) * w.shape[1])
            add = np.tensordot(xs, ws, 1)
            result[(slice(None), channels, *window(place, strides, dilations, kernel))] += add
    result = padded(result, tuple(max(0, -p) for p in pads), 0)
    stops = [n - max(0, e) for n, e in zip(result.shape[2:], pads[rank:])]
    return result[(..., *(slice(max(0, b), stop) for b, stop in zip(pads, stops)))]


for _name, _x, _w, _pads, _strides, _dilations, _groups in (
    ("plain", (2, 4, 3, 2), (4, 3, 3, 2), (0, 0, 0, 0), (1, 1), (1, 1), 1),
    ("strided", (2, 4, 3, 2), (4, 3, 3, 2), (1, 0, 1, 0), (2, 3), (1, 2), 1),
    ("output padding", (2, 4, 3, 2), (4, 3, 3, 3), (1, 1, 0, 0), (2, 2), (1, 1), 1),
    ("uneven pads", (2, 4, 3, 2), (4, 3, 3, 3), (0, 1, 2, 0), (2, 2), (1, 1), 1),
    ("extended", (2, 4, 3, 2), (4, 3, 2, 2), (0, 0, -2, -1), (2, 2), (1, 1), 1),
    ("grouped", (2, 4, 3, 2), (4, 3, 2, 2), (0, 0, 0, 0), (2, 2), (1, 1), 2),
    ("1d", (2, 3, 4), (3, 2, 3), (1, 0), (2,), (1,), 1),
    ("3d", (1, 2, 2, 3, 2), (2, 2, 2, 2, 1), (0, 1, 0, 0, 1, 0), (1, 2, 1), (1, 1, 1), 1),
):
    _fields = {"pads": _pads, "strides": _strides, "dilations": _dilations, "groups": _groups}
    case(
        _name,
        ir.ConvolutionTranspose,
        lambda x, w, f=_fields: convolve_transposed(x, w, **f),
        {"x": normal(*_x)},
        {"weight": normal(*_w, seed=1)},
        **_fields,
    )


def pool(
    x: np.ndarray,
    fn: str,
    kernel: Any,
    strides: Any,
    pads: Any,
    dilations: Any,
    ceil: bool,
    count_pads: bool = False,
    p: int = 2,
) -> np.ndarray:
    out = num_windows(x.shape[2:], pads, kernel, strides, dilations, ceil)
    axes = tuple(range(-len(kernel), 0))

    def over(x: np.ndarray, fill: float, function: Callable[..., Any]) -> np.ndarray:
        x = padded(x, pads, fill, far=max(strides))
        return windowed(x, lambda t: function(t, axis=axes), out, kernel, strides, dilations)

    if fn == "max":
        lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        return over(x, lowest, np.max)
    if fn == "lp":
        return over(np.abs(x) ** p, 0, np.sum) ** (1 / p)
    total = over(x, 0, np.sum)
    if not count_pads:
        return total / over(np.ones_like(x), 0, np.sum)
    counted = padded(padded(np.ones_like(x), pads, 1), (0,) * len(pads), 0, far=max(strides))
    return total / windowed(counted, lambda t: t.sum(axes), out, kernel, strides, dilations)


POOL_SETTINGS: tuple[tuple[str, Any, Any, Any, Any, Any, bool], ...] = (
    ("plain", (2, 4, 6, 5), (2, 2), (2, 2), (0, 0, 0, 0), (1, 1), False),
    ("even pads", (2, 4, 6, 5), (3, 2), (2, 1), (1, 1, 1, 1), (1, 1), False),
    ("uneven pads", (2, 4, 6, 5), (3, 3), (2, 1), (0, 1, 2, 0), (1, 1), False),
    ("wide pads", (2, 4, 6, 5), (2, 2), (1, 1), (1, 0, 1, 0), (1, 1), False),
    ("ceil", (2, 4, 6, 5), (3, 2), (2, 2), (0, 1, 1, 0), (1, 1), True),
    ("ceil without pads", (2, 4, 6, 5), (3, 2), (2, 2), (0, 0, 0, 0), (1, 1), True),
    ("dilated", (2, 4, 6, 5), (2, 2), (1, 2), (1, 0, 1, 1), (2, 3), False),
    ("1d", (2, 3, 7), (3,), (2,), (1, 1), (1,), False),
    ("3d", (1, 2, 3, 4, 3), (2, 2, 2), (1, 2, 1), (0, 1, 0, 1, 0, 0), (1, 1, 1), True),
    (
        "4d",
        (1, 2, 3, 3, 2, 3),
        (2, 2, 2, 2),
        (1, 1, 1, 2),
        (1, 0, 0, 0, 0, 1, 0, 1),
        (1, 1, 1, 1),
        False,
    ),
)
for _name, _x, _kernel, _strides, _pads, _dilations, _ceil in POOL_SETTINGS:
    _fields = {"kernel": _kernel, "strides": _strides, "pads": _pads, "dilations": _dilations}
    for _extra in (
        {"fn": "max"},
        {"fn": "mean"},
        {"fn": "mean", "count_pads": True},
        {"fn": "lp"},
        {"fn": "lp", "p": 3},
    ):
        case(
            " ".join([*map(str, _extra.values()), _name]),
            ir.Pool,
            lambda x, f=_fields | _extra, c=_ceil: pool(x, ceil=c, **f),
            {"x": normal(*_x)},
            **_fields,
            **_extra,
        )
case(
    "max of integers",
    ir.Pool,
    lambda x: pool(x, "max", (2,), (1,), (1, 0), (1,), False),
    {"x": -np.arange(5).reshape(1, 1, 5)},
    fn="max",
    kernel=(2,),
    strides=(1,),
    pads=(1, 0),
    dilations=(1,),
)


def resized(x: np.ndarray, axes: tuple[int, ...], matrices: list[np.ndarray]) -> np.ndarray:
    for axis, matrix in zip(axes, matrices):
        x = np.moveaxis(np.moveaxis(x, axis, -1) @ matrix.T, -1, axis)
    return x


NEAREST = np.eye(3, dtype=np.float32)[[0, 0, 1, 2, 2]]
for _axes, _matrices in (
    ((2,), [normal(5, 6)]),
    ((3, 2), [normal(2, 5), normal(7, 6)]),
    ((1, 3), [normal(2, 4), normal(9, 5)]),
):
    case(
        f"axes {_axes}",
        ir.Resize,
        lambda x, a=_axes, m=_matrices: resized(x, a, m),
        IMAGE,
        axes=_axes,
        matrices=tuple(map(Array.of, _matrices)),
    )
case(
    "nearest",
    ir.Resize,
    lambda x: resized(x, (1,), [NEAREST]),
    X,
    axes=(1,),
    matrices=(Array.of(NEAREST),),
)
