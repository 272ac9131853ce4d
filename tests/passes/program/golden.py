"""Golden tests of program passes: text in, text out, and the same function as before."""

from __future__ import annotations

import textwrap

import torch

from ngc.backends.torch_exec import run
from ngc.ir.check import check
from ngc.ir.program import Program
from ngc.ir.text import parse_program, print_program
from ngc.passes.base import ProgramPass


def program_of(body: str) -> Program:
    """A program from its lines without the frame."""
    lines = textwrap.indent(textwrap.dedent(body).strip(), "  ")
    return parse_program(f"program p {{\n{lines}\n}}\n")


def golden(apply: ProgramPass, before: str, after: str, tolerance: float = 1e-5) -> None:
    """The pass turns ``before`` into ``after``, twice changes nothing more, and keeps the outputs
    on random weights and inputs."""
    program = program_of(before)
    check(program)
    changed = apply(program)
    check(changed, after=apply.name)
    assert print_program(changed) == print_program(program_of(after))
    assert apply(changed) is changed
    assert_same_outputs(program, changed, tolerance)


def unchanged(apply: ProgramPass, body: str) -> None:
    """The pass returns the same object."""
    program = program_of(body)
    check(program)
    assert apply(program) is program


def assert_same_outputs(a: Program, b: Program, tolerance: float = 1e-5) -> None:
    """In float64, so that constants rounded by exporters are the only difference."""
    assert a.params == b.params
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(a.num_slots, generator=generator, dtype=torch.float64)
    weights[:2] = torch.tensor([0.0, 1.0])
    inputs = {}
    for op in a.inputs:
        values = 3 * torch.randn(op.out.shape, generator=generator, dtype=torch.float64)
        inputs[op.out.name] = values.to(getattr(torch, op.out.dtype))
    before, after = run(a, weights, inputs), run(b, weights, inputs)
    assert before.keys() == after.keys()
    assert before
    for name, value in before.items():
        assert value.dtype == after[name].dtype
        torch.testing.assert_close(after[name], value, rtol=tolerance, atol=tolerance)
