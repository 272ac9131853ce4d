"""Progress of long commands, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ngc.cli.settings import say


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that shows a bar with the time left; where stderr is no terminal,
    a line every tenth of the way."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    if not sys.stderr.isatty():
        yield _lines(what)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("time left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(what: str) -> Callable[[int, int], None]:
    first: list[tuple[float, int]] = []  # time and images done when the first ones were
    tenth = [0]

    def progress(done: int, total: int) -> None:
        first.append((time.monotonic(), done)) if not first else None
        if 10 * done // max(total, 1) <= tenth[0]:
            return
        tenth[0] = 10 * done // max(total, 1)
        began, start = first[0]
        spent = time.monotonic() - began
        left = spent / (done - start) * (total - done) if done > start else None
        shown = "" if left is None else f", about {left:.0f} s left"
        say(f"{what}: {done:,} of {total:,}{shown}")

    return progress
