"""Workers of a Dask cluster that write the shards of one import.

They need the same files as the process that asks, under the same paths, and ngc. One shard is
written at a time in each process.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from ngc.errors import NgcError, OptionError
from ngc.zoo.importers.base import Member
from ngc.zoo.workers import Found, Task

if TYPE_CHECKING:
    from ngc.zoo.compiling import Compiler
    from ngc.zoo.importing import Job

CONNECT = 5  # seconds

# Of a process of the cluster: what it has compiled, for the import that it wrote for last.
_here: dict[str, Compiler] = {}
_lock = threading.Lock()


def written_by_dask(
    scheduler: str, job: Job, tasks: Iterable[Task]
) -> Iterator[tuple[int, Sequence[Member], Found]]:
    """As ``workers.written_by`` does, on the cluster of a scheduler (tcp://HOST:PORT)."""
    distributed = _distributed()
    try:
        client = distributed.Client(scheduler, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"no Dask scheduler answers ({error})", where=scheduler, hint="tcp://HOST:PORT"
        ) from error
    with client, client.as_current():
        count = sum(client.nthreads().values())
        if not count:
            raise OptionError("it has no workers", where=scheduler, hint="dask worker ADDRESS")
        token = uuid.uuid4().hex
        sent = client.scatter(job, broadcast=True, hash=False)
        waiting: dict[Any, Task] = {}
        tasks = iter(tasks)
        try:
            while True:
                for task in islice(tasks, 2 * count - len(waiting)):
                    waiting[client.submit(_write, token, sent, *task, pure=False)] = task
                if not waiting:
                    return
                done = distributed.wait(list(waiting), return_when="FIRST_COMPLETED").done
                for future in done:
                    task = waiting.pop(future)
                    yield *task, future.result()
        except distributed.KilledWorker as error:
            raise NgcError(
                "a worker of the cluster ended before its time, perhaps for want of memory",
                where=scheduler,
                hint="smaller shards; the same command again goes on",
            ) from error
        finally:
            client.cancel(list(waiting))


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise OptionError(
            "Dask is not installed", where="--scheduler", hint="pip install 'ngc[dask]'"
        ) from error
    return distributed


def _write(token: str, job: Job, number: int, members: list[Member]) -> Found:
    """On a worker: one shard."""
    import torch

    with _lock:
        torch.set_num_threads(1)
        if token not in _here:
            _here.clear()
            _here[token] = job.compiler()
        return job.write(number, members, _here[token])
