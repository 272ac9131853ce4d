"""What a run keeps: its state after each epoch, the best epoch so far, and the history of metrics.

All that a resumed run needs lies in one file, ``last.ckpt``, written beside and renamed. So a run
killed at any moment goes on from the end of an epoch, with the best model that it had then; the
other files (``best.pt``, ``metrics.csv``) are written anew from that state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch

from ngc.errors import NgcError
from ngc.files import write_beside
from ngc.train.module import Training
from ngc.train.report import write_history
from ngc.train.runs import HISTORY

LAST, BEST = "last.ckpt", "best.pt"


class Keeper(L.Callback):
    """Watches the validation metric, saves after each epoch, and stops early if told to.

    ``history``: a row of metrics for each epoch; ``seconds``: how long each took. ``best``: number,
    value and state of the best epoch.
    ``facts``: what ``best.pt`` says besides, of the model and its task.
    """

    def __init__(self, folder: Path, patience: int | None, facts: Mapping[str, Any]) -> None:
        self.folder, self.patience, self.facts = folder, patience, dict(facts)
        self.history: list[dict[str, float]] = []
        self.seconds: list[float] = []
        self.best: dict[str, Any] = {}
        self._begun = 0.0

    @property
    def stopped(self) -> bool:
        """Whether so many epochs have gone by without a better one."""
        waited = len(self.history) - 1 - self.best["epoch"] if self.best else 0
        return self.patience is not None and waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "seconds": self.seconds, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self.seconds = state_dict["history"], state_dict["seconds"]
        self.best = state_dict["best"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = self.stopped  # it may have been killed between stopping and the test

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begun = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """After the epoch and its validation."""
        assert isinstance(pl_module, Training)
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        meters = {"train": pl_module.train_meters, "validation": pl_module.validation_meters}
        for split, found in meters.items():
            row |= {f"{split}_{name}": value for name, value in found.read().items()}
        goal = pl_module.task.goal
        value = row[f"validation_{goal.metric}"]
        broken = [name for name, number in row.items() if not math.isfinite(number)]
        if broken:
            raise NgcError(
                f"{', '.join(broken)} is not a finite number",
                where=f"epoch {trainer.current_epoch + 1}",
                hint="a smaller train.lr, a longer train.warmup_steps, or a smaller train.clip",
            )
        self.history.append(row)
        self.seconds.append(time.monotonic() - self._begun)
        if goal.better(value, self.best.get("value")):
            state = {name: t.detach().cpu().clone() for name, t in pl_module.state_dict().items()}
            self.best = {"epoch": trainer.current_epoch, "value": value, "state": state}
        trainer.should_stop = trainer.should_stop or self.stopped
        # Every device takes part in saving a checkpoint, one of them writes.
        unfinished = self.folder / f".{LAST}"
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            if self.best["epoch"] == trainer.current_epoch:
                self.write_best()
            unfinished.replace(self.folder / LAST)
            write_history(self.history, self.folder.parent / HISTORY)

    def write_best(self) -> None:
        """The best model and what is needed to build it: plain tensors, numbers and text."""
        content = {**self.facts, "epoch": self.best["epoch"], "state": self.best["state"]}
        write_beside(self.folder / BEST, lambda file: torch.save(content, file))
