"""Reading a program as a graph of neurons."""

from collections.abc import Mapping, Sequence

from ngc.budget import DEFAULT
from ngc.ir.program import Program
from ngc.passes.wire import elementwise, linear, movement, reduce  # noqa: F401  (register rules)
from ngc.passes.wire.base import Birth, Scalars, Wirer, Wires, Wiring
from ngc.passes.wire.demand import identity_axes


def wire(
    program: Program,
    input_axes: Mapping[str, Sequence[int]] | None = None,
    max_elements: int = DEFAULT.max_elements,
) -> Wiring:
    """The granular graph of a program. ``input_axes`` names the axes of an input that carry its
    neurons where ngc's own choice (``demand.py``) is not what is wanted; ``max_elements``
    limits how far an operation over neurons that differ by position is written out."""
    return Wirer(program, identity_axes(program, input_axes or {}), max_elements).run()


__all__ = ["Birth", "Scalars", "Wires", "Wiring", "wire"]
