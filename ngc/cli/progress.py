"""Progress of long commands, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ngc.cli.settings import say


@contextmanager
def progress_bar(what: str, rate: str = "") -> Iterator[Callable[[int, int], None]]:
    """A function of (done, total) that shows a bar with the time left; where stderr is no terminal,
    a line every tenth of the way. ``rate``: what is done a minute, to show how many."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    if not sys.stderr.isatty():
        yield _lines(what, rate)
        return
    speed = (TextColumn("{task.fields[rate]}"),) if rate else ()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *speed,
        TextColumn("time left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None, rate="")
        pace = _Pace()

        def update(done: int, total: int) -> None:
            pace.note(done)
            bar.update(task, completed=done, total=total, rate=pace.text(rate))

        yield update


class _Pace:
    """How fast things are done since the first report."""

    def __init__(self) -> None:
        self.first: tuple[float, int] | None = None
        self.seconds = 0.0  # for each thing done, 0 if none was

    def note(self, done: int) -> None:
        began, start = self.first = self.first or (time.monotonic(), done)
        self.seconds = (time.monotonic() - began) / (done - start) if done > start else 0.0

    def text(self, what: str) -> str:
        return f"{60 / self.seconds:.1f} {what}" if what and self.seconds else ""


def _lines(what: str, rate: str) -> Callable[[int, int], None]:
    pace, tenth = _Pace(), [0]

    def progress(done: int, total: int) -> None:
        pace.note(done)
        if 10 * done // max(total, 1) <= tenth[0]:
            return
        tenth[0] = 10 * done // max(total, 1)
        shown = f", {pace.text(rate)}" if pace.text(rate) else ""
        shown += f", about {pace.seconds * (total - done):.0f} s left" if pace.seconds else ""
        say(f"{what}: {done:,} of {total:,}{shown}")

    return progress
