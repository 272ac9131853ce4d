"""Data movement: shapes, the forms of old opsets, and slots that move with their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ngc.errors import ShapeError, UnsupportedOps
from ngc.ir import program as ir
from tests.passes.lower.one_node import Case, Given, ints, one, ramp, scalar, x

X = ramp(2, 3, 4)


def padded(array: np.ndarray, *last: tuple[int, int], mode: Any = "constant") -> np.ndarray:
    """numpy's padding of the last axes."""
    return np.pad(array, [(0, 0)] * (array.ndim - len(last)) + list(last), mode)


REFLECT = {"mode": "reflect"}
REVERSED = np.stack([X[:, 0][:, [1, 0, 2, 3]], X[:, 1][:, ::-1], X[:, 2]], axis=1)

# operator, operands after x, opset, attributes, expected value
MOVES: list[tuple[str, tuple[Any, ...], int, dict[str, Any], np.ndarray]] = [
    ("Reshape", (ints(0, -1),), 21, {}, X.reshape(2, 12)),
    ("Reshape", (), 1, {"shape": [4, 0, -1]}, X.reshape(4, 3, 2)),
    ("Transpose", (), 21, {}, X.transpose()),
    ("Transpose", (), 21, {"perm": [1, 0, 2]}, X.transpose(1, 0, 2)),
    ("Flatten", (), 21, {"axis": -1}, X.reshape(6, 4)),
    ("Flatten", (), 9, {"axis": 0}, X.reshape(1, 24)),
    ("Unsqueeze", (ints(0, -1),), 21, {}, X[None, ..., None]),
    ("Unsqueeze", (), 11, {"axes": [1]}, X[:, None]),
    ("Slice", (ints(-1), ints(-9), ints(1), ints(-2)), 21, {}, X[:, ::-2]),
    ("Slice", (ints(1, 0), ints(9, -1)), 13, {}, X[1:, :-1]),
    ("Slice", (), 9, {"starts": [1], "ends": [3], "axes": [2]}, X[..., 1:3]),
    ("Expand", (ints(5, 1, 1, 1),), 21, {}, np.broadcast_to(X, (5, 2, 3, 4))),
    ("Tile", (ints(1, 2, 3),), 21, {}, np.tile(X, (1, 2, 3))),
    ("Tile", (ints(2), ints(1)), 1, {}, np.tile(X, (1, 2, 1))),
    ("Gather", (np.array(2),), 21, {"axis": 1}, X[:, 2]),
    ("Gather", (np.array([[0, -1], [1, 1]]),), 21, {"axis": 2}, X[..., [[0, 3], [1, 1]]]),
    ("GatherElements", (np.array([[[1, 0]]]),), 21, {"axis": 2}, X[:1, :1, [1, 0]]),
    ("GatherND", (np.array([[1, 2], [0, -3]]),), 21, {}, X[[1, 0], [2, 0]]),
    ("GatherND", (np.array([[2], [0]]),), 21, {"batch_dims": 1}, X[[0, 1], [2, 0]]),
    ("Compress", (np.array([False, True, True]),), 21, {"axis": 1}, X[:, 1:]),
    ("Compress", (np.array([True, False, True]),), 21, {}, X.reshape(-1)[[0, 2]]),
    ("Pad", (ints(0, 1, 0, 0, 0, 2),), 13, {}, padded(X, (1, 0), (0, 2))),
    ("Pad", (ints(0, -1, 0, 0, 0, 1),), 13, {}, padded(X[:, 1:], (0, 1))),
    ("Pad", (ints(2, 1), scalar(7), ints(-1)), 18, {}, padded(X - 7, (2, 1)) + 7),
    ("Pad", (), 2, {"pads": [0, 0, 3] * 2, "mode": "reflect"}, padded(X, (3, 3), mode="reflect")),
    (
        "Pad",
        (ints(5, 6), None, ints(2)),
        19,
        {"mode": "reflect"},
        padded(X, (5, 6), mode="reflect"),
    ),
    ("Pad", (ints(2, 1), None, ints(2)), 19, {"mode": "edge"}, padded(X, (2, 1), mode="edge")),
    ("Pad", (ints(5, 6), None, ints(2)), 19, {"mode": "wrap"}, padded(X, (5, 6), mode="wrap")),
    ("CenterCropPad", (ints(5, 1),), 18, {"axes": [1, 2]}, padded(X[..., 1:2], (1, 1), (0, 0))),
    ("Trilu", (), 14, {}, np.triu(X)),
    ("Trilu", (ints(-1),), 14, {"upper": 0}, np.tril(X, -1)),
    ("ReverseSequence", (ints(2, 4, 1),), 10, {"time_axis": 2, "batch_axis": 1}, REVERSED),
]


@pytest.mark.parametrize(("op_type", "operands", "opset", "attributes", "expected"), MOVES)
def test_movement_does_to_values_what_numpy_does(
    op_type: str,
    operands: tuple[Any, ...],
    opset: int,
    attributes: dict[str, Any],
    expected: np.ndarray,
) -> None:
    case = one(op_type, Given(X), *operands, opset=opset, **attributes)
    np.testing.assert_array_equal(case.run()[0], expected)
    assert case.ops[-1].out.shape == expected.shape


@pytest.mark.parametrize(("op_type", "operands", "opset", "attributes", "expected"), MOVES)
def test_movement_moves_parameters_along(
    op_type: str,
    operands: tuple[Any, ...],
    opset: int,
    attributes: dict[str, Any],
    expected: np.ndarray,
) -> None:
    case = one(op_type, X, *operands, opset=opset, **attributes)
    np.testing.assert_array_equal(case.run()[0], expected)
    params = case.lowered.program.params
    assert {source for p in params for source in p.derived or (p.name,)} == {"w0"}


def test_squeeze_drops_axes_of_size_1() -> None:
    given = x(1, 3, 1, 2)
    assert one("Squeeze", given).ops[0].out.shape == (3, 2)
    assert one("Squeeze", given, ints(-2)).ops[0].out.shape == (1, 3, 2)
    assert one("Squeeze", given, opset=11, axes=[0]).ops[0].out.shape == (3, 1, 2)


def test_squeeze_of_a_larger_axis_is_an_error() -> None:
    with pytest.raises(ShapeError, match=r"node: axes \[1\] of \[1, 3\] are not all of size 1"):
        one("Squeeze", x(1, 3), ints(1))


def _shapes(case: Case) -> list[tuple[int, ...]]:
    return [array.shape for array in case.run()]


def test_split_into_given_and_equal_sizes() -> None:
    given = x(7, 2)
    assert _shapes(one("Split", given, ints(3, 4), outputs=2)) == [(3, 2), (4, 2)]
    assert _shapes(one("Split", given, outputs=3, num_outputs=3)) == [(3, 2), (3, 2), (1, 2)]
    assert _shapes(one("Split", given, outputs=2, opset=9, axis=1)) == [(7, 1), (7, 1)]
    assert _shapes(one("Split", given, outputs=2, opset=9, split=[6, 1])) == [(6, 2), (1, 2)]


def test_split_sizes_must_add_up() -> None:
    with pytest.raises(ShapeError, match="do not add up"):
        one("Split", x(7, 2), ints(3, 3), outputs=2)


def test_zero_in_reshape_means_zero_when_asked() -> None:
    assert one("Reshape", x(0, 4), ints(4, 0), allowzero=1).ops[0].out.shape == (4, 0)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_inverts_space_to_depth(mode: str) -> None:
    given = ramp(2, 8, 3, 2)
    (space,) = one("DepthToSpace", Given(given), blocksize=2, mode=mode).run()
    blocks = space.reshape(2, 2, 3, 2, 2, 2)  # n c h r w r
    perm = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    np.testing.assert_array_equal(blocks.transpose(perm).reshape(given.shape), given)
    if mode == "DCR":
        (back,) = one("SpaceToDepth", Given(space), blocksize=2).run()
        np.testing.assert_array_equal(back, given)


def test_concat_of_a_parameter_and_a_value() -> None:
    case = one("Concat", ramp(1, 2), x(3, 2), axis=0)
    assert case.mnemonics == ["parameter", "concat"]
    np.testing.assert_array_equal(case.run()[0], np.concatenate([ramp(1, 2), ramp(3, 2)]))


def test_concat_of_parameters_lists_slots_of_both() -> None:
    case = one("Concat", ramp(2), ramp(3), axis=0)
    slots = case.only(ir.Parameter).data
    assert slots.entries is not None
    assert [param.name for param in case.lowered.program.params] == ["w0", "w1"]
    np.testing.assert_array_equal(case.run()[0], [-1, 0, -1, 0, 1])


def test_table_read_by_indices_is_an_embedding() -> None:
    table, ids = ramp(5, 3), np.array([[4, 0], [-1, 2]])
    case = one("Gather", table, Given(ids))
    assert case.only(ir.Embedding).out.shape == (2, 2, 3)
    np.testing.assert_array_equal(case.run()[0], table[ids])


def test_table_read_along_another_axis_is_moved_first() -> None:
    table, ids = ramp(2, 5, 3), np.array([[4, 0], [1, 2]])
    case = one("Gather", table, Given(ids), axis=1)
    assert case.mnemonics == ["embedding", "transpose"]
    np.testing.assert_array_equal(case.run()[0], table[:, ids])


def test_indices_and_data_that_are_values_gather() -> None:
    case = one("Gather", x(5, 3), Given(np.array([1, 1])), axis=0)
    assert case.only(ir.Gather).fn == "axis"
    assert one("GatherElements", x(5), Given(ints(1, 1))).only(ir.Gather).fn == "elements"
    assert one("GatherND", x(5, 2), Given(np.array([[1]]))).only(ir.Gather).out.shape == (1, 2)


def test_experts_chosen_by_gather_nd_are_embedded() -> None:
    case = one("GatherND", ramp(4, 2, 3), Given(np.array([[2], [0]])))
    assert case.mnemonics == ["reshape", "embedding"]
    np.testing.assert_array_equal(case.run()[0], ramp(4, 2, 3)[[2, 0]])


def test_index_outside_is_an_error() -> None:
    with pytest.raises(ShapeError, match="index out of range for axis 0"):
        one("Gather", x(5, 3), ints(5))


def test_scatter_is_movement() -> None:
    data, updates = ramp(4, 2), 10 + ramp(2, 2)
    case = one("ScatterND", Given(data), np.array([[3], [0]]), Given(updates))
    expected = data.copy()
    expected[[3, 0]] = updates
    assert case.mnemonics == ["reshape", "reshape", "concat", "select"]
    np.testing.assert_array_equal(case.run()[0], expected)
    (result,) = one("Scatter", Given(data), np.array([[1, 0]]), ramp(1, 2), opset=9).run()
    np.testing.assert_array_equal(result, [[-1, 0], [-1, 2], [3, 4], [5, 6]])


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("add", [-1, 7, 1]), ("mul", [-1, 0, 1]), ("max", [-1, 4, 1]), ("min", [-1, 0, 1])],
)
def test_scatter_with_reduction_takes_every_update(reduction: str, expected: list[int]) -> None:
    case = one(
        "ScatterElements",
        x(3),
        ints(1, 1),
        Given(np.array([3, 4], np.float32)),
        reduction=reduction,
    )
    np.testing.assert_array_equal(case.run()[0], expected)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize("axis", [0, 1])
def test_scatter_by_data_is_one_operation(reduction: str, axis: int) -> None:
    """The indices lie in the first rows alone."""
    attributes = {"reduction": reduction, "axis": axis}
    updates = Given(np.array([[7, -9]], np.float32))
    case = one("ScatterElements", x(3, 4), Given(np.array([[2, -2]])), updates, **attributes)
    assert case.mnemonics.count("scatter") == 1
    case.agrees()


def test_scatter_by_data_of_other_shapes_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"updates \[1, 2\], indices \[1, 1\]"):
        one("ScatterElements", x(3, 4), Given(np.array([[2]])), Given(ramp(1, 2)))


def test_one_hot_counts_negative_indices_from_the_end() -> None:
    values = np.array([2.0, 5.0], np.float32)
    case = one("OneHot", Given(ints(1, -1, 7)), ints(3), values, axis=0)
    np.testing.assert_array_equal(case.run()[0], [[2, 2, 2], [5, 2, 2], [2, 5, 2]])
    assert not case.lowered.program.params


def test_sources_are_evaluated_and_are_no_parameters() -> None:
    assert one("Shape", x(2, 3, 4), start=-2).run()[0].tolist() == [3, 4]
    assert one("Size", x(2, 3)).run()[0] == 6
    (row,) = one("Range", scalar(1.0), scalar(2.0), scalar(0.25)).run()
    assert row.tolist() == [1.0, 1.25, 1.5, 1.75]
    case = one("EyeLike", x(2, 3), k=1)
    assert case.mnemonics == ["constant"]
    assert case.run()[0].tolist() == [[0, 1, 0], [0, 0, 1]]


def test_col2im_adds_overlapping_blocks() -> None:
    case = one("Col2Im", x(1, 4, 4), ints(3, 3), ints(2, 2))
    assert case.mnemonics == ["reshape", "convolution_transpose"]
    assert not case.lowered.program.params
    expected = np.zeros((3, 3))
    for tap, block in np.ndindex(4, 4):
        expected[tap // 2 + block // 2, tap % 2 + block % 2] += ramp(4, 4)[tap, block]
    np.testing.assert_array_equal(case.run()[0][0, 0], expected)


def test_shapes_that_depend_on_the_input_are_refused() -> None:
    with pytest.raises(UnsupportedOps, match="node: shape depends on the input; only a constant"):
        one("Reshape", x(2, 3), Given(ints(6)))
