"""If, Loop and Scan unrolled, sequences and optional values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ngc.errors import BudgetError, UnsupportedOps
from ngc.ir import program as ir
from tests.passes.lower.one_node import Case, Given, Number, build, ints, one, ramp, x

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
W = numpy_helper.from_array(ramp(3), "w")


def node(op_type: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, outputs, name=f"{op_type}_{outputs[0]}", **attributes)


def body(
    nodes: list[onnx.NodeProto], inputs: dict[str, int], outputs: dict[str, int]
) -> onnx.GraphProto:
    """A subgraph; inputs and outputs with their element types, shapes left open."""
    ends = [
        [helper.make_tensor_value_info(name, kind, None) for name, kind in values.items()]
        for values in (inputs, outputs)
    ]
    return helper.make_graph(nodes, "body", *ends)


def test_if_with_a_known_condition_takes_its_branch() -> None:
    branches = {
        f"{name}_branch": body([node("Mul", ["x", "w"], [name])], {}, {name: FLOAT})
        if name == "then"
        else body([node("Relu", ["x"], [name])], {}, {name: FLOAT})
        for name in ("then", "else")
    }
    for chosen, mnemonic in ((True, "scale"), (False, "activation")):
        condition = numpy_helper.from_array(np.array(chosen), "condition")
        nodes = [node("If", ["condition"], ["y"], **branches)]
        case = build(nodes, {"x": ramp(2, 3)}, [condition, W], ["y"])
        assert case.mnemonics == [mnemonic]


def test_if_that_depends_on_the_input_is_refused() -> None:
    branch = body([node("Identity", ["x"], ["z"])], {}, {"z": FLOAT})
    other = body([node("Identity", ["x"], ["u"])], {}, {"u": FLOAT})
    nodes = [
        node("Cast", ["x"], ["m"], to=BOOL),
        node("If", ["m"], ["y"], then_branch=branch, else_branch=other),
    ]
    with pytest.raises(UnsupportedOps, match="If_y: the condition depends on the input"):
        build(nodes, {"x": ramp()}, [], ["y"])


def test_operators_inside_refused_branches_and_bodies_are_named() -> None:
    inner = [node("NonZero", ["x"], ["n"]), node("Unique", ["x"], ["z"])]
    other = [node("NonZero", ["w"], ["known"]), node("Det", ["x"], ["u"])]
    branches = {
        "then_branch": body(inner, {}, {"z": FLOAT}),
        "else_branch": body(other, {}, {"u": FLOAT}),
    }
    cast = node("Cast", ["x"], ["m"], to=BOOL)
    nodes = [cast, node("If", ["m"], ["y"], **branches), node("Mystery", ["y"], ["v"])]
    with pytest.raises(UnsupportedOps) as refusal:
        build(nodes, {"x": ramp()}, [W], ["v"])
    found = [(error.op_type, error.where) for error in refusal.value.errors]
    unknown = [("Det", "Det_u"), ("Mystery", "Mystery_v"), ("NonZero", "NonZero_n")]
    assert sorted(found) == sorted([*unknown, ("If", "If_y"), ("Unique", "Unique_z")])


def loop(trips: int | None, until: int | None = None) -> Case:
    """state <- state * w, three times or until the trip number reaches a bound; yields states."""
    nodes = [
        node("Mul", ["state", "w"], ["next"]),
        node("Identity", ["next"], ["seen"]),
        node("Less", ["trip", "last"], ["more"]),
    ]
    inputs = {"trip": INT64, "going": BOOL, "state": FLOAT}
    inner = body(nodes, inputs, {"more": BOOL, "next": FLOAT, "seen": FLOAT})
    constants = [W, numpy_helper.from_array(np.array(until or 0), "last")]
    names = ["", "", "x"]
    if trips is not None:
        names[0] = "trips"
        constants.append(numpy_helper.from_array(np.array(trips), "trips"))
    if until is not None:
        names[1] = "start"
        constants.append(numpy_helper.from_array(np.array(True), "start"))
    nodes = [node("Loop", names, ["y", "all"], body=inner)]
    return build(nodes, {"x": ramp(2, 3)}, constants, ["y", "all"])


def test_loop_is_unrolled_with_one_parameter() -> None:
    case = loop(3)
    assert case.mnemonics == ["scale"] * 3 + ["reshape"] * 3 + ["concat"]
    assert [param.name for param in case.lowered.program.params] == ["w"]
    last, every = case.run()
    states = [ramp(2, 3) * ramp(3) ** k for k in (1, 2, 3)]
    np.testing.assert_array_equal(last, states[-1])
    np.testing.assert_array_equal(every, np.stack(states))


def test_loop_ends_when_its_condition_does() -> None:
    assert loop(None, until=1).mnemonics.count("scale") == 2
    assert loop(1, until=5).mnemonics.count("scale") == 1


def test_endless_loops_are_refused() -> None:
    with pytest.raises(UnsupportedOps, match="neither a trip count nor a condition"):
        loop(None)
    forever = body(
        [node("Identity", ["going"], ["on"]), node("Identity", ["state"], ["same"])],
        {"trip": INT64, "going": BOOL, "state": FLOAT},
        {"on": BOOL, "same": FLOAT},
    )
    start = numpy_helper.from_array(np.array(True), "start")
    with pytest.raises(BudgetError):
        build(
            [node("Loop", ["", "start", "x"], ["y"], body=forever)], {"x": ramp()}, [start], ["y"]
        )


def test_constants_in_a_loop_body_are_one_parameter() -> None:
    inner = body(
        [
            node("Constant", [], ["c"], value=numpy_helper.from_array(ramp(3))),
            node("Add", ["state", "c"], ["next"]),
            node("Identity", ["going"], ["on"]),
        ],
        {"trip": INT64, "going": BOOL, "state": FLOAT},
        {"on": BOOL, "next": FLOAT},
    )
    trips = numpy_helper.from_array(np.array(2), "trips")
    case = build(
        [node("Loop", ["trips", "", "x"], ["y"], body=inner)], {"x": ramp(3)}, [trips], ["y"]
    )
    assert case.mnemonics == ["shift", "shift"]
    assert [param.name for param in case.lowered.program.params] == ["c"]


@pytest.mark.parametrize("backwards", [0, 1])
def test_scan_carries_state_along_an_axis(backwards: int) -> None:
    inner = body(
        [node("Add", ["total", "step"], ["sum"]), node("Identity", ["sum"], ["each"])],
        {"total": FLOAT, "step": FLOAT},
        {"sum": FLOAT, "each": FLOAT},
    )
    scan = node(
        "Scan",
        ["zero", "x"],
        ["last", "each_step"],
        body=inner,
        num_scan_inputs=1,
        scan_input_axes=[1],
        scan_input_directions=[backwards],
        scan_output_axes=[1],
        scan_output_directions=[backwards],
    )
    zero = numpy_helper.from_array(np.zeros(2, np.float32), "zero")
    last, each = build([scan], {"x": ramp(2, 3)}, [zero], ["last", "each_step"]).run()
    steps = ramp(2, 3)[:, ::-1] if backwards else ramp(2, 3)
    sums = np.cumsum(steps, axis=1)
    np.testing.assert_array_equal(last, sums[:, -1])
    np.testing.assert_array_equal(each, sums[:, ::-1] if backwards else sums)


def sequence(*nodes: onnx.NodeProto) -> np.ndarray:
    """The value of y after these nodes, on inputs x and z and whole numbers k0, k1, m1."""
    numbers = {"k0": 0, "k1": 1, "m1": -1}
    constants = [numpy_helper.from_array(np.array(v), name) for name, v in numbers.items()]
    feeds = {"x": ramp(4, 2), "z": 10 + ramp(4, 2)}
    return build(list(nodes), feeds, constants, ["y"]).run()[0]


def test_sequences_are_lists() -> None:
    pair = node("SequenceConstruct", ["x", "z"], ["s"])
    a, c = ramp(4, 2), 10 + ramp(4, 2)
    at = node("SequenceAt", ["s", "m1"], ["y"])
    np.testing.assert_array_equal(sequence(pair, at), c)
    joined = node("ConcatFromSequence", ["s"], ["y"], axis=-1, new_axis=1)
    np.testing.assert_array_equal(sequence(pair, joined), np.stack([a, c], axis=-1))
    insert = node("SequenceInsert", ["s", "z", "k0"], ["t"])
    erase = node("SequenceErase", ["t", "k1"], ["u"])
    joined = node("ConcatFromSequence", ["u"], ["y"], axis=0)
    np.testing.assert_array_equal(sequence(pair, insert, erase, joined), np.concatenate([c, c]))
    count = node("SequenceLength", ["t"], ["y"])
    assert sequence(pair, insert, count) == 3
    empty = [node("SequenceEmpty", [], ["s"]), node("SequenceInsert", ["s", "x"], ["t"])]
    np.testing.assert_array_equal(sequence(*empty, node("SequenceAt", ["t", "k0"], ["y"])), a)


def test_split_to_sequence() -> None:
    at = node("SequenceAt", ["s", "k1"], ["y"])
    split = node("SplitToSequence", ["x"], ["s"], axis=0, keepdims=0)
    np.testing.assert_array_equal(sequence(split, at), ramp(4, 2)[1])
    three = node("Constant", [], ["n"], value_int=3)
    split = node("SplitToSequence", ["x", "n"], ["s"])
    np.testing.assert_array_equal(sequence(three, split, at), ramp(4, 2)[3:])


def test_sequences_keep_parameters() -> None:
    nodes = [
        node("SequenceConstruct", ["w", "w"], ["s"]),
        node("SequenceAt", ["s", "k"], ["v"]),
        node("Add", ["x", "v"], ["y"]),
    ]
    zero = numpy_helper.from_array(np.array(0), "k")
    case = build(nodes, {"x": ramp(3)}, [W, zero], ["y"])
    assert case.only(ir.Shift)
    assert [param.name for param in case.lowered.program.params] == ["w"]


def test_optional_values() -> None:
    nodes = [node("Optional", ["x"], ["o"]), node("OptionalGetElement", ["o"], ["y"])]
    assert build(nodes, {"x": ramp(3)}, [], ["y"]).ops == []
    nodes[1] = node("OptionalHasElement", ["o"], ["y"])
    assert build(nodes, {"x": ramp(3)}, [], ["y"]).run()[0]


def test_a_sequence_cannot_be_an_output() -> None:
    with pytest.raises(UnsupportedOps, match="a sequence cannot be an output"):
        one("SequenceConstruct", x(2), Given(ramp(2)), Number(ints(1)))
