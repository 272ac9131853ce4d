"""Reading a program as a graph of neurons."""

from collections.abc import Mapping, Sequence

from ngc.ir.program import Program
from ngc.passes.wire import elementwise, linear, movement, reduce  # noqa: F401  (register rules)
from ngc.passes.wire.base import Birth, Scalars, Wirer, Wires, Wiring
from ngc.passes.wire.demand import identity_axes


def wire(program: Program, input_axes: Mapping[str, Sequence[int]] | None = None) -> Wiring:
    """The granular graph of a program. ``input_axes`` names the axes of an input that carry its
    neurons where ngc's own choice (``demand.py``) is not what is wanted."""
    return Wirer(program, identity_axes(program, input_axes or {})).run()


__all__ = ["Birth", "Scalars", "Wires", "Wiring", "wire"]
