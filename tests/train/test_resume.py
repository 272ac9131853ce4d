"""Runs that were broken off: killed at any time and resumed, stopped early, interrupted."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ngc.train import runs
from ngc.train.keeper import LAST, Keeper
from ngc.train.recipe import read_recipe
from ngc.train.runner import run
from ngc.train.trainer import Interrupted
from tests.train.fake_zoo import small_zoo
from tests.train.test_generalization import recipe_of
from tests.train.tiny import history, started

LONG = {"train": {"epochs": 15, "threads": 1}, "data": {"augment": {"noise": 0.1}}}


Start = Callable[[Path, str], dict[str, Any]]


def of_pictures(folder: Path, name: str) -> dict[str, Any]:
    return started(folder, LONG, name)


def of_a_zoo(folder: Path, name: str) -> dict[str, Any]:
    """Networks of several architectures, which are read from disk."""
    torch.set_num_threads(1)
    data = {"augment": {"noise": 0.1, "permute": True}}
    model = {"name": "ng_gnn", "width": 8, "layers": 2}
    graph = {"reverse": "features"}
    path = recipe_of(folder, data=data, model=model, graph=graph, train=LONG["train"])
    return run(read_recipe(path), folder / name)


def child(start: Start, folder: str) -> None:
    """Run in a process of its own."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    start(Path(folder), "killed")


@pytest.mark.parametrize("start", [of_pictures, of_a_zoo])
def test_killed_at_random_times_a_run_ends_like_an_unbroken_one(
    tmp_path: Path, start: Start
) -> None:
    if start is of_a_zoo:
        small_zoo(tmp_path)
    unbroken = start(tmp_path, "unbroken")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    random = np.random.default_rng(int.from_bytes(os.urandom(4)))
    folder = tmp_path / "killed"
    codes = []
    for epochs in (1, 4, 8, None):
        process = context.Process(target=child, args=(start, str(tmp_path)))
        process.start()
        if epochs is not None:
            while process.is_alive() and len(runs.read_history(folder / "metrics.csv")) < epochs:
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.05))
            process.kill()
        process.join()
        codes.append(process.exitcode)
    # A busy machine may let the last one end before it is killed.
    assert codes[:2] == [-signal.SIGKILL] * 2
    assert codes[-1] == 0
    assert json.loads((folder / "metrics.json").read_text()) == unbroken
    assert history(folder) == history(tmp_path / "unbroken")


def test_a_run_killed_after_it_stopped_early_goes_straight_to_the_test(tmp_path: Path) -> None:
    text = {"train": {"epochs": 30, "early_stopping": 2, "lr": 1e-9}}
    metrics = started(tmp_path, text)
    (tmp_path / "run" / "metrics.json").unlink()
    state = (tmp_path / "run" / "checkpoints" / LAST).stat().st_mtime_ns
    assert started(tmp_path, text) == metrics
    assert (tmp_path / "run" / "checkpoints" / LAST).stat().st_mtime_ns == state


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unbroken = started(tmp_path, name="unbroken")
    plain = Keeper.on_train_epoch_end

    def press(self: Keeper, *arguments: Any) -> None:
        plain(self, *arguments)
        if len(self.history) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "on_train_epoch_end", press)
        with pytest.raises(Interrupted, match=r"broken off\n.*ngc run .*run --resume"):
            started(tmp_path)
    assert signal.getsignal(signal.SIGINT) == before
    assert len(history(tmp_path / "run")) == 2
    assert started(tmp_path) == unbroken
