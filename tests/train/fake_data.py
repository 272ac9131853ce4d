"""Small data sets in the formats that ngc reads."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ngc.train.inr_sets import InrSet
from ngc.train.siren import COLUMN_FIRST, Conventions, initial


def idx_bytes(array: np.ndarray) -> bytes:
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_mnist(
    folder: Path, train: int = 12, test: int = 4, size: tuple[int, int] = (6, 5), seed: int = 0
) -> Path:
    """The four files of MNIST; label of image k is k % 10."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for name, count in (("train", train), ("t10k", test)):
        pixels = random.integers(0, 256, (count, *size))
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(pixels)))
        labels = idx_bytes(np.arange(count) % 10)
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return folder


def small_set(count: int = 5, conventions: Conventions | None = None) -> InrSet:
    """Networks as they are initialised, the last one a test image."""
    conventions = conventions or Conventions((2, 4, 3, 1), height=6, width=5)
    split = torch.zeros(count, dtype=torch.long)
    split[-1] = 1
    index = torch.arange(count)
    params = initial(conventions, split.tolist(), index.tolist())
    return InrSet(params, index % 10, index, split, torch.full((count,), 21.5), conventions)


# Networks of published sets, told apart by what they start from.
PUBLISHED = Conventions((2, 4, 3, 1), height=6, width=6, coordinates=COLUMN_FIRST)


def state(split: int, index: int) -> dict[str, Any]:
    """The state dict of one published network."""
    params = initial(PUBLISHED, [split], [index])
    return {name: tensor[0].clone() for name, tensor in params.items()}


def write_published(root: Path) -> Path:
    """A set in the layout of the published one of MNIST; label of image k is k % 10."""
    for split, word, indices in ((0, "training", (12, 3, 7)), (1, "testing", (3, 0))):
        for k in indices:
            folder = root / f"mnist_png_{word}_{k % 10}_{k}" / "checkpoints"
            folder.mkdir(parents=True)
            torch.save(state(split, k), folder / "model_final.pth")
    return root
