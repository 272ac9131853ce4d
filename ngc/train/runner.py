"""Runs of recipes: train, test the best epoch, report; for each seed.

A run that was killed is resumed from its folder: what has ended is kept, and the epoch that was
broken off starts again from the state at its start.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ngc.errors import NgcError, OptionError
from ngc.files import write_beside
from ngc.models import registry
from ngc.train import report, runs
from ngc.train.keeper import LAST, Keeper
from ngc.train.module import Training
from ngc.train.networks import NetworkSet
from ngc.train.prepare import facts_to_dict, new_module, prepare
from ngc.train.progress import Bars, say
from ngc.train.recipe import Generalization, Recipe, read_recipe
from ngc.train.recipe_check import plain
from ngc.train.results import show_results
from ngc.train.tasks import Task
from ngc.train.trainer import interruptible, new_trainer, quiet

# Lightning starts a copy of this command for each further device; they share one folder.
FOLDER_VARIABLE = "NGC_RUN_FOLDER"
DEVICE_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def run(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Run a recipe, or what is left of it, in a folder; the metrics."""
    known = runs.read_json(folder / runs.METRICS)
    if known:
        return known
    keep_recipe(recipe, folder)
    networks, task = prepare(recipe)
    keep_versions(folder, networks)
    note_warmup(recipe, networks)
    if len(recipe.seeds) == 1:
        return run_seed(recipe, networks, task, recipe.seeds[0], folder)
    inner = [folder / f"seed-{seed}" for seed in recipe.seeds]
    found = [
        runs.read_json(path / runs.METRICS) or run_seed(recipe, networks, task, seed, path)
        for seed, path in zip(recipe.seeds, inner)
    ]
    metrics = runs.over_seeds(found)
    if is_first():
        histories = {path.name: runs.read_history(path / runs.HISTORY) for path in inner}
        report.draw_curves(histories, folder / "curves.png")
        times = [runs.read_json(path / runs.TIME) for path in inner]
        total = {"train_seconds": sum(one["train_seconds"] for one in times)}
        report.write_json(total, folder / runs.TIME)
        report.write_json(metrics, folder / runs.METRICS)
    return metrics


def is_first() -> bool:
    """Whether this process is the one that writes, of those that train together."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


@contextmanager
def shared_with_devices(folder: Path) -> Iterator[None]:
    """A run whose further devices find its folder; after it others can be run."""
    if not is_first():
        yield
        return
    os.environ[FOLDER_VARIABLE] = str(folder.resolve())
    before = {name: os.environ.get(name) for name in DEVICE_VARIABLES}
    try:
        yield
    finally:
        # Lightning takes what it has set for the devices of a run for a launch by others.
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def begun_folder() -> Path | None:
    """For a further device, the folder of the run that the first has begun."""
    if is_first():
        return None
    if FOLDER_VARIABLE not in os.environ:
        hint = "start ngc once, with train.devices; it starts a process for each device"
        raise OptionError("this process is not the first one", where="LOCAL_RANK", hint=hint)
    return Path(os.environ[FOLDER_VARIABLE])


def discard_unbegun(folder: Path) -> None:
    """Remove the folder of a run that ended before its first checkpoint: nothing is lost."""
    if not any(folder.rglob(LAST)):
        shutil.rmtree(folder, ignore_errors=True)


def require_whole(checkpoint: Path) -> None:
    """Refuse a checkpoint that cannot be read, before Lightning does in words of its own."""
    if not checkpoint.is_file():
        return
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's, zip's and unpickling errors
        raise OptionError(
            "it is damaged or cut short",
            where=str(checkpoint),
            hint="remove it, to train this seed from the beginning",
        ) from error


def keep_recipe(recipe: Recipe, folder: Path) -> None:
    """Write the resolved recipe, or see that it is the one that is there."""
    path = folder / runs.RECIPE
    if path.exists():
        if not is_of(folder, recipe):
            raise OptionError("this folder is of another recipe", where=str(folder))
    elif is_first():
        folder.mkdir(parents=True, exist_ok=True)
        write_beside(path, lambda file: file.write(recipe.dump().encode()))


def is_of(folder: Path, recipe: Recipe) -> bool:
    """Whether a run folder is of this recipe. Its file is read anew, since a later ngc may know
    keys that it does not have."""
    try:
        return read_recipe(folder / runs.RECIPE).dump() == recipe.dump()
    except NgcError:  # a recipe that this ngc does not read
        return False


def note_warmup(recipe: Recipe, networks: NetworkSet) -> None:
    """Say where the learning rate rises till the end: likely a mistake."""
    settings, count = recipe.train, len(networks.splits["train"])
    steps = settings.epochs * math.ceil(count / settings.batch_size)
    if settings.warmup_steps >= steps and is_first():
        say(
            f"note: the learning rate rises for {settings.warmup_steps:,} steps, and this run has "
            f"{steps:,}; try train.warmup_steps={steps // 10}"
        )


def keep_versions(folder: Path, networks: NetworkSet) -> None:
    """Write versions.json; a run that is resumed must find the data that it began with."""
    packages = ("ngc", "torch", "lightning", "torchmetrics", "numpy", "onnx")
    found = {
        **{name: version(name) for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "data": networks.digest(),
    }
    known = runs.read_json(folder / runs.VERSIONS)
    if known and known.get("data") != found["data"]:
        raise OptionError(
            "the networks are not those that this run began with",
            where=str(folder),
            hint="ngc run RECIPE, for a new run",
        )
    if not known and is_first():
        report.write_json(found, folder / runs.VERSIONS)


def run_seed(
    recipe: Recipe, networks: NetworkSet, task: Task, seed: int, folder: Path
) -> dict[str, Any]:
    """Train with one seed, test the best epoch, and report; the metrics."""
    settings = recipe.train
    checkpoints = folder / runs.CHECKPOINTS
    module = new_module(recipe, networks, task, seed)
    alone = len(recipe.seeds) == 1
    title = recipe.name if alone else f"{recipe.name}, seed {seed}"
    whole = folder if alone else folder.parent
    keeper = Keeper(checkpoints, settings.early_stopping, _of_model(recipe, networks, task))
    with quiet():
        trainer = new_trainer(settings, [keeper, Bars(keeper, title)])
    if is_first():
        checkpoints.mkdir(parents=True, exist_ok=True)
        keep_recipe(replace(recipe, seeds=(seed,)), folder)
        sizes = ", ".join(f"{len(numbers):,} {name}" for name, numbers in networks.splits.items())
        say(
            f"{title}: {recipe.model_name}, {num_parameters(module):,} parameters; {sizes} networks"
        )
    last = checkpoints / LAST
    require_whole(last)
    with quiet(), interruptible(f"ngc run {whole} --resume, to go on"):
        trainer.fit(module, ckpt_path=last if last.is_file() else None, weights_only=True)
        module.load_state_dict(keeper.best["state"])
        trainer.test(module, verbose=False)
    metrics = metrics_of(recipe, networks, module, keeper, seed)
    if trainer.is_global_zero:
        keeper.write_best()
        report.write_history(keeper.history, folder / runs.HISTORY)
        report.draw_curves({title: keeper.history}, folder / "curves.png")
        show_results(module, folder)
        report.write_json(
            _time_of(keeper, networks, trainer.strategy.root_device), folder / runs.TIME
        )
        report.write_json(metrics, folder / runs.METRICS)  # last: it says that the run has ended
    return metrics


def metrics_of(
    recipe: Recipe, networks: NetworkSet, module: Training, keeper: Keeper, seed: int
) -> dict[str, Any]:
    """Figures, and what they are figures of."""
    best = keeper.history[keeper.best["epoch"]]
    return {
        "recipe": recipe.name,
        "task": recipe.task.model_dump(),
        "model": recipe.model_name,
        "parameters": num_parameters(module),
        "regime": regime(recipe),
        "data": {
            "set": recipe.data.set,
            **{name: len(numbers) for name, numbers in networks.splits.items()},
        },
        "seed": seed,
        "epochs": {"trained": len(keeper.history), "best": keeper.best["epoch"] + 1},
        "validation": {
            name.removeprefix("validation_"): value
            for name, value in best.items()
            if name.startswith("validation_")
        },
        "test": module.tested,
    }


def regime(recipe: Recipe) -> str:
    """What a model may see: figures of different regimes are not compared."""
    text = registry.regime(recipe.model_name, recipe.model_settings)
    return text if recipe.augment is None else f"{text}, augmented"


def num_parameters(module: Training) -> int:
    """Trainable ones."""
    return sum(p.numel() for p in module.model.parameters() if p.requires_grad)


def _of_model(recipe: Recipe, networks: NetworkSet, task: Task) -> dict[str, Any]:
    """What ``best.pt`` says, to build the model anew."""
    return {
        "model": recipe.model_name,
        "settings": recipe.to_dict()["model"],
        "normalise": recipe.normalise,
        "facts": facts_to_dict(networks.facts()),
        "predicts": task.predicts,
        "outputs": task.outputs,
        "classes": list(networks.classes),
        "target": recipe.task.target if isinstance(recipe.task, Generalization) else "",
        # With the kernel size that all networks have got.
        "graph": plain(networks.families[0].compilation.plan.options.to_dict()),
    }


def _time_of(keeper: Keeper, networks: NetworkSet, device: torch.device) -> dict[str, Any]:
    """time.json: seconds of all epochs with their validation, also of those before a resume."""
    typical = statistics.median(keeper.seconds)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "train_seconds": round(sum(keeper.seconds), 3),
        "epoch_seconds": round(typical, 3),
        "networks_per_second": round(len(networks.splits["train"]) / typical, 1),
        "device": name,
    }
