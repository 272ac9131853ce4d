"""One network of a zoo, from its number to its checkpoints.

All that a network is follows from the recipe's seed and its number, so it does not matter which
worker trains it, or when.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from ngc.train.maker_images import Loaded, Prepared
from ngc.train.maker_recipe import ZooRecipe
from ngc.zoo.importers.made import ABOUT, METRICS, SUFFIX
from ngc.zoo.wild_park import Config, WildPark, network, sample

ARCHITECTURE, HYPER, WEIGHTS, ORDER, SHARE = range(5)  # what a number is drawn for
TESTED = 500  # images at a time
COLUMNS = ("epoch", "train_loss", "test_loss", "accuracy")


@dataclass(frozen=True)
class Hyper:
    """How one network is trained."""

    batch_size: int
    lr: float
    weight_decay: float
    share: float


@dataclass(frozen=True)
class Job:
    """What a network is before it is trained."""

    number: int
    config: Config
    hyper: Hyper
    seed: int  # of the recipe


@dataclass
class Trained:
    """The checkpoints of a network by epoch, and a row of metrics for each."""

    job: Job
    states: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    rows: list[dict[str, float | int | None]] = field(default_factory=list)
    stopped: int | None = None  # the epoch whose loss was no number; it has no checkpoint

    def files(self) -> dict[str, bytes]:
        """The files of the network's folder."""
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        job = self.job
        about: dict[str, Any] = {
            "architecture": job.config.to_dict(),
            "run": f"{job.number:05d}",
            "seed": job.seed,
            "hyper": asdict(job.hyper),
        }
        if self.stopped is not None:
            about["stopped"] = self.stopped
        return {
            **{f"{epoch}{SUFFIX}": safetensors.torch.save(s) for epoch, s in self.states.items()},
            METRICS: table.getvalue().encode(),
            ABOUT: (json.dumps(about, indent=2) + "\n").encode(),
        }


def seed_for(seed: int, purpose: int, *numbers: int) -> int:
    """A seed for one purpose, so that no two purposes or networks share a stream."""
    state = np.random.SeedSequence([seed, purpose, *numbers]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def job_of(recipe: ZooRecipe, number: int, images: Prepared) -> Job:
    """The architecture and the settings of a network. Copies share the architecture only."""
    generator = torch.Generator()
    generator.manual_seed(seed_for(recipe.seed, ARCHITECTURE, number // recipe.copies))
    config = sample(recipe.architecture, generator, images.inputs, images.classes)
    draw = np.random.default_rng(seed_for(recipe.seed, HYPER, number))
    lists = (getattr(recipe.train, name) for name in Hyper.__dataclass_fields__)
    hyper = Hyper(*(choices[draw.integers(len(choices))] for choices in lists))
    return Job(number, config, hyper, recipe.seed)


def train_network(recipe: ZooRecipe, number: int, images: Prepared) -> Trained:
    """Train network ``number`` and keep what the recipe says."""
    job = job_of(recipe, number, images)
    # A GPU's quickest convolutions give other sums each time, or fewer digits.
    with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
        return _trained(recipe, job, images.on(recipe.device))


def _trained(recipe: ZooRecipe, job: Job, images: Loaded) -> Trained:
    hyper = job.hyper
    module = _new(job).to(recipe.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=hyper.lr, weight_decay=hyper.weight_decay, fused=True
    )
    seen = np.random.default_rng(seed_for(job.seed, SHARE, job.number)).permutation(images.train)
    seen = np.sort(seen[: math.ceil(hyper.share * images.train)])
    order = np.random.default_rng(seed_for(job.seed, ORDER, job.number))
    kept, found = recipe.epochs_kept(), Trained(job)
    for epoch in range(recipe.train.epochs + 1):
        loss = None
        if epoch > 0:
            numbers = torch.from_numpy(seen[order.permutation(len(seen))]).to(recipe.device)
            loss = _epoch(module, optimiser, images, numbers, hyper.batch_size, recipe)
            if not math.isfinite(loss):
                found.stopped = epoch
                break
        if epoch in kept:
            test_loss, accuracy = evaluate(module, images)
            figures = (epoch, loss, test_loss, accuracy)
            found.rows.append(dict(zip(COLUMNS, figures)))
            found.states[epoch] = _stored(module)
    return found


def _new(job: Job) -> WildPark:
    """The untrained module; the global random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(job.seed, WEIGHTS, job.number))
        return network(job.config)


def _epoch(
    module: WildPark,
    optimiser: torch.optim.Optimizer,
    images: Loaded,
    numbers: Tensor,
    batch_size: int,
    recipe: ZooRecipe,
) -> float:
    """The mean loss over one pass of these images, in this order."""
    module.train()
    device = torch.device(recipe.device)
    total = torch.zeros((), device=device)
    for start in range(0, len(numbers), batch_size):
        inputs, labels = images.batch(numbers[start : start + batch_size])
        with torch.autocast(device.type, torch.bfloat16, recipe.train.precision == "bf16"):
            logits = module(inputs)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        total += loss.detach() * len(labels)
    return float(total) / len(numbers)


@torch.no_grad()
def evaluate(module: WildPark, images: Loaded) -> tuple[float, float]:
    """Mean loss and accuracy on the test images."""
    module.eval()
    device, count = images.pixels.device, len(images.pixels) - images.train
    loss = torch.zeros((), dtype=torch.float64, device=device)
    right = torch.zeros((), dtype=torch.long, device=device)
    for start in range(images.train, len(images.pixels), TESTED):
        inputs, labels = images.batch(slice(start, start + TESTED))
        logits = module(inputs)
        loss += F.cross_entropy(logits, labels, reduction="sum").double()
        right += (logits.argmax(1) == labels).sum()
    return float(loss) / count, float(right) / count


def _stored(module: WildPark) -> dict[str, Tensor]:
    """The tensors as anybody would store them."""
    state = module.state_dict()
    return {name: t.detach().cpu().contiguous().clone() for name, t in state.items()}
