"""Which program passes run, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

from ngc.errors import OptionError
from ngc.ir.check import check
from ngc.ir.program import Program
from ngc.passes.registry import find_pass

PROGRAM_PIPELINE: tuple[str, ...] = (
    "fold-view",  # first: views hide patterns
    "share-values",
    "recognise-reduce",
    "recognise-activation",
    "recognise-norm",
    "recognise-batch-norm",
    "merge-affine",  # last: it mixes the constants that patterns look for
)


def run_passes(
    program: Program,
    names: Sequence[str] = PROGRAM_PIPELINE,
    after: str | None = None,
    verify_each: bool = False,
) -> Program:
    """Run the passes in order, at their default options, up to and with ``after``. With
    ``verify_each`` the program is checked before the first and after each."""
    passes = [find_pass(name) for name in names]
    if after is not None and after not in names:
        raise OptionError(f"the pass {after!r} does not run here", hint=", ".join(names))
    if verify_each:
        check(program)
    for cls in passes:
        program = cls()(program)
        if verify_each:
            check(program, after=cls.name)
        if cls.name == after:
            break
    return program
