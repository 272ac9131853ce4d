"""Chunks of a batch shared out over processor threads.

The tensors of a chunk are small, so that threads which share each operation on them wait for one
another longer than they compute. Here each thread takes chunks of its own and computes them alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from itertools import groupby, pairwise
from typing import TypeVar

import torch
from torch import Tensor

C = TypeVar("C")
R = TypeVar("R")


def shared_out(
    work: Callable[[list[C]], R],
    chunks: Iterable[C],
    device: torch.device,
    together: Callable[[C], object] | None = None,
) -> list[R]:
    """``work`` of the chunks, a run of them for each of torch's threads; one run on other devices.

    Neighbours that ``together`` has one value for stay in one run: give it where the work of some
    chunks writes to the same place. ``work`` uses no random numbers of torch. Runs depend on the
    number of threads alone, so that sums over them are the same each time.
    """
    if together is None:
        units = [[chunk] for chunk in chunks]
    else:
        units = [list(some) for _, some in groupby(chunks, together)]
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1 or len(units) < threads:  # too few: torch's threads share each operation
        return [work([chunk for unit in units for chunk in unit])]
    ends = [k * len(units) // threads for k in range(threads + 1)]
    runs = [[chunk for unit in units[a:b] for chunk in unit] for a, b in pairwise(ends)]
    modes = _modes(device)

    def alone(run: list[C]) -> R:
        with modes():
            return work(run)

    others = [_pool(os.getpid(), threads).submit(alone, run) for run in runs[1:]]
    torch.set_num_threads(1)
    try:
        first = work(runs[0])
    finally:
        try:
            wait(others)
        finally:
            torch.set_num_threads(threads)
    return [first, *(other.result() for other in others)]


def added(found: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Sums of the gradients that each run has found, in order."""
    first, *others = found
    for other in others:
        for total, more in zip(first, other):
            total += more
    return list(first)


def _modes(device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """What torch keeps for each thread, as it is in this one, for others to enter."""
    kind, grad, inference = device.type, torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    dtype, low = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)

    @contextmanager
    def modes() -> Iterator[None]:
        with ExitStack() as entered:
            if inference:
                entered.enter_context(torch.inference_mode())
            if low:  # else not entered: leaving it empties a cache of all threads
                entered.enter_context(torch.autocast(kind, dtype))
            entered.enter_context(torch.set_grad_enabled(grad))
            yield

    return modes


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads beside the one that asks; of this process, since those of a parent are not in it."""
    return ThreadPoolExecutor(threads - 1, "ngc-chunks", initializer=_one_for_torch)


def _one_for_torch() -> None:
    torch.get_num_threads()  # a thread takes over the number of the process when it first asks
    torch.set_num_threads(1)
