"""Several processes that write the shards of one import."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TYPE_CHECKING

from ngc.errors import NgcError
from ngc.zoo.importers.base import Member
from ngc.zoo.processes import begin_worker, worker_context

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
    pool = ProcessPoolExecutor(count, worker_context("ngc.zoo.importing"), _begin, (job,))
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


def _begin(job: Job) -> None:
    begin_worker()
    _here[:] = [(job, job.compiler())]


def _write(number: int, members: list[Member]) -> Found:
    ((job, compiler),) = _here
    return job.write(number, members, compiler)
