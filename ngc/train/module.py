"""One training as Lightning sees it: the steps, the optimiser, and batches in a fixed order.

Everything random in epoch e follows from the seed and e, so that a run that was killed and resumed
at the start of an epoch goes on as if nothing had happened.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor, nn

from ngc.backends.graphs import GraphBatch
from ngc.train.augment import Augment, WeightAugment
from ngc.train.networks import Batch, Change, NetworkSet
from ngc.train.recipe import Train
from ngc.train.tasks import Meters, Task

# What a number is drawn for, so that no two purposes share a stream.
ORDER, STEPS, WEIGHTS, AUGMENT = range(4)


def stream(seed: int, purpose: int, *numbers: int) -> int:
    """A seed for one purpose at one time (epoch, device)."""
    state = np.random.SeedSequence([seed, purpose, *numbers]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


class IndexBatches:
    """Numbers of networks, batch by batch. ``rank`` of ``world`` devices takes its share of each
    training batch (all take as many steps), or every world-th network of an evaluation."""

    def __init__(
        self,
        numbers: Tensor,
        batch_size: int,
        trainer: L.Trainer,
        shuffled_by: int | None = None,
    ) -> None:
        self.numbers, self.batch_size = numbers, batch_size
        self.trainer, self.seed = trainer, shuffled_by
        self.rank, self.world = trainer.global_rank, trainer.world_size

    def __len__(self) -> int:
        if self.seed is None:
            share = len(range(self.rank, len(self.numbers), self.world))
            return -(-share // self.batch_size)
        return -(-len(self.numbers) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        if self.seed is None:
            yield from self.numbers[self.rank :: self.world].split(self.batch_size)
            return
        chosen = stream(self.seed, ORDER, self.trainer.current_epoch)
        order = torch.from_numpy(np.random.default_rng(chosen).permutation(len(self.numbers)))
        for batch in self.numbers[order].split(self.batch_size):
            if len(batch) < self.world:  # every device needs a network
                batch = batch.repeat(-(-self.world // len(batch)))
            yield batch[self.rank :: self.world]


class Training(L.LightningModule):
    """A model, learning a task on a set of networks. Checkpoints hold the model and what normalises
    its input, nothing of the set. After a test, ``tested`` are its metrics, and ``results`` what
    the task knows of it besides."""

    def __init__(
        self,
        model: nn.Module,
        normalise: nn.Module,
        task: Task,
        networks: NetworkSet,
        settings: Train,
        seed: int,
        augment: Augment | WeightAugment | None = None,
    ) -> None:
        super().__init__()
        self.model, self.normalise = model, normalise
        self.task, self.networks, self.settings = task, networks, settings
        self.seed, self.augment = seed, augment
        self.change: Change | None = None
        self.tested: dict[str, float] = {}
        self.results: dict[str, Tensor] = {}
        self.train_meters, self.validation_meters = task.meters(), task.meters()
        self.test_meters = task.meters(test=True)

    def forward(self, graphs: GraphBatch) -> Any:
        return self.model(self.normalise(graphs))

    def batch(self, numbers: Tensor, change: Change | None = None) -> Batch:
        """Networks of the set, on this module's device."""
        if self.networks.device != self.device:
            self.networks = self.networks.to(self.device)
            self.task.to(self.device)
        return self.networks.batch(numbers, change)

    # --- steps ---

    def on_train_epoch_start(self) -> None:
        here = (self.current_epoch, self.global_rank)
        torch.manual_seed(stream(self.seed, STEPS, *here))
        if self.augment is not None:
            generator = torch.Generator(self.device)
            generator.manual_seed(stream(self.seed, AUGMENT, *here))
            self.change = partial(self.augment.changed, generator=generator)

    def training_step(self, numbers: Tensor, batch_idx: int) -> Tensor:
        return self._loss(self.batch(numbers, self.change), self.train_meters)

    def validation_step(self, numbers: Tensor, batch_idx: int) -> None:
        self._loss(self.batch(numbers), self.validation_meters)

    def test_step(self, numbers: Tensor, batch_idx: int) -> None:
        self._loss(self.batch(numbers), self.test_meters)

    def on_test_epoch_end(self) -> None:
        self.results = self.task.results(self.test_meters)
        self.tested = self.test_meters.read()

    def _loss(self, batch: Batch, meters: Meters) -> Tensor:
        return self.task.loss(self(batch.graphs), batch, self.networks, meters)

    # --- batches ---

    def train_dataloader(self) -> IndexBatches:
        numbers = self.networks.splits["train"].cpu()
        return IndexBatches(numbers, self.settings.batch_size, self.trainer, self.seed)

    def val_dataloader(self) -> IndexBatches:
        return self._evaluation("validation")

    def test_dataloader(self) -> IndexBatches:
        return self._evaluation("test")

    def _evaluation(self, split: str) -> IndexBatches:
        size = self.settings.eval_batch_size or self.settings.batch_size
        return IndexBatches(self.networks.splits[split].cpu(), size, self.trainer)

    # --- optimiser ---

    def configure_optimizers(self) -> Any:
        """AdamW; the rate rises linearly in the first steps (paper, App. E)."""
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            amsgrad=settings.amsgrad,
            # Lightning does not clip the gradients of a fused optimiser in mixed precision.
            fused=settings.precision != "bf16" and self.device.type in ("cpu", "cuda"),
        )
        total = self.trainer.estimated_stepping_batches if settings.schedule == "cosine" else None
        factor = partial(rate_factor, warm=settings.warmup_steps, total=total)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def rate_factor(step: int, *, warm: int, total: float | None) -> float:
    """What the learning rate is multiplied by at a step: up to ``warm`` it rises, then it stays, or
    falls to zero along half a cosine by step ``total``."""
    rising = min(1.0, (step + 1) / max(1, warm))
    if total is None or step < warm:
        return rising
    done = min(1.0, (step - warm) / max(1.0, total - warm))
    return rising * 0.5 * (1 + math.cos(math.pi * done))
