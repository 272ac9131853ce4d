"""The executor itself: the weight vector, operands as views, recording, dtypes, refusals."""

from __future__ import annotations

import itertools
import weakref

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor

from ngc.backends.torch_exec import Executor, pack, run, unpack
from ngc.backends.torch_kernels import KERNELS, reader
from ngc.errors import ModelError, ShapeError, UnsupportedOp
from ngc.ir import program as ir
from ngc.ir.program import Param, Program, Value
from ngc.ir.slots import FIRST_SLOT, Array, Slots

ARRAYS = {
    "w": np.array([[1, 2, 3], [4, 5, 6]], np.float32) / 10,
    "b": np.array([1, -20], np.float32) / 10,
}


def network() -> Program:
    """relu(x w' + b) + its first entry."""
    return Program(
        "network",
        (Param("w", (2, 3), "float32", 2), Param("b", (2,), "float32", 8)),
        (
            ir.Input(out=Value("x", (4, 3))),
            ir.Linear(
                out=Value("h", (4, 2)), x="x", weight=Slots.contiguous((2, 3), 2), spec="bi,oi->bo"
            ),
            ir.Shift(out=Value("s", (4, 2)), x="h", term=Slots.contiguous((2,), 8)),
            ir.Activation(out=Value("a", (4, 2)), x="s", fn="relu"),
            ir.Slice(out=Value("first", (4, 1)), x="a", starts=(0, 0), steps=(1, 1)),
            ir.Combine(out=Value("sum", (4, 2)), xs=("a", "first"), fn="add"),
        ),
        (("y", "sum"), ("hidden", "a")),
    )


def example() -> tuple[Tensor, dict[str, Tensor]]:
    return pack(network(), ARRAYS), {"x": torch.arange(12.0).reshape(4, 3) - 5}


# --- the weight vector -------------------------------------------------------------------------


def test_the_weight_vector_is_zero_one_and_the_parameters_in_order() -> None:
    weights = pack(network(), ARRAYS)
    assert weights.dtype == torch.float32
    expected = [0, 1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.1, -2]
    torch.testing.assert_close(weights, torch.tensor(expected))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_half_precision_number_comes_back_bit_for_bit(dtype: type) -> None:
    values = np.arange(1 << 16, dtype=np.uint16).view(dtype).reshape(256, 256)
    program = Program("p", (Param("w", (256, 256), str(values.dtype), FIRST_SLOT),), (), ())
    back = unpack(program, pack(program, {"w": values}))["w"]
    assert back.dtype == values.dtype
    assert back.shape == values.shape
    assert back.tobytes() == values.tobytes()


def test_all_stored_dtypes_share_a_weight_vector() -> None:
    bits = np.random.default_rng(0).integers(0, 256, size=(4, 64), dtype=np.uint8)
    arrays = {
        dtype: np.nan_to_num(row.view(dtype), nan=1.0)
        for dtype, row in zip(("float64", "float32", "float16", "bfloat16"), bits)
    }
    params, offset = [], FIRST_SLOT
    for dtype, array in arrays.items():
        params.append(Param(dtype, array.shape, dtype, offset))
        offset += array.size
    program = Program("p", tuple(params), (), ())
    weights = pack(program, arrays)
    assert weights.dtype == torch.float64
    for name, array in unpack(program, weights).items():
        assert array.dtype == arrays[name].dtype
        assert array.tobytes() == arrays[name].tobytes()
    single = Program("p", tuple(params[1:2]), (), ())
    assert unpack(single, pack(single, arrays)[: single.num_slots])


def test_unpacked_parameters_are_copies_rounded_to_nearest() -> None:
    program = Program("p", (Param("w", (1,), "bfloat16", FIRST_SLOT),), (), ())
    weights = torch.tensor([0, 1, 1.00780])
    array = unpack(program, weights)["w"]
    weights.zero_()
    assert array.astype(np.float32) == np.float32(1.0078125)


def test_wrong_parameters_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="b: no value for this parameter"):
        pack(network(), {"w": ARRAYS["w"]})
    with pytest.raises(
        ShapeError, match=r"w: the value has shape \[3, 2\], the parameter \[2, 3\]"
    ):
        pack(network(), {**ARRAYS, "w": ARRAYS["w"].T})
    with pytest.raises(ShapeError, match=r"shape \[9\], not \[10\]"):
        unpack(network(), torch.zeros(9))


# --- operands ----------------------------------------------------------------------------------

VECTOR = torch.arange(100.0)
WHOLE = Slots.contiguous((4, 6), 10)
VIEWS = {
    "whole": WHOLE,
    "transposed": WHOLE.transpose((1, 0)),
    "permuted": Slots.contiguous((2, 3, 4), 10).transpose((2, 0, 1)),
    "constant": Slots.constant((3, 4), 1),
    "scalar": Slots.constant((), 5),
    "broadcast": Slots.contiguous((4, 1), 10).expand((2, 4, 6)),
    "heads repeated": Slots.contiguous((2, 1, 3), 10).expand((2, 5, 3)).transpose((1, 0, 2)),
    "rows": WHOLE.slice((1, 0), (1, 1), (2, 6)),
    "columns": WHOLE.slice((0, 2), (1, 1), (4, 3)),
    "every other": WHOLE.slice((0, 1), (2, 2), (2, 3)),
    "columns at the end": Slots.contiguous((4, 6), 76).slice((0, 4), (1, 1), (4, 2)),
    "blocks": Slots.contiguous((4, 4, 4), 10).slice((1, 1, 1), (1, 1, 1), (2, 2, 2)),
    "blocks at the end": Slots.contiguous((4, 4, 4), 36).slice((2, 2, 2), (1, 1, 1), (2, 2, 2)),
    "diagonal": Slots.strided((4,), 10, (7,)),
    "last axis of size 1": Slots.contiguous((4, 6, 1), 10),
    "empty": Slots.constant((3, 0, 2), 0),
}
COPIES = {
    "backwards": WHOLE.slice((3, 5), (-1, -1), (4, 6)),
    "overlapping": Slots.strided((4, 3), 10, (1, 1)),
    "two long rows": Slots.strided((2, 3), 10, (87, 1)),
    "two long rows of blocks": Slots.strided((2, 2, 3), 0, (90, 5, 1)),
    "one by one": Slots.of(np.array([[3, 1, 4], [1, 5, 9]])),
}


@pytest.mark.parametrize("slots", [*VIEWS.values(), *COPIES.values()], ids=[*VIEWS, *COPIES])
def test_an_operand_holds_the_entries_of_its_slots(slots: Slots) -> None:
    kernel = reader(slots, len(VECTOR))
    found = kernel.function(VECTOR, *map(torch.tensor, kernel.constants))
    assert tuple(found.shape) == slots.shape
    np.testing.assert_array_equal(found.numpy(), slots.numpy())
    stacked = torch.stack([VECTOR, VECTOR + 100])
    index = [torch.tensor(array) for array in kernel.constants]
    both = torch.func.vmap(lambda w: kernel.function(w, *index))(stacked)
    np.testing.assert_array_equal(both[1].numpy(), slots.numpy() + 100)


@pytest.mark.parametrize("slots", VIEWS.values(), ids=VIEWS)
def test_a_regular_operand_is_a_view_of_the_weights(slots: Slots) -> None:
    kernel = reader(slots, len(VECTOR))
    assert not kernel.constants
    found = kernel.function(VECTOR)
    assert found.untyped_storage().data_ptr() == VECTOR.untyped_storage().data_ptr()


# --- running -----------------------------------------------------------------------------------


def test_a_program_runs() -> None:
    weights, inputs = example()
    hidden = torch.relu(inputs["x"] @ torch.tensor(ARRAYS["w"]).T + torch.tensor(ARRAYS["b"]))
    found = run(network(), weights, inputs)
    assert list(found) == ["y", "hidden"]
    torch.testing.assert_close(found["hidden"], hidden)
    torch.testing.assert_close(found["y"], hidden + hidden[:, :1])


def test_stacked_weights_and_inputs_run_at_once() -> None:
    execute = Executor(network())
    weights, inputs = example()
    many = torch.stack([weights, weights.flip(0)])
    found = torch.func.vmap(execute, in_dims=(0, None))(many, inputs)
    for k in range(2):
        torch.testing.assert_close(found["y"][k], execute(many[k], inputs)["y"])
    inside = torch.func.vmap(lambda w: run(network(), w, inputs)["y"])(many)
    torch.testing.assert_close(inside, found["y"])


def test_values_are_recorded_by_name() -> None:
    execute = Executor(network())
    weights, inputs = example()
    outputs, values = execute.record(weights, inputs)
    assert list(values) == ["x", "h", "s", "a", "first", "sum"]
    torch.testing.assert_close(values["a"], torch.relu(values["s"]))
    assert outputs["y"] is values["sum"]
    assert list(execute.record(weights, inputs, ["s", "x"])[1]) == ["s", "x"]
    with pytest.raises(ModelError, match="network: the program has no value 'z'"):
        execute.record(weights, inputs, ["z"])
    stacked = torch.func.vmap(lambda w: execute.record(w, inputs, {"h"})[1])(weights[None])
    torch.testing.assert_close(stacked["h"][0], values["h"])


def test_recorded_values_carry_gradients() -> None:
    weights, inputs = example()
    weights.requires_grad_()
    values = Executor(network()).record(weights, inputs, {"s"})[1]
    (gradient,) = torch.autograd.grad(values["s"].sum(), weights)
    column = inputs["x"].sum(0).tolist()
    assert gradient.tolist() == [0, 0, *column, *column, 4, 4]


def test_values_are_freed_after_their_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def watched(x: Tensor) -> Tensor:
        alive.append(sum(ref() is not None for ref in made))
        result = torch.exp(x)
        made.append(weakref.ref(result))
        return result

    monkeypatch.setitem(KERNELS, ir.Activation, lambda op, values: watched)
    names = ["x", *(f"v{k}" for k in range(6))]
    chain = [
        ir.Activation(out=Value(name, (3,)), x=before, fn="exp")
        for before, name in itertools.pairwise(names)
    ]
    program = Program("p", (), (ir.Input(out=Value("x", (3,))), *chain), (("y", "v5"),))
    run(program, torch.tensor([0.0, 1.0]), {"x": torch.zeros(3)})
    assert alive == [0, 1, 1, 1, 1, 1]


def test_results_have_the_dtype_of_the_program_or_the_one_asked_for() -> None:
    weights, inputs = example()
    assert run(network(), weights.double(), inputs)["y"].dtype == torch.float32
    for dtype in (torch.float64, torch.bfloat16):
        assert Executor(network(), dtype)(weights, inputs)["y"].dtype == dtype


def test_mixed_precision_follows_the_program() -> None:
    params = (Param("w", (2,), "float64", 2), Param("v", (2,), "float32", 4))
    double, single = Value("d", (2,), "float64"), Value("s", (2,))
    ops = (
        ir.Input(out=Value("x", (2,), "float64")),
        ir.Scale(out=double, x="x", factor=Slots.contiguous((2,), 2)),
        ir.Cast(out=Value("c", (2,)), x="d"),
        ir.Shift(out=single, x="c", term=Slots.contiguous((2,), 4)),
    )
    program = Program("mixed", params, ops, (("d", "d"), ("s", "s")))
    third = np.array([1 / 3, 1 / 7])
    weights = pack(program, {"w": third, "v": np.ones(2, np.float32)})
    found = run(program, weights, {"x": torch.ones(2)})
    assert found["d"].tolist() == third.tolist()
    assert found["s"].dtype == torch.float32


def test_an_executor_made_in_inference_mode_can_be_differentiated() -> None:
    grid = Array.of(np.ones((4, 2), np.float32))
    program = network()
    ops = (
        *program.ops,
        ir.Constant(out=Value("grid", (4, 2)), data=grid),
        ir.Combine(out=Value("scaled", (4, 2)), xs=("sum", "grid"), fn="mul"),
    )
    weights, inputs = example()
    with torch.inference_mode():
        execute = Executor(Program("p", program.params, ops, (("y", "scaled"),)))
    weights.requires_grad_()
    execute(weights, inputs)["y"].sum().backward()
    assert weights.grad is not None


def test_operands_are_views_of_the_weights_or_gathers_across_parameters() -> None:
    mixed = Slots.of(np.array([[7, 8, 0], [2, 9, 1]]))
    columns = Slots.contiguous((2, 3), 2).slice((0, 1), (1, 1), (2, 2))
    program = Program(
        "operands",
        network().params,
        (
            ir.Parameter(out=Value("columns", (2, 2)), data=columns),
            ir.Parameter(out=Value("mixed", (2, 3)), data=mixed),
        ),
        (("columns", "columns"), ("mixed", "mixed")),
    )
    weights = example()[0].requires_grad_()
    found = run(program, weights, {})
    assert found["columns"].data_ptr() == weights.data_ptr() + 3 * weights.element_size()
    np.testing.assert_array_equal(found["columns"].detach(), ARRAYS["w"][:, 1:])
    np.testing.assert_array_equal(found["mixed"].detach(), weights.detach().numpy()[mixed.numpy()])
    (found["columns"].sum() + 2 * found["mixed"].sum()).backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [2, 2, 2, 1, 1, 0, 1, 3, 2, 2]


def test_constants_made_within_a_transform_serve_after_it() -> None:
    places = np.array([1, 0, 0])
    ops = (
        ir.Input(out=Value("x", (2,))),
        ir.Take(out=Value("t", (3,)), x="x", axis=0, index=Array.of(places)),
    )
    execute = Executor(Program("p", (), ops, (("y", "t"),)))
    weights, x = torch.ones(2, device="meta"), torch.ones(2, device="meta")  # not the first device
    torch.func.grad(lambda x: execute(weights, {"x": x})["y"].sum())(x)
    assert execute(weights, {"x": x})["y"].device.type == "meta"
    assert not any(
        map(torch._C._functorch.is_functorch_wrapped_tensor, execute._on_device[x.device])
    )


def test_several_outputs_may_be_one_value_or_an_input() -> None:
    program = Program("same", (), (ir.Input(out=Value("x", (2,))),), (("a", "x"), ("b", "x")))
    found = run(program, torch.tensor([0.0, 1.0]), {"x": torch.ones(2)})
    assert list(found) == ["a", "b"]


# --- refusals ----------------------------------------------------------------------------------


def test_inputs_that_do_not_fit_are_refused_by_name() -> None:
    weights, inputs = example()
    with pytest.raises(ModelError, match="input x: no tensor given"):
        run(network(), weights, {})
    with pytest.raises(ShapeError, match=r"input x: the tensor has shape \[2, 3\]"):
        run(network(), weights, {"x": inputs["x"][:2]})
    with pytest.raises(ShapeError, match=r"network: the weights have shape \[2, 10\], not \[10\]"):
        run(network(), torch.stack([weights] * 2), inputs)


def test_a_failing_operation_is_named() -> None:
    ops = (
        ir.Input(out=Value("ids", (2,), "int64")),
        ir.Embedding(
            out=Value("e", (2, 3)), ids="ids", weight=Slots.contiguous((2, 3), 2), origin="/emb"
        ),
    )
    program = Program("p", (Param("w", (2, 3), "float32", 2),), ops, (("y", "e"),))
    weights = pack(program, {"w": ARRAYS["w"]})
    with pytest.raises(ModelError, match=r"/emb: embedding cannot be computed .*out of"):
        run(program, weights, {"ids": torch.tensor([0, 7])})


def test_what_torch_cannot_run_is_refused_by_node() -> None:
    text = Program("p", (), (ir.Input(out=Value("x", (2,), "str_")),), (("y", "x"),))
    with pytest.raises(UnsupportedOp, match="x: torch has no dtype str_"):
        Executor(text)
    ones = (1,) * 4
    ops = (
        ir.Input(out=Value("x", (1, 1, *ones))),
        ir.ConvolutionTranspose(
            out=Value("y", (1, 1, *ones)),
            x="x",
            weight=Slots.constant((1, 1, *ones), 1),
            strides=ones,
            pads=(0,) * 8,
            dilations=ones,
            groups=1,
            origin="/up",
        ),
    )
    with pytest.raises(UnsupportedOp, match="/up: transposed convolution over 4 spatial axes"):
        Executor(Program("p", (), ops, (("y", "y"),)))


def test_a_program_that_reads_what_is_not_there_is_refused() -> None:
    ops = (ir.Activation(out=Value("a", (2,)), x="b", fn="relu"),)
    with pytest.raises(ModelError, match="a: 'b' is read before it is computed"):
        Executor(Program("p", (), ops, (("y", "a"),)))
    with pytest.raises(ModelError, match="p: output 'z' is never computed"):
        Executor(Program("p", (), (), (("y", "z"),)))
