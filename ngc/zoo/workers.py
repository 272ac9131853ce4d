"""Several processes that write the shards of one import."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING

from ngc.errors import NgcError
from ngc.zoo.importers.base import Member

if TYPE_CHECKING:
    from ngc.zoo.compiling import Compiler
    from ngc.zoo.importing import Job

Found = list[tuple[str, str]]
Task = tuple[int, list[Member]]

_here: list[tuple[Job, Compiler]] = []  # of this process


def written_by(
    count: int, job: Job, tasks: Iterable[Task]
) -> Iterator[tuple[int, Sequence[Member], Found]]:
    """(shard, its members, those of them that cannot be read) of each shard when it is done. Where
    the caller stops, shards under way are finished."""
    waiting: dict[Future[Found], Task] = {}
    tasks = iter(tasks)
    pool = ProcessPoolExecutor(count, _context(), _begin, (job,))
    try:
        while True:
            for task in islice(tasks, 2 * count - len(waiting)):
                waiting[pool.submit(_write, *task)] = task
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                task = waiting.pop(future)
                yield *task, future.result()
    except BrokenProcessPool as error:
        raise NgcError(
            "a worker process ended before its time, perhaps for want of memory",
            where=str(job.folder),
            hint="smaller shards, fewer workers; the same command again goes on",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _context() -> BaseContext:
    """Threads of torch do not survive a fork: workers are forked from a process that has loaded
    what they need, and has none; elsewhere each loads it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ngc.zoo.importing"])
    return context


def _begin(job: Job) -> None:
    """Of a worker: one thread, and an end with its parent."""
    import torch

    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def follow() -> None:
        wait_for([sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    _here[:] = [(job, job.compiler())]


def _write(number: int, members: list[Member]) -> Found:
    ((job, compiler),) = _here
    return job.write(number, members, compiler)
