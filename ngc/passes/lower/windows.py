"""Windows of convolutions and pools: kernel, strides, dilations and pads, in ONNX's attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir

from ngc.ir.program import Ints
from ngc.passes.lower.base import Builder


@dataclass(frozen=True)
class Window:
    """One entry per spatial axis; ``pads``: all begins, then all ends."""

    kernel: Ints
    strides: Ints
    dilations: Ints
    pads: Ints

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def spans(self) -> Ints:
        """Entries from the first tap of a window to its last, both included."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations))


def counts(b: Builder, field: Window, space: Ints, ceil: bool = False) -> Ints:
    """How many windows there are along each axis, at least one. Rounded up, a last window that
    overhangs the end counts too, unless it starts in the pads of the end."""
    found = []
    for k, (size, span, stride) in enumerate(zip(space, field.spans, field.strides)):
        begin, end = field.pads[k], field.pads[field.rank + k]
        room = size + begin + end - span
        count = (room + (stride - 1 if ceil else 0)) // stride + 1
        if ceil and (count - 1) * stride >= size + begin:
            count -= 1
        if room < 0 or count < 1:
            raise b.misshapen(f"a window of {span} entries does not fit {size + begin + end}")
        found.append(count)
    return tuple(found)


def window(b: Builder, node: onnx_ir.Node, space: Ints, kernel: Ints) -> Window:
    """The window a node asks for over an input of this spatial size."""
    rank = len(space)
    read = node.attributes
    strides = tuple(read.get_ints("strides", (1,) * rank))
    dilations = tuple(read.get_ints("dilations", (1,) * rank))
    for name, values in (("kernel_shape", kernel), ("strides", strides), ("dilations", dilations)):
        if len(values) != rank or any(v < 1 for v in values):
            raise b.misshapen(f"{name} {list(values)} for {rank} spatial axes")
    plain = Window(kernel, strides, dilations, (0,) * (2 * rank))
    match mode := read.get_string("auto_pad", "NOTSET") or "NOTSET":
        case "NOTSET":
            pads = tuple(read.get_ints("pads", (0,) * (2 * rank)))
        case "VALID":
            pads = plain.pads
        case "SAME_UPPER" | "SAME_LOWER":
            excess = [
                max(0, (-(-size // stride) - 1) * stride + span - size)
                for size, stride, span in zip(space, strides, plain.spans)
            ]
            pads = halves(excess, mode == "SAME_UPPER")
        case _:
            raise b.misshapen(f"auto_pad {mode!r}")
    if len(pads) != 2 * rank:
        raise b.misshapen(f"{len(pads)} pads for {rank} spatial axes")
    return Window(kernel, strides, dilations, pads)


def halves(totals: Sequence[int], more_at_end: bool) -> Ints:
    """Each total as begin and end; the odd entry goes to one of them."""
    small = tuple(total // 2 for total in totals)
    large = tuple(total - total // 2 for total in totals)
    return small + large if more_at_end else large + small
