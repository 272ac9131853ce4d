"""Reading a program as a graph of neurons."""

from collections.abc import Mapping, Sequence

from ngc.budget import DEFAULT
from ngc.ir.program import Program
from ngc.passes.wire import elementwise, linear, movement, reduce  # noqa: F401  (register rules)
from ngc.passes.wire.base import Birth, Scalars, Wirer, Wires, Wiring
from ngc.passes.wire.demand import identity_axes
from ngc.passes.wire.loops import find_loops
from ngc.passes.wire.rolled import NotRolled, Roller


def wire(
    program: Program,
    input_axes: Mapping[str, Sequence[int]] | None = None,
    max_elements: int = DEFAULT.max_elements,
    recurrent: str = "rolled",
) -> Wiring:
    """The granular graph of a program. ``input_axes`` names the axes of an input that carry its
    neurons where ngc's own choice (``demand.py``) is not what is wanted; ``max_elements``
    limits how far an operation over neurons that differ by position is written out; ``recurrent``
    is that of ``Options``."""
    axes = identity_axes(program, input_axes or {}, max_elements)
    wiring = Wirer(program, axes, max_elements).run()
    loops = find_loops(program) if recurrent == "rolled" else []
    reasons: dict[str, None] = {}
    alone: set[int] = set()
    while loops:
        try:
            rolled = Roller(wiring, loops, axes, max_elements).run()
        except NotRolled as reason:
            # Exporters simplify the first step, which knows its state: without it, perhaps.
            reasons[str(reason)] = None
            alone |= set(reason.loop.first.values())
            loops = find_loops(program, alone)
        else:
            wiring = rolled
            break
    wiring.written_out += reasons
    return wiring


__all__ = ["Birth", "Scalars", "Wires", "Wiring", "wire"]
