"""Every invariant of a program has a program that violates it, and a message that says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ngc.backends import torch_elementwise, torch_kernels, torch_reduce
from ngc.backends.torch_exec import FAMILIES
from ngc.ir import check_ops
from ngc.ir import program as ir
from ngc.ir.check import INVARIANTS, check, violations
from ngc.ir.check_ops import RULES
from ngc.ir.program import VOCABULARY, Param, Program, Value
from ngc.ir.slots import Array, Slots
from ngc.ir.text import parse_program

HEAD = """\
program p {
  @w = param float32 [3,4]
  @b = param float32 [3]
  %x = input float32 [2,4]
  %c = input float32 [2,4,8,8]
  %i = input int64 [5]
"""

# One line of program text (reads %x [2,4], %c [2,4,8,8], %i [5]) and what is wrong with it.
BAD_LINES = [
    ("%y = parameter float32 [3] data=@w", "shape [3], expected [3, 4]"),
    ("%y = constant float32 [2] data=float32[3]{1,2,3}", "shape [2], expected [3]"),
    ("%y = constant float32 [1] data=int64[1]{1}", "dtype float32, expected int64"),
    ('%y = linear float32 [2,4] x=%x weight=@w spec="bi,oi->bo"', "expected [2, 3]"),
    ('%y = linear float32 [2,3] x=%x weight=@w spec="bi,io->bo"', "'i' in 'bi,io->bo' has sizes"),
    ('%y = linear float32 [3] x=%x weight=@w spec="bi,oi->o"', "sums one operand alone"),
    ('%y = linear float64 [2,3] x=%x weight=@w spec="bi,oi->bo"', "dtype float64"),
    ('%y = linear float32 [2] x=%x weight=@w spec="bi->b"', "malformed"),
    (
        "%y = convolution float32 [2,3,8,8] x=%c weight=@w{[3,4,1,1] offset=0 strides=[4,1,0,0]} "
        "strides=[2,2] pads=[0,0,0,0] dilations=[1,1] groups=1",
        "shape [2, 3, 8, 8], expected [2, 3, 4, 4]",
    ),
    (
        "%y = convolution float32 [2,3,8,8] x=%c weight=@w{[3,4,1,1] offset=0 strides=[4,1,0,0]} "
        "strides=[1,1] pads=[0,0] dilations=[1,1] groups=1",
        "2 pads, expected 4",
    ),
    (
        "%y = convolution float32 [2,3,8,8] x=%c weight=@w{[3,4,1,1] offset=0 strides=[4,1,0,0]} "
        "strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=2",
        "2 groups, 4 channels",
    ),
    (
        "%y = convolution_transpose float32 [2,3,9,8] x=%c "
        "weight=@w{[4,3,1,1] offset=0 strides=[1,4,0,0]} "
        "strides=[1,1] pads=[0,0,0,0] dilations=[1,1] groups=1",
        "expected [2, 3, 8, 8]",
    ),
    ("%y = embedding float32 [5,3] ids=%i weight=@w", "expected [5, 4]"),
    ("%y = embedding float32 [2,4,4] ids=%x weight=@w", "ids are float32"),
    ('%y = scale float32 [2,4] x=%x factor=@w{[4] offset=0 strides=[1]} fn="times"', "no function"),
    ("%y = scale float32 [2,4] x=%x factor=@b", "malformed"),
    ("%y = shift float32 [2,4] x=%c term=#0[1]", "expected [2, 4, 8, 8]"),
    (
        "%y = batch_norm float32 [2,4] x=%x scale=@b bias=@b mean=@b var=@b epsilon=0.1",
        "scale [3], expected [4]",
    ),
    ('%y = normalise float32 [2,4] x=%x fn="rms" axes=[2]', "axes [2] of a value of rank 2"),
    ('%y = normalise float32 [2,4] x=%x fn="lrn" axes=[1]', "0 numbers for lrn"),
    ('%y = activation float32 [2,4] x=%x fn="affine" a=[1.0]', "1 numbers for affine"),
    ('%y = activation float32 [2,4] x=%x fn="is_nan"', "dtype float32, expected bool"),
    ("%y = prelu float32 [2,4] x=%x slope=@w", "malformed"),
    ("%y = cast float32 [2] x=%x", "expected [2, 4]"),
    ('%y = combine float32 [2,4] xs=[%x,%x] fn="where"', "2 operands for where"),
    ('%y = combine float32 [2,4] xs=[%x,%x] fn="less"', "dtype float32, expected bool"),
    ('%y = combine float32 [2,4] xs=[%x,%x,%x] fn="where"', "the condition is float32"),
    ('%y = combine float32 [2,4] xs=[%x,%c] fn="add"', "malformed"),
    ('%y = contract float32 [2,4] a=%x b=%x spec="bi,bj->bi"', "sums one operand alone"),
    (
        '%y = pool float32 [2,4,4,4] x=%c fn="max" kernel=[2,2] strides=[1,1] pads=[0,0,0,0] '
        "dilations=[1,1]",
        "4 windows along space axis 0 of padded size 8",
    ),
    ('%y = reduce float32 [2] x=%x fn="sum" axes=[1] keepdims=true', "expected [2, 1]"),
    ('%y = reduce float32 [2] x=%x fn="argmax" axes=[1] keepdims=false', "expected int64"),
    ('%y = cumulate float32 [2,4] x=%x fn="max" axis=0', "no function 'max'"),
    ('%y = topk float32 [2,5] x=%x axis=1 largest=true result="values"', "expected [2, 4]"),
    ('%y = softmax float32 [2,4] x=%x fn="softmax" axis=-1', "axes [-1]"),
    ("%y = resize float32 [2,4] x=%x axes=[1] matrices=[float32[1,3]{1,0,0}]", "matrix [1, 3]"),
    ('%y = gather float32 [2,4] x=%x ids=%i fn="axis" axis=1', "expected [2, 5]"),
    (
        '%y = scatter float32 [2,4] x=%x ids=%x updates=%x fn="write" axis=1',
        "ids are float32",
    ),
    ("%y = reshape float32 [2,5] x=%x", "shape [2, 5] from [2, 4]"),
    ("%y = transpose float32 [2,4] x=%x perm=[0,0]", "perm [0, 0]"),
    ("%y = slice float32 [2,4] x=%x starts=[0,1] steps=[1,1]", "entries 1 to 4 by 1"),
    ("%y = expand float32 [3,2,5] x=%x", "malformed"),
    ("%y = take float32 [2,1] x=%x axis=1 index=int64[1]{4}", "index 4 to 4 of 4 entries"),
    ("%y = select float32 [3] x=%x index=int64[2]{0,1}", "index [2] for shape [3]"),
    ("%y = concat float32 [2,7] xs=[%x,%x] axis=1", "8 entries along axis 1 of [2, 7]"),
    ("%y = pad float32 [2,5] x=%x pads=[0,1,0,1]", "expected [2, 6]"),
    ("%y = cast object [2,4] x=%x", "dtype 'object' is not one that programs compute in"),
    ("%y = cast float32 [-2,4] x=%x", "(-2, 4) is not a shape"),
    ("%y = scale float32 [2,4] x=%x factor=@b{[4] offset=0 strides=[1]}", "slots 14 to 17 of 17"),
    ("%y = scale float32 [2,4] x=%x factor=@w{[4] offset=9 strides=[1]}", "not in one parameter"),
    ("%y = scale float32 [2,4] x=%x factor=#{[4] offset=0 strides=[1]}", "not in one parameter"),
    ("%y = scale float32 [2,4] x=%x factor=#{[4] 0,3,99,2}", "slots 0 to 99 of 17"),
    ("%y = scale float32 [2,1] x=%x factor=@w{[1] offset=0 strides=[1]}", "axis of size 1"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_a_bad_operation_is_reported(line: str, message: str) -> None:
    program = parse_program(f"{HEAD}  {line}\n  return y=%y\n}}\n")
    found = violations(program)
    assert any(message in text for text in found), found
    assert found[0].startswith("%y (")


def test_every_operation_has_a_rule_and_a_violation_here() -> None:
    assert set(RULES) == set(VOCABULARY.values())
    covered = {line.split()[2] for line, _ in BAD_LINES}
    assert covered == set(VOCABULARY) - {"input"}


GOOD = f"""{HEAD}\
  %h = linear float32 [2,3] x=%x weight=@w spec="bi,oi->bo"
  %s = shift float32 [2,3] x=%h term=@b
  return y=%s
}}
"""


def good() -> Program:
    return parse_program(GOOD)


def test_a_good_program_has_no_violations() -> None:
    assert violations(good()) == []
    check(good())


def with_op(program: Program, number: int, **changes: Any) -> Program:
    ops = list(program.ops)
    ops[number] = replace(ops[number], **changes)
    return program.with_ops(tuple(ops))


def broken_programs() -> list[tuple[Program, str]]:
    p = good()
    w, b = p.params
    bad_entries = Slots((3,), 1, (0,), Array.of(np.arange(3)))
    return [
        (replace(p, outputs=(("y", "z"),)), "output 'y' is 'z', which is not defined"),
        (replace(p, outputs=(("y", "h"), ("y", "s"))), "output 'y' is defined 2 times"),
        (p.with_ops((*p.ops, p.ops[-1])), "value 's' is defined 2 times"),
        (p.with_ops((p.ops[0], *p.ops[2:])), "ok"),
        (p.with_ops((p.ops[-1], *p.ops[:-1])), "reads 'h', which is not defined before it"),
        (replace(p, params=(w, replace(b, name="w"))), "parameter 'w' is defined 2 times"),
        (replace(p, params=(w, replace(b, offset=15))), "@b: offset 15, expected 14"),
        (replace(p, params=(Param("w", (-3,), "float32", 2), b)), "@w: (-3,) is not a shape"),
        (with_op(p, -1, fn=3), "fn is 3, not of type str"),
        (with_op(p, -1, term=None), "term is None, not of type Slots"),
        (with_op(p, 0, out=Value("x", (np.int64(2), 4))), "is not a shape"),  # type: ignore[arg-type]
        (with_op(p, -1, term=Slots((3,), 14, ())), "0 strides for shape [3]"),
        (with_op(p, -1, term=bad_entries), "its entries are not int64 [3] with no offset"),
        (
            p.with_ops(
                (*p.ops, ir.Constant(out=Value("c0", (2,)), data=Array((2,), "float32", b"")))
            ),
            "data has 0 bytes, not 8",
        ),
    ]


@pytest.mark.parametrize("number", range(len(broken_programs())))
def test_a_broken_program_is_reported(number: int) -> None:
    program, message = broken_programs()[number]
    if message == "ok":  # unused inputs may go
        check(program)
        return
    with pytest.raises(AssertionError) as caught:
        check(program, after="some-pass")
    assert "after some-pass" in str(caught.value)
    assert message in str(caught.value)


def test_every_invariant_is_violated_somewhere_here() -> None:
    programs = [program for program, _ in broken_programs()]
    programs += [parse_program(f"{HEAD}  {line}\n  return y=%y\n}}\n") for line, _ in BAD_LINES]
    broken = {
        next((i.__name__ for i in INVARIANTS if list(i(program))), "none") for program in programs
    }
    assert {i.__name__ for i in INVARIANTS} <= broken


def test_absurd_sizes_are_no_traceback() -> None:
    huge = "9" * 19
    text = HEAD.replace("@b = param", f"@h = param float32 [{huge},{huge}]\n  @b = param")
    found = violations(parse_program(f"{text}  %y = parameter float32 [3] data=@h\n  return\n}}\n"))
    assert "expected [9999" in found[0]


def test_all_violations_of_a_kind_are_listed() -> None:
    text = f"{HEAD}  %y = cast float32 [1] x=%x\n  %z = cast float32 [1] x=%c\n  return\n}}\n"
    assert len(violations(parse_program(text))) == 2


def test_the_executor_runs_exactly_the_functions_allowed_here() -> None:
    assert FAMILIES
    assert set(torch_kernels.KERNELS) | {ir.Input} == set(VOCABULARY.values())
    assert {*torch_elementwise.ACTIVATIONS, "clip"} == set(check_ops.ACTIVATIONS)
    assert {*torch_elementwise.COMBINATIONS, "mean", "where"} == set(check_ops.COMBINATIONS)
    functions = check_ops.FUNCTIONS
    assert set(torch_elementwise.FACTORS) == functions[ir.Scale]
    assert set(torch_elementwise.TERMS) == functions[ir.Shift]
    assert {*torch_reduce.REDUCTIONS, *check_ops.ARGUMENTS, "prod"} == functions[ir.Reduce]
