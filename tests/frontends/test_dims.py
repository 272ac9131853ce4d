"""Open axes are bound by the user, by weights, or to small samples, and the notes say which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir
import pytest
from onnx import helper, numpy_helper

from ngc.errors import OptionError, ShapeError
from ngc.frontends.dims import bind_shapes, parse_dim, parse_shape, sample_shapes
from ngc.frontends.onnx import load


def model(shape: Sequence[int | str | None] | None, op: str = "Relu", **weights: tuple[int, ...]):
    x = helper.make_tensor_value_info("x", 1, shape)
    y = helper.make_tensor_value_info("y", 1, None)
    tensors = [numpy_helper.from_array(np.zeros(s, np.float32), n) for n, s in weights.items()]
    node = helper.make_node(op, ["x", *weights], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], tensors)
    opset = helper.make_opsetid("", 17)
    return load(helper.make_model(graph, opset_imports=[opset], ir_version=8)).model


def test_a_model_of_fixed_shape_has_one_binding_and_nothing_to_say() -> None:
    (bound,) = sample_shapes(model([2, 3]))
    assert bound.shapes == {"x": (2, 3)}
    assert bound.notes == ()


def test_open_axes_get_one_batch_and_small_sizes_and_a_note() -> None:
    bound = bind_shapes(model(["N", 3, "H", None]))
    assert bound.shapes == {"x": (1, 3, 32, 32)}
    assert bound.notes == ("input x has shape [N, 3, H, x[3]]; compiled for 1x3x32x32",)


def test_samples_follow_until_one_fits() -> None:
    images = [bound.shapes["x"] for bound in sample_shapes(model(["N", 3, "H", "W"]))]
    assert images[:3] == [(1, 3, 32, 32), (1, 3, 64, 64), (1, 3, 224, 224)]
    tokens = [bound.shapes["x"] for bound in sample_shapes(model(["batch", "seq"]))]
    assert tokens[:2] == [(1, 8), (1, 16)]


def test_the_user_decides_by_shape_and_by_name() -> None:
    bound = bind_shapes(model(["N", 3, "H", "H"]), {"x": [2, 3, 8, 8]})
    assert bound.shapes == {"x": (2, 3, 8, 8)}
    assert bound.notes == ()
    assert bind_shapes(model(["N", 3, "H", "H"]), dims={"H": 5}).shapes == {"x": (1, 3, 5, 5)}


@pytest.mark.parametrize(
    ("op", "weight", "expected"),
    [("Conv", (4, 5, 3, 3), (1, 5, 32, 32)), ("ConvTranspose", (6, 4, 3, 3), (1, 6, 32, 32))],
)
def test_the_first_weight_says_how_many_channels(
    op: str, weight: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert bind_shapes(model([None] * 4, op, w=weight)).shapes["x"] == expected
    assert bind_shapes(model(None, op, w=weight)).shapes["x"] == expected


def test_the_first_weight_says_how_many_features() -> None:
    assert bind_shapes(model([None, None], "MatMul", w=(7, 2))).shapes["x"] == (1, 7)
    assert bind_shapes(model(None, "Gemm", w=(7, 2))).shapes["x"] == (1, 7)


def test_an_input_of_unknown_rank_needs_the_user() -> None:
    with pytest.raises(ShapeError, match=r"input x: it has no shape\n  try: --shape x="):
        bind_shapes(model(None))
    assert bind_shapes(model(None), {"x": [4]}).shapes == {"x": (4,)}


@pytest.mark.parametrize(
    ("shapes", "dims", "words"),
    [
        ({"z": [1]}, {}, "no input is called 'z'; inputs: x"),
        ({"x": [1, 2]}, {}, r"input x has shape \[N, 3, H\]; \[1, 2\] has another rank"),
        ({"x": [1, 4, 2]}, {}, r"input x has shape \[N, 3, H\], not \[1, 4, 2\]"),
        ({"x": [1, 3, 2]}, {"H": 3}, "dimension H cannot be 3"),
        ({}, {"Q": 3}, "no open dimension is called 'Q'; there are: H, N"),
        ({"x": [1, 3, -2]}, {}, "is negative"),
        ({"x": [1, 3, "2"]}, {}, "cannot be '2', only whole numbers"),
    ],
)
def test_contradictions_are_refused(
    shapes: dict[str, list[int]], dims: dict[str, int], words: str
) -> None:
    with pytest.raises(OptionError, match=words):
        bind_shapes(model(["N", 3, "H"]), shapes, dims)


def test_the_command_line_forms() -> None:
    assert parse_shape("a=b=1x3") == ("a=b", (1, 3))
    assert parse_shape("x=") == ("x", ())
    assert parse_dim("N=4") == ("N", 4)
    for text in ("x", "=3", "x=1xa"):
        with pytest.raises(OptionError, match="cannot read the shape"):
            parse_shape(text)
    for text in ("N", "N=-1", "=1"):
        with pytest.raises(OptionError, match="cannot read the dimension"):
            parse_dim(text)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("4", "the size of dimension H cannot be '4', only whole numbers"),
        (4.0, "cannot be 4.0"),
        (-1, "the size of dimension H is negative"),
        (0, "size 0 of dimension H is not positive"),
    ],
)
def test_a_size_is_a_positive_whole_number(size: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        bind_shapes(model(["N", "H"]), dims={"H": size})


def test_only_the_model_can_make_a_size_0() -> None:
    assert bind_shapes(model([0, 3])).shapes == {"x": (0, 3)}
    assert bind_shapes(model([0, "H"]), {"x": [0, 3]}).shapes == {"x": (0, 3)}
    with pytest.raises(OptionError, match="a size that is not positive"):
        bind_shapes(model([0, "H"]), {"x": [0, 0]})


def test_model_is_what_the_loader_returns() -> None:
    assert isinstance(model([1]), onnx_ir.Model)
