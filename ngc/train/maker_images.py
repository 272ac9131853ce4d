"""The images that the networks of a zoo learn, in one file that all workers map into memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ngc.errors import OptionError
from ngc.files import write_beside
from ngc.train.images import SPLITS, Images
from ngc.train.maker_recipe import ImagesSection

GREY = np.array([0.299, 0.587, 0.114])  # of red, green and blue: luma of ITU-R BT.601
PIXELS, LABELS = "pixels.npy", "labels.npy"


@dataclass(frozen=True, eq=False)
class Loaded:
    """The images as tensors."""

    pixels: Tensor
    label: Tensor
    train: int
    mean: Tensor
    deviation: Tensor

    def batch(self, numbers: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Standardised images [n, channels, height, width], in memory channels last, and labels."""
        pixels = self.pixels[numbers].permute(0, 3, 1, 2)
        return (pixels.float() - self.mean) / self.deviation, self.label[numbers]


@dataclass(frozen=True, eq=False)
class Prepared:
    """pixels uint8 [N, height, width, channels] and label int64 [N]; the first ``train`` images are
    trained on, the others tested on. mean, deviation: of each channel of the training images."""

    pixels: np.ndarray
    label: np.ndarray
    train: int
    classes: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def inputs(self) -> tuple[int, int, int]:
        """Sizes of a network's input: channels, height, width."""
        _, height, width, channels = self.pixels.shape
        return (channels, height, width)

    def on(self, device: str) -> Loaded:
        """As tensors on a device; those of a processor share the arrays' memory."""
        mean, deviation = (
            torch.tensor(values, device=device)[:, None, None]
            for values in (self.mean, self.deviation)
        )
        pixels, label = (torch.from_numpy(array).to(device) for array in (self.pixels, self.label))
        return Loaded(pixels, label, self.train, mean, deviation)

    def digest(self) -> str:
        """Identifies pixels and labels."""
        found = hashlib.sha256(repr(self.pixels.shape).encode())
        for array in (self.pixels, self.label):
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()

    def facts(self) -> dict[str, Any]:
        """What a summary says about them."""
        return {
            "inputs": list(self.inputs),
            "train": self.train,
            "test": len(self.pixels) - self.train,
            "mean": list(self.mean),
            "deviation": list(self.deviation),
        }

    def save(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for name, array in ((PIXELS, self.pixels), (LABELS, self.label)):
            write_beside(folder / name, lambda file, array=array: np.save(file, array))

    def mapped(self, folder: Path) -> Prepared:
        """The same, the arrays mapped from the files of ``save``."""
        pixels, label = (np.load(folder / name, mmap_mode="c") for name in (PIXELS, LABELS))
        return replace(self, pixels=pixels, label=label)

    def without_arrays(self) -> Prepared:
        """What a worker is sent: the rest it maps."""
        return replace(self, pixels=self.pixels[:0], label=self.label[:0])


def prepare_images(images: Images, wanted: ImagesSection, seed: int) -> Prepared:
    """Some images of each split, drawn by the seed; grey if asked for; made smaller by averaging
    squares of pixels."""
    chosen = [
        _chosen(images, split, count, seed)
        for split, count in (("train", wanted.train), ("test", wanted.test))
    ]
    found = images.select(np.concatenate(chosen))
    pixels = found.pixels.astype(np.float32)
    if wanted.color == "grey" and pixels.shape[-1] == 3:
        pixels = pixels @ GREY[:, None].astype(np.float32)
    if wanted.color == "rgb" and pixels.shape[-1] == 1:
        raise OptionError("the images are grey", where="images.color", hint="grey")
    pixels = np.rint(_smaller(pixels, wanted.size)).astype(np.uint8)
    train = len(chosen[0])
    values = pixels[:train].astype(np.float64)
    mean, deviation = values.mean((0, 1, 2)), np.maximum(values.std((0, 1, 2)), 1.0)
    classes = len(images.classes) or int(images.label.max()) + 1
    return Prepared(
        pixels, found.label, train, classes, tuple(mean.tolist()), tuple(deviation.tolist())
    )


def _chosen(images: Images, split: str, count: int | None, seed: int) -> np.ndarray:
    """Positions of ``count`` images of a split, in a random order: folders go class by class."""
    places = np.flatnonzero(images.split == SPLITS[split])
    if len(places) < (count or 1):
        raise OptionError(f"{images.name} has {len(places)}", where=f"images.{split}", hint="fewer")
    order = np.random.default_rng([seed, SPLITS[split]]).permutation(len(places))
    return places[order[:count]]


def _smaller(pixels: np.ndarray, size: int | None) -> np.ndarray:
    """Means of squares, so that the map has ``size`` x ``size`` pixels."""
    count, height, width, channels = pixels.shape
    if size is None or (height, width) == (size, size):
        return pixels
    factor = height // size
    if (factor * size, factor * size) != (height, width):
        found = f"{size} from images of {height}x{width}"
        raise OptionError(found, where="images.size", hint="a size that divides the images'")
    shape = (count, size, factor, size, factor, channels)
    return pixels.reshape(shape).mean((2, 4))
