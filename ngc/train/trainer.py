"""Lightning's trainer as runs need it: quiet, deterministic on the CPU, clear when broken off."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from ngc.errors import NgcError, OptionError
from ngc.train.allocator import keep_large_blocks
from ngc.train.recipe import Train

PRECISIONS: dict[str, Any] = {"float32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed"}


class Interrupted(NgcError):
    """The user has broken off a run."""


def new_trainer(settings: Train, callbacks: Sequence[L.Callback]) -> L.Trainer:
    """A trainer that leaves progress, logs and checkpoints to the callbacks."""
    torch.set_float32_matmul_precision("high" if settings.precision == "tf32" else "highest")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    devices = settings.devices
    if devices == "auto":
        gpus = torch.cuda.device_count() if settings.accelerator in ("auto", "gpu") else 0
        devices = max(1, gpus)
    try:
        trainer = L.Trainer(
            accelerator=settings.accelerator,
            devices=devices,
            # A model may have parameters that some tasks leave unused.
            strategy="auto" if devices == 1 else "ddp_find_unused_parameters_true",
            precision=PRECISIONS[settings.precision],
            max_epochs=settings.epochs,
            gradient_clip_val=settings.clip,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # batches are shared out by ``IndexBatches``
            inference_mode=False,  # plans keep tensors from one call to the next
        )
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(reason, where="train.accelerator, train.devices") from error
    if trainer.strategy.root_device.type == "cpu":
        keep_large_blocks()
        # Sums of gathered gradients would depend on the order in which threads come.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return trainer


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice and announcements; its errors are raised."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """Ctrl-C as an error with advice. Lightning ends the process, and no longer listens."""
    before = signal.getsignal(signal.SIGINT)
    pressed = False

    def press(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, press)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if pressed:
            raise Interrupted("broken off", hint=advice) from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)
