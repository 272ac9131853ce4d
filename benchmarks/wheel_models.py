"""Compile and verify the networks that ship with the onnx package.

    python -m benchmarks.wheel_models [light|simple|pytorch-converted|pytorch-operator ...]
        [--only WORD] [--norm nodes|fold] [--flatten repeat|virtual|kernel]

Each model either passes the four checks or is refused with its unsupported operators named (or for
its size); both lists are printed. Anything else is a failure, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
SETS = ("light", "simple", "pytorch-converted", "pytorch-operator")

PASSED, REFUSED, FAILED = "passed", "refused", "FAILED"


@dataclass(frozen=True)
class Outcome:
    """What became of one model."""

    name: str
    verdict: str
    detail: str
    seconds: float


def models(sets: Sequence[str] = SETS, only: str = "") -> Iterator[tuple[str, Path]]:
    """(name, file) of every model in some of the sets."""
    for folder in sets:
        files = sorted((DATA / folder).glob("*.onnx")) or sorted(
            (DATA / folder).glob("*/model.onnx")
        )
        for path in files:
            own = path.stem if path.parent.name == folder else path.parent.name
            if only in own:
                yield f"{folder}/{own}", path


def outcome(name: str, path: Path, **options: str) -> Outcome:
    """Compile and verify one model."""
    import ngc
    from ngc.errors import BudgetError, UnsupportedOp, UnsupportedOps

    start = time.monotonic()
    try:
        verification = ngc.verify(ngc.compile(path, **options))
    except (UnsupportedOp, UnsupportedOps) as error:
        verdict, detail = REFUSED, "; ".join(str(error).splitlines())
    except BudgetError as error:
        verdict, detail = REFUSED, f"size: {error}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        verdict = FAILED
        detail = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
    else:
        verdict = PASSED if verification.passed else FAILED
        detail = "; ".join(
            f"{c.name}: {c.figure}" if c.passed else f"{c.name} FAILED: {c.detail or c.figure}"
            for c in verification.checks
        )
    return Outcome(name, verdict, detail, time.monotonic() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=SETS, metavar="SET")
    parser.add_argument("--only", default="", help="models whose name holds this")
    parser.add_argument("--norm", default="nodes")
    parser.add_argument("--flatten", default="kernel")
    arguments = parser.parse_args()
    outcomes = []
    for name, path in models(arguments.sets, arguments.only):
        one = outcome(name, path, norm=arguments.norm, flatten=arguments.flatten)
        outcomes.append(one)
        print(f"{one.verdict:8} {one.seconds:6.1f} s  {one.name:60} {one.detail}", flush=True)
    for verdict in (REFUSED, FAILED):
        for one in outcomes:
            if one.verdict == verdict:
                print(f"{verdict}: {one.name}: {one.detail}")
    counts = Counter(one.verdict for one in outcomes)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{len(outcomes)} models: {counts[PASSED]} passed, {counts[REFUSED]} refused, "
        f"{counts[FAILED]} failed; {memory:.1f} GB at most, "
        f"norm={arguments.norm} flatten={arguments.flatten}"
    )
    return 1 if counts[FAILED] or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
