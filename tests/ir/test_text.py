"""Programs as text: print and parse are inverse, and errors say where and what was expected."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from ngc.errors import BudgetError, ModelError
from ngc.ir import program as ir
from ngc.ir.literals import MAX_INLINE
from ngc.ir.program import VOCABULARY, Param, Program, Value
from ngc.ir.slots import Array, Slots
from ngc.ir.text import FORMS, parse_program, print_program, structure_hash
from tests.ir.random_programs import Maker

MLP = """\
program mlp {
  @fc1.weight = param float32 [32,2]
  @fc1.bias = param float16 [32] derived=("a","b")
  %x = input float32 [1,2]
  %h = linear float32 [1,32] x=%x weight=@fc1.weight spec="bi,oi->bo"
  %s = shift float32 [1,32] x=%h term=@fc1.bias{[1,32] offset=0 strides=[0,1]}
  %r = activation float32 [1,32] x=%s fn="relu"
  return y=%r
}
"""


def mlp() -> Program:
    weight = Param("fc1.weight", (32, 2), "float32", 2)
    bias = Param("fc1.bias", (32,), "float16", 66, ("a", "b"))
    row = Slots.strided((1, 32), 66, (0, 1))
    ops = (
        ir.Input(out=Value("x", (1, 2))),
        ir.Linear(
            out=Value("h", (1, 32)), x="x", weight=Slots.contiguous((32, 2), 2), spec="bi,oi->bo"
        ),
        ir.Shift(out=Value("s", (1, 32)), x="h", term=row),
        ir.Activation(out=Value("r", (1, 32)), x="s", fn="relu"),
    )
    return Program("mlp", (weight, bias), ops, (("y", "r"),))


def test_golden() -> None:
    assert print_program(mlp()) == MLP
    assert parse_program(MLP) == mlp()


@pytest.mark.parametrize("seed", range(40))
def test_parse_inverts_print_on_random_programs(seed: int) -> None:
    program = Maker(seed).program()
    text = print_program(program)
    assert text.isascii()
    assert parse_program(text) == program
    assert print_program(parse_program(text)) == text


@pytest.mark.parametrize("mnemonic", sorted(VOCABULARY))
def test_parse_inverts_print_for_every_operation(mnemonic: str) -> None:
    assert len(VOCABULARY) > 30
    for seed in range(5):
        maker = Maker(seed)
        program = maker.program(num_ops=0)
        program = program.with_ops((*program.ops, maker.op(VOCABULARY[mnemonic])))
        assert parse_program(print_program(program)) == program


def test_every_field_type_has_a_form() -> None:
    kinds = {
        str(f.type).removesuffix(" | None")
        for cls in VOCABULARY.values()
        for f in fields(cls)
        if f.name not in ("out", "origin")
    }
    assert kinds <= set(FORMS)
    assert "Slots" in kinds


def test_origin_is_not_part_of_the_text() -> None:
    program = mlp()
    marked = program.with_ops((ir.Input(out=Value("x", (1, 2)), origin="n"), *program.ops[1:]))
    assert print_program(marked) == MLP


def one_line(op: ir.Op, *params: Param) -> str:
    head = (ir.Input(out=Value("x", ())),)
    return print_program(Program("p", params, (*head, op), ())).splitlines()[-3].strip()


def data_line(slots: Slots) -> str:
    params = (Param("w", (2, 3), "float32", 2), Param("b/1", (4,), "float32", 8))
    op = ir.Parameter(out=Value("v", slots.shape), data=slots)
    program = Program("p", params, (op,), ())
    assert parse_program(print_program(program)) == program
    return one_line(op, *params).split("data=")[1]


@pytest.mark.parametrize(
    ("slots", "text"),
    [
        (Slots.contiguous((2, 3), 2), "@w"),
        (Slots.contiguous((4,), 8), '@"b/1"'),
        (Slots.contiguous((2, 3), 2).transpose((1, 0)), "@w{[3,2] offset=0 strides=[1,3]}"),
        (Slots.strided((4,), 11, (-1,)), '@"b/1"{[4] offset=3 strides=[-1]}'),
        (Slots.constant((2, 2), 1), "#1[2,2]"),
        (Slots.constant((), 0), "#0[]"),
        (Slots.strided((3,), 100, (1,)), "#{[3] offset=100 strides=[1]}"),
        (Slots.of(np.array([2, 3, 4, 0, 0, 0, 11, 9, 7, 5])), "#{[10] 2..4,0*3,11..5:-2}"),
        (Slots.of(np.array([[2, 9], [3, 3]])), "#{[2,2] 2,9,3,3}"),
    ],
)
def test_slots(slots: Slots, text: str) -> None:
    assert data_line(slots) == text


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.float32([0.1, -2, np.nan, np.inf]), "float32[4]{0.1,-2.0,nan,inf}"),
        (np.float64(1 / 3), "float64[]{0.3333333333333333}"),
        (np.array([[True], [False]]), "bool[2,1]{true,false}"),
        (np.array([], dtype=np.int64), "int64[0]{}"),
        (np.array([2**63 - 1, -(2**63)]), "int64[2]{9223372036854775807,-9223372036854775808}"),
    ],
)
def test_small_arrays_are_written_out(array: np.ndarray, text: str) -> None:
    op = ir.Constant(out=Value("c", array.shape), data=Array.of(array))
    assert one_line(op).split("data=")[1] == text
    program = Program("p", (), (op,), ())
    assert parse_program(print_program(program)) == program


@pytest.mark.parametrize("size", [MAX_INLINE + 1, 5000])
def test_larger_arrays_are_compressed(size: int) -> None:
    values = np.random.default_rng(0).normal(size=size).astype(np.float32)
    values[1::2] = 0
    op = ir.Constant(out=Value("c", (size,)), data=Array.of(values))
    program = Program("p", (), (op,), ())
    assert f'float32[{size}]z"' in print_program(program)
    assert parse_program(print_program(program)) == program


def test_nan_with_a_payload_keeps_its_bits() -> None:
    data = np.array([0x7FC00001, 0xFFC00000], dtype=np.uint32).view(np.float32)
    program = Program("p", (), (ir.Constant(out=Value("c", (2,)), data=Array.of(data)),), ())
    assert parse_program(print_program(program)) == program


def test_structure_hash_depends_on_every_array_entry_and_on_nothing_else() -> None:
    values = np.arange(1000.0)
    hashes = set()
    for _ in range(2):
        op = ir.Constant(out=Value("c", (1000,)), data=Array.of(values.copy()))
        hashes.add(structure_hash(Program("p", (), (op,), ())))
    assert len(hashes) == 1
    values[777] += 1
    op = ir.Constant(out=Value("c", (1000,)), data=Array.of(values))
    hashes.add(structure_hash(Program("p", (), (op,), ())))
    assert len(hashes) == 2
    assert all(len(h) == 32 for h in hashes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%h = liner float32 [1] x=%x", "expected an operation (linear?), found 'liner float32"),
        ('%h = activation float32 [1] fn="relu"', "activation needs x"),
        ("%h = cast float32 [1] x=%x y=2", "expected the end, found 'y=2'"),
        ("%h = cast float32 [1] y=%x", "expected one of x, found 'y=%x'"),
        ("%h = cast float32 [1] x=x", "expected '%', found 'x'"),
        ("%h = cast float32 [1] x=%z", "no value %z is defined above"),
        ("%h = cast float32 [1,] x=%x", "expected an integer, found '] x=%x'"),
        ("%x = cast float32 [1] x=%x", "value %x is defined twice"),
        ("%h = scale float32 [1] x=%x factor=@w", "no parameter @w is declared above"),
        ("%h = scale float32 [1] x=%x factor=#2[1]", "slot 2 is not one of the constants"),
        ("%h = scale float32 [1] x=%x factor=#{[3] 2,3}", "too few slots for shape [3]"),
        ("%h = scale float32 [1] x=%x factor=#{[1] 2..9:3}", "no run"),
        ("%h = scale float32 [1] x=%x factor=#{[1] 2..2:9999999999999999999}", "expected ','"),
        ("%h = constant float32 [2] data=float32[2]{1.0}", "1 entries for an array of shape [2]"),
        ('%h = constant float32 [2] data=float32[2]z"abc"', "not base 85"),
        ("%h = constant float32 [2] data=object[2]{1}", "arrays of 'object' are not allowed"),
        ("%h = constant float32 [2] data=int8[1]{300}", "expected entries of int8"),
        ("@p = param float32 [1] extra", "expected the end, found 'extra'"),
        ("nonsense", "expected a parameter '@name = ...', a value"),
    ],
)
def test_parse_errors_name_line_and_expectation(line: str, message: str) -> None:
    text = f"program p {{\n  %x = input float32 [1]\n  {line}\n  return y=%x\n}}\n"
    with pytest.raises(ModelError) as caught:
        parse_program(text)
    assert "line 3" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "program p {", "program p {\n return\n", "graph g {\n}"])
def test_unfinished_text_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="expected"):
        parse_program(text)


def test_absurd_sizes_are_refused_before_anything_is_allocated() -> None:
    op = 'constant float32 [1] data=float32[99999999999]z"abc"'
    runs = "parameter float32 [1] data=#{[99999999999] 0*99999999999}"
    for line in (op, runs):
        with pytest.raises(BudgetError, match="larger than"):
            parse_program(f"program p {{\n  %c = {line}\n  return\n}}\n")


def test_truncated_text_gives_an_error_or_a_program() -> None:
    text = print_program(Maker(3).program())
    for cut in range(0, len(text), 7):
        try:
            parse_program(text[:cut])
        except ModelError:
            continue
        assert text[:cut].rstrip().endswith("}")
