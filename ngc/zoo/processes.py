"""Worker processes: how they begin, and that they end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, SpawnContext


def worker_context(module: str) -> SpawnContext | ForkServerContext:
    """Threads of torch do not survive a fork: workers are forked from a process that has loaded
    ``module``, what they need, and has none; elsewhere each loads it."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def begin_worker() -> None:
    """Of a worker: one thread for torch, and an end with its parent, also where that is killed."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
