"""Worker processes that make networks, one number after another, each on one thread.

A worker ends with the process that started it, also where that is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from ngc.errors import NgcError
from ngc.zoo.processes import begin_worker, worker_context

Make = Callable[[int], None]


def work(make: Make, numbers: Iterable[int], workers: int) -> Iterator[int]:
    """Call ``make`` on each number, and yield numbers as they are done. One worker is this process
    itself; ``make`` must be picklable for more."""
    if workers == 1:
        with _one_thread():
            for number in numbers:
                make(number)
                yield number
        return
    left = iter(numbers)
    with _crew(make, workers) as crew:
        # Connections of workers that are at work.
        busy = [one for one in crew if _give(one, left)]
        while busy:
            for one in wait(busy):
                assert isinstance(one, Connection)
                yield _answer(one)
                if not _give(one, left):
                    busy.remove(one)


@contextmanager
def _crew(make: Make, workers: int) -> Iterator[list[Connection]]:
    """Processes, a connection to each; they are ended at the end, whatever they do."""
    context = worker_context("ngc.train.maker")
    ends: list[Connection] = []
    crew: list[BaseProcess] = []
    try:
        for _ in range(workers):
            own, other = context.Pipe()
            process = context.Process(target=_serve, args=(other, make), daemon=True)
            process.start()
            other.close()  # so that the worker's end closes with the worker
            ends.append(own)
            crew.append(process)
        yield ends
    finally:
        for one in crew:
            one.terminate()
        for one in crew:
            one.join()


def _give(worker: Connection, numbers: Iterator[int]) -> bool:
    """Whether there was a number left to give."""
    number = next(numbers, None)
    if number is None:
        return False
    try:
        worker.send(number)
    except OSError:
        raise _lost() from None
    return True


def _answer(worker: Connection) -> int:
    try:
        answer = worker.recv()
    except (EOFError, OSError):
        raise _lost() from None
    if isinstance(answer, BaseException):
        raise answer
    return int(answer)


def _lost() -> NgcError:
    hint = "--resume, with fewer workers if memory is short"
    return NgcError("a worker process ended without a word", where="ngc zoo train", hint=hint)


def _serve(boss: Connection, make: Make) -> None:
    """The life of a worker."""
    begin_worker()
    try:
        while True:
            number = boss.recv()
            try:
                make(number)
            except (NgcError, OSError) as error:  # a disk may be full
                boss.send(error)
            else:
                boss.send(number)
    except (EOFError, OSError, KeyboardInterrupt):
        return  # the other side has ended, or will end this one


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums depend on how they are shared out, so one worker counts on one thread as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
