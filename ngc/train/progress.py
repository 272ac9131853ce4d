"""Progress of a training on stderr: bars on a terminal, else a line for each epoch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as L
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from ngc.train.keeper import Keeper
from ngc.train.module import Training


def say(text: str) -> None:
    """A line of progress."""
    Console(file=sys.stderr, highlight=False, markup=False).print(text, soft_wrap=True)


class Bars(L.Callback):
    """One bar for the epochs, one for the steps of the epoch."""

    def __init__(self, keeper: Keeper, title: str) -> None:
        self.keeper, self.title = keeper, title
        self.console = Console(file=sys.stderr, highlight=False, markup=False)
        self.bars: Progress | None = None
        self.epochs = self.steps = TaskID(0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not (self.console.is_terminal and trainer.is_global_zero):
            return
        whole = Column(no_wrap=True)
        columns = (
            TextColumn("{task.description}", table_column=whole),
            BarColumn(bar_width=12),
            TextColumn("{task.completed:.0f}/{task.total:.0f}", table_column=whole),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", table_column=whole),
        )
        self.bars = Progress(*columns, console=self.console, transient=True)
        self.epochs = self.bars.add_task(
            self.title, total=trainer.max_epochs, completed=trainer.current_epoch, figures=""
        )
        self.steps = self.bars.add_task("epoch", total=trainer.num_training_batches, figures="")
        self.bars.start()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.bars is not None:
            self.bars.reset(
                self.steps, description=f"epoch {trainer.current_epoch + 1}", figures=""
            )

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self.bars is not None and not self.bars.finished:
            figures = f"loss {float(outputs['loss']):.4f}" if batch_idx % 10 == 0 else None
            changed = {} if figures is None else {"figures": figures}
            self.bars.update(self.steps, advance=1, **changed)  # type: ignore[arg-type]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """After the keeper's hook, which is the callback before this one."""
        if not trainer.is_global_zero:
            return
        row = self.keeper.history[-1]
        if self.bars is not None:
            assert isinstance(pl_module, Training)
            metric = pl_module.task.goal.metric
            figures = f"{metric} {row[f'validation_{metric}']:.4f}"
            figures += f", best {self.keeper.best['value']:.4f}"
            self.bars.update(self.epochs, advance=1, figures=figures)
        else:
            line = epoch_line(row)
            epochs = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            self.console.print(f"{self.title}: {epochs}: {line}", soft_wrap=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """At the end, and where the training is broken off."""
        if self.bars is not None:
            self.bars.stop()
            self.bars = None


def epoch_line(row: Mapping[str, float]) -> str:
    """The metrics of an epoch in a line."""
    parts = []
    for split in ("train", "validation"):
        figures = [
            f"{name.removeprefix(split)[1:]} {value:.4f}"
            for name, value in row.items()
            if name.startswith(split)
        ]
        parts.append(f"{split} {', '.join(figures)}")
    return "; ".join(parts)
