"""Everything that ngc does with a model that it compiles."""

from __future__ import annotations

from pathlib import Path

from ngc.compiler import Compilation
from ngc.compiler import compile as compile_model
from ngc.errors import NgcError
from ngc.files import decompile
from ngc.ir.graph_text import print_graph
from ngc.ir.text import print_program
from ngc.symmetry import describe, symmetries


def compile_and_use(path: Path) -> None:
    """Compile a file, and use the result: nothing may be refused any more."""
    made = compile_model(path)
    try:
        _use(made, path.with_suffix(".pt"))
    except NgcError as error:
        raise AssertionError(f"compiled, but then {error}") from error


def _use(made: Compilation, saved: Path) -> None:
    """Print the program and the graph, find the symmetries, save and decompile."""
    print_program(made.program)
    print_graph(made.plan.graph, made.program)
    describe(symmetries(made.wiring))
    try:
        made.save(saved)
        decompile(saved)
    finally:
        saved.unlink(missing_ok=True)
