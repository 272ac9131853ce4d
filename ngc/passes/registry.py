"""Program passes by the name the command line calls them."""

from __future__ import annotations

import difflib

from ngc.errors import OptionError
from ngc.passes.base import ProgramPass
from ngc.passes.program.fold_view import FoldView
from ngc.passes.program.merge_affine import MergeAffine
from ngc.passes.program.recognise_activation import RecogniseActivation
from ngc.passes.program.recognise_batch_norm import RecogniseBatchNorm
from ngc.passes.program.recognise_norm import RecogniseNorm
from ngc.passes.program.recognise_reduce import RecogniseReduce
from ngc.passes.program.share_values import ShareValues

PROGRAM_PASSES: dict[str, type[ProgramPass]] = {
    cls.name: cls
    for cls in (
        FoldView,
        MergeAffine,
        RecogniseActivation,
        RecogniseBatchNorm,
        RecogniseNorm,
        RecogniseReduce,
        ShareValues,
    )
}


def find_pass(name: str) -> type[ProgramPass]:
    if name not in PROGRAM_PASSES:
        near = difflib.get_close_matches(name, PROGRAM_PASSES, n=1)
        hint = near[0] if near else ", ".join(sorted(PROGRAM_PASSES))
        raise OptionError(f"there is no program pass {name!r}", hint=hint)
    return PROGRAM_PASSES[name]
