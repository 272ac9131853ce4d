"""The symmetry group of a network, derived from its wiring.

``symmetries(wiring)`` finds which neurons can be permuted, weights and all, without a change of the
function; ``apply`` carries the weights along.

    layout       which positions of its neurons each value holds where
    sharing      slots that several edges read
    constraints  wiring -> structure: all that must be kept, as relations
    structure    points, relations, units
    decompose    structure -> families: what can be exchanged, block within block
    group        the group and its description
    transport    a permutation of neurons -> one of slots
"""

from ngc.symmetry.decompose import Family
from ngc.symmetry.group import Row, SymmetryGroup, describe, symmetries
from ngc.symmetry.transport import apply, slot_permutation

__all__ = ["Family", "Row", "SymmetryGroup", "apply", "describe", "slot_permutation", "symmetries"]
