"""Make a zoo: train many small networks, and keep their checkpoints.

    DIR/zoo_train.yaml              the recipe in full
    DIR/networks/00042/             of each network; it is whole or not there
        network.json                architecture, run, seed, settings
        metrics.csv                 a row for each checkpoint
        EPOCH.safetensors           the state_dict after that epoch
    DIR/accuracies.png, summary.json    written at the end

A network that was broken off starts anew, so a resumed zoo is that of an unbroken run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ngc.errors import NgcError, OptionError
from ngc.files import write_beside
from ngc.train.images import load_images
from ngc.train.maker_images import Prepared, prepare_images
from ngc.train.maker_recipe import ZooRecipe, read_zoo_recipe
from ngc.train.maker_summary import write_summary
from ngc.train.maker_training import train_network
from ngc.train.maker_workers import work
from ngc.zoo.importers.made import NETWORKS

RECIPE, IMAGES = "zoo_train.yaml", ".images"

ON_GPU = 8  # workers that share a GPU: small networks leave it waiting for the processor

Progress = Callable[[int, int], None]  # networks done, networks in all


@dataclass(frozen=True)
class Maker:
    """Makes network after network into a folder. A worker is sent it without the images."""

    recipe: ZooRecipe
    folder: Path
    images: Prepared

    def __call__(self, number: int) -> None:
        """Make one network, unless it is there."""
        place = place_of(self.folder, number)
        if place.exists():
            return
        images = self.images.mapped(self.folder / IMAGES)
        files = train_network(self.recipe, number, images).files()
        part = place.with_name(f".{place.name}.{os.getpid()}")
        part.mkdir()
        for name, content in files.items():
            (part / name).write_bytes(content)
        part.rename(place)


def place_of(folder: Path, number: int) -> Path:
    """The folder of a network."""
    return folder / NETWORKS / f"{number:05d}"


def make_zoo(
    recipe: ZooRecipe,
    folder: Path,
    *,
    resume: bool = False,
    data_dir: Path | None = None,
    command: str = "",
    progress: Progress = lambda done, total: None,
) -> dict[str, object]:
    """Make all networks of a recipe that are not there yet, and return the summary."""
    _check_device(recipe.device)
    images = prepare_images(load_images(recipe.images.set, data_dir), recipe.images, recipe.seed)
    _begin(recipe, folder, resume)
    try:
        images.save(folder / IMAGES)
        maker = Maker(recipe, folder, images.without_arrays())
        missing = [k for k in range(recipe.networks) if not place_of(folder, k).exists()]
        done = recipe.networks - len(missing)
        progress(done, recipe.networks)
        for _ in work(maker, missing, min(workers_of(recipe), max(len(missing), 1))):
            done += 1
            progress(done, recipe.networks)
    finally:
        shutil.rmtree(folder / IMAGES, ignore_errors=True)
    return write_summary(recipe, images, folder, command)


def workers_of(recipe: ZooRecipe) -> int:
    """How many processes: as the recipe says, else one for each core that this one may use, of
    which a few keep a GPU busy."""
    if recipe.workers != "auto":
        return recipe.workers
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return cores if recipe.device == "cpu" else min(cores, ON_GPU)


def _begin(recipe: ZooRecipe, folder: Path, resume: bool) -> None:
    """Write the recipe, or check that the folder is of this one."""
    path = folder / RECIPE
    if path.is_file():
        if not resume:
            raise OptionError("there is a zoo already", where=str(folder), hint="--resume")
        changed = _differences(recipe, read_zoo_recipe(path))
        if changed:
            text = f"it was begun with another recipe: {', '.join(changed)}"
            raise OptionError(text, where=str(folder), hint="a new folder, or the same recipe")
    elif folder.is_dir() and any(folder.iterdir()):
        raise OptionError("it is not empty, and no zoo", where=str(folder), hint="a new folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_beside(path, lambda file: file.write(recipe.dump().encode()))
    (folder / NETWORKS).mkdir(exist_ok=True)
    for part in (folder / NETWORKS).glob(".*"):  # of workers that were killed
        shutil.rmtree(part, ignore_errors=True)


def _differences(one: ZooRecipe, other: ZooRecipe) -> list[str]:
    """Keys that differ; the number of workers may, since it changes no network."""
    found = []
    others = other.to_dict()
    for key, value in one.to_dict().items():
        if isinstance(value, dict):
            found += [f"{key}.{inner}" for inner in value if value[inner] != others[key][inner]]
        elif key != "workers" and value != others[key]:
            found.append(key)
    return found


def _check_device(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            raise NgcError("torch sees no GPU", where=f"device: {device}", hint="device: cpu")
