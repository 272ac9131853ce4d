"""Registered names match classes and files, and pipelines run in order and stop where asked."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import ngc.passes.program
from ngc.errors import OptionError
from ngc.ir.text import print_program
from ngc.passes.base import ProgramPass
from ngc.passes.pipeline import PROGRAM_PIPELINE, run_passes
from ngc.passes.registry import PROGRAM_PASSES
from tests.passes.program.golden import assert_same_outputs, program_of


def test_every_file_is_one_registered_pass_of_its_name() -> None:
    files = [module.name for module in pkgutil.iter_modules(ngc.passes.program.__path__)]
    assert len(files) >= 7
    for file in files:
        module = importlib.import_module(f"ngc.passes.program.{file}")
        found = [
            cls
            for cls in vars(module).values()
            if inspect.isclass(cls)
            and issubclass(cls, ProgramPass)
            and cls.__module__ == module.__name__
        ]
        assert len(found) == 1, file
        assert found[0].name == file.replace("_", "-")
        assert PROGRAM_PASSES[found[0].name] is found[0]
        assert "->" in (found[0].__doc__ or ""), "docstrings say before -> after"
    assert {name.replace("-", "_") for name in PROGRAM_PASSES} == set(files)


def test_the_pipeline_names_passes_once() -> None:
    assert set(PROGRAM_PIPELINE) <= set(PROGRAM_PASSES)
    assert len(set(PROGRAM_PIPELINE)) == len(PROGRAM_PIPELINE)


# SiLU, a global average pool, a layer norm in pieces and a chain of plain factors.
NETWORK = """
    @w = param float32 [6,3]
    %x = input float64 [2,3,4]
    %a = activation float64 [2,3,4] x=%x fn="affine" a=[2.0,0.0]
    %b = activation float64 [2,3,4] x=%a fn="affine" a=[0.5,1.0]
    %s = activation float64 [2,3,4] x=%b fn="sigmoid"
    %m = combine float64 [2,3,4] xs=[%b,%s] fn="mul"
    %p = pool float64 [2,3,1] x=%m fn="mean" kernel=[4] strides=[1] pads=[0,0] dilations=[1]
    %f = reshape float64 [2,3] x=%p
    %h = linear float64 [2,6] x=%f weight=@w spec="bi,oi->bo"
    %u = reduce float64 [2,1] x=%h fn="mean" axes=[1] keepdims=true
    %e = expand float64 [2,6] x=%u
    %d = combine float64 [2,6] xs=[%h,%e] fn="sub"
    %q = activation float64 [2,6] x=%d fn="power" a=[2.0]
    %v = reduce float64 [2,1] x=%q fn="mean" axes=[1] keepdims=true
    %k = activation float64 [2,1] x=%v fn="affine" a=[1.0,1e-05]
    %r = activation float64 [2,1] x=%k fn="sqrt"
    %y = combine float64 [2,6] xs=[%d,%r] fn="div"
    return y=%y
"""

RESULT = """\
program p {
  @w = param float32 [6,3]
  %x = input float64 [2,3,4]
  %b = activation float64 [2,3,4] x=%x fn="affine" a=[1.0,1.0]
  %m = activation float64 [2,3,4] x=%b fn="silu"
  %p = reduce float64 [2,3,1] x=%m fn="mean" axes=[2] keepdims=true
  %f = reshape float64 [2,3] x=%p
  %h = linear float64 [2,6] x=%f weight=@w spec="bi,oi->bo"
  %y = normalise float64 [2,6] x=%h fn="standard" axes=[1] epsilon=1e-05
  return y=%y
}
"""


def test_the_whole_pipeline() -> None:
    program = program_of(NETWORK)
    result = run_passes(program, verify_each=True)
    assert print_program(result) == RESULT
    assert_same_outputs(program, result)
    assert run_passes(result) is result


def test_after_stops_behind_that_pass() -> None:
    program = program_of(NETWORK)
    result = run_passes(program, PROGRAM_PIPELINE, after="recognise-activation")
    assert print_program(result) == print_program(
        run_passes(program, PROGRAM_PIPELINE[: PROGRAM_PIPELINE.index("recognise-activation") + 1])
    )
    assert "silu" in print_program(result)
    assert "normalise" not in print_program(result)


def test_unknown_names_are_refused() -> None:
    program = program_of(NETWORK)
    with pytest.raises(OptionError, match=r"no program pass 'fold-veiw'\n  try: fold-view"):
        run_passes(program, ["fold-veiw"])
    with pytest.raises(OptionError, match="the pass 'merge-affine' does not run here"):
        run_passes(program, ["fold-view"], after="merge-affine")


def test_verify_each_names_the_pass_that_broke_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = program_of(NETWORK)
    wrong = program.with_ops(program.ops[1:])
    monkeypatch.setattr(PROGRAM_PASSES["fold-view"], "__call__", lambda self, p: wrong)
    with pytest.raises(AssertionError, match="after fold-view"):
        run_passes(program, ["fold-view"], verify_each=True)
