"""Images to fit: MNIST, Fashion-MNIST, CIFAR-10, or any folder of pictures.

Data sets are looked for in a folder of data (an argument, else the environment variable NGC_DATA),
then in the cache, and last fetched from their official mirrors, with checksums.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ngc.errors import BudgetError, NgcError, OptionError
from ngc.train.image_files import CIFAR_CLASSES, decode, pictures, read_cifar10, read_idx

TRAIN, TEST, VALIDATION = 0, 1, 2
SPLITS = {"train": TRAIN, "test": TEST, "validation": VALIDATION}
MAX_PIXELS = 2**31  # of one data set, channels counted

DIGITS = tuple(str(k) for k in range(10))
CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
           "ankle boot")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Images:
    """pixels uint8 [N, height, width, channels]; label, index (number within the split) and split
    (0 train, 1 test, 2 validation) int64 [N]. Of a folder, the split that has none is train."""

    name: str
    pixels: np.ndarray
    label: np.ndarray
    index: np.ndarray
    split: np.ndarray
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def select(self, numbers: np.ndarray | Sequence[int] | slice) -> Images:
        """Some of the images; ``numbers`` are positions, a mask, or a slice."""
        at = numbers if isinstance(numbers, slice | np.ndarray) else np.array(numbers, dtype=int)
        return Images(
            self.name,
            self.pixels[at],
            self.label[at],
            self.index[at],
            self.split[at],
            self.classes,
        )

    def places(self, split: Sequence[int], index: Sequence[int]) -> list[int | None]:
        """Where the images with these splits and numbers are; None where they are not. Networks of
        validation are of training images where the images have no validation split themselves."""
        own = zip(self.split.tolist(), self.index.tolist())
        place = {key: k for k, key in enumerate(own)}
        return [
            place.get((s, k), place.get((TRAIN, k)) if s == VALIDATION else None)
            for s, k in zip(split, index)
        ]

    def targets(self) -> np.ndarray:
        """float32 [N, channels, height, width] in [0, 1]."""
        return np.moveaxis(self.pixels, -1, 1).astype(np.float32) / np.float32(255)

    def digest(self) -> str:
        """Identifies images, labels and numbering."""
        found = hashlib.sha256(repr(self.pixels.shape).encode())
        for array in (self.pixels, self.label, self.index, self.split):
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


@dataclass(frozen=True)
class DataSet:
    """Where a data set is kept and fetched: ``files`` are name -> checksum of the mirrors' file,
    ``read`` finds it in a folder, and returns None where it is not."""

    folder: str
    files: dict[str, str]
    mirrors: tuple[str, ...]
    read: Callable[[Path], list[tuple[np.ndarray, np.ndarray]] | None]
    classes: tuple[str, ...] = field(default=DIGITS)


# Checksums of the files of the official mirrors, as torchvision's data sets have them.
DATA_SETS = {
    "mnist": DataSet(
        "mnist",
        {
            "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
        },
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        read_idx,
    ),
    "fashion_mnist": DataSet(
        "fashion_mnist",
        {
            "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
        },
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        read_idx,
        CLOTHES,
    ),
    "cifar10": DataSet(
        "cifar10",
        {"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"},
        ("https://www.cs.toronto.edu/~kriz/",),
        read_cifar10,
        CIFAR_CLASSES,
    ),
}


def load_images(
    source: str, data_dir: Path | None = None, size: tuple[int, int] | None = None
) -> Images:
    """A data set by name, or a folder of pictures.

    ``data_dir`` holds a folder for each data set, as NGC_DATA does. ``size`` (height, width) is for
    folders, whose pictures must otherwise all have one size.
    """
    if source not in DATA_SETS:
        return _load_folder(source, size)
    if size is not None:
        raise OptionError("a size is for folders of pictures", where=source)
    known = DATA_SETS[source]
    parts = _find(source, known, data_dir)
    if sum(pixels.size for pixels, _ in parts) > MAX_PIXELS:
        raise BudgetError(f"more than {MAX_PIXELS:,} pixels", where=source)
    return _joined(source, parts, known.classes)


def _joined(
    name: str, parts: Sequence[tuple[np.ndarray, np.ndarray]], classes: tuple[str, ...]
) -> Images:
    """Images from (pixels, labels) of the training and the test split."""
    labels = np.concatenate([label for _, label in parts]).astype(np.int64)
    if len(labels) and classes and labels.max() >= len(classes):
        raise NgcError(f"label {labels.max()} of {len(classes)} classes", where=name)
    return Images(
        name,
        np.concatenate([pixels for pixels, _ in parts]),
        labels,
        np.concatenate([np.arange(len(label)) for _, label in parts]),
        np.concatenate([np.full(len(label), k) for k, (_, label) in enumerate(parts)]),
        classes,
    )


# --- finding data sets --------------------------------------------------------------------------


def _find(name: str, known: DataSet, data_dir: Path | None) -> list[tuple[np.ndarray, np.ndarray]]:
    stated = data_dir or (Path(os.environ["NGC_DATA"]) if os.environ.get("NGC_DATA") else None)
    if stated is not None:
        for folder in (stated / known.folder, stated):
            found = known.read(folder) if folder.is_dir() else None
            if found is not None:
                return found
        if data_dir is not None:
            raise NgcError(f"{name} is not there", where=str(data_dir), hint=_advice(name, known))
    try:
        cache = _fetched(known)
    except Exception as error:  # whatever a download can fail with
        tried = f"not in NGC_DATA ({stated}), and not to be fetched" if stated else "not to be had"
        reason = " ".join(str(error).split())[:200]
        text = f"the images are {tried}: {reason}"
        raise NgcError(text, where=name, hint=_advice(name, known)) from error
    found = known.read(cache)
    if found is None:
        raise NgcError("what was fetched is not what was expected", where=str(cache))
    return found


def _advice(name: str, known: DataSet) -> str:
    files = ", ".join(known.files)
    more = " (or a zip or folder of train/CLASS/*.jpg and test/...)" if name == "cifar10" else ""
    return (
        f"put {files}{more} into DATA/{known.folder} and name DATA by --data-dir or NGC_DATA; "
        f"they are at {known.mirrors[0]}"
    )


def _fetched(known: DataSet) -> Path:
    """The cache folder with all files of a data set, fetched where they are not there."""
    import pooch

    folder = Path(os.environ.get("NGC_CACHE") or pooch.os_cache("ngc")) / known.folder
    for name, checksum in known.files.items():
        for mirror in known.mirrors:
            try:
                pooch.retrieve(mirror + name, known_hash=checksum, fname=name, path=folder)
                break
            except Exception:
                if mirror == known.mirrors[-1]:
                    raise
    return folder


# --- folders of pictures ------------------------------------------------------------------------


def _load_folder(source: str, size: tuple[int, int] | None) -> Images:
    """DIR/train/CLASS/*.png and DIR/test/CLASS/*.png, or DIR/CLASS/*.png, or DIR/*.png."""
    root = Path(source)
    if not root.is_dir():
        known = ", ".join(DATA_SETS)
        raise OptionError("neither a data set nor a folder", where=source, hint=f"{known}, or DIR")
    splits = [(name, root / name) for name in SPLITS if (root / name).is_dir()]
    found: list[tuple[int, str, Path]] = []
    for split, folder in splits or [("train", root)]:
        classes = sorted(path for path in folder.iterdir() if path.is_dir())
        for path in classes or [folder]:
            label = path.name if classes else ""
            found += [(SPLITS[split], label, file) for file in pictures(path)]
    if not found:
        raise OptionError("no pictures in it", where=source, hint="DIR/train/CLASS/*.png")
    names = tuple(sorted({label for _, label, _ in found}))
    pixels = _decoded([file for _, _, file in found], size)
    split_of = np.array([split for split, _, _ in found], dtype=np.int64)
    index = np.zeros(len(found), dtype=np.int64)
    for split_number in SPLITS.values():
        index[split_of == split_number] = np.arange((split_of == split_number).sum())
    labels = np.array([names.index(label) for _, label, _ in found], dtype=np.int64)
    return Images(root.resolve().name, pixels, labels, index, split_of, names if names[0] else ())


def _decoded(files: Sequence[Path], size: tuple[int, int] | None) -> np.ndarray:
    images = [decode(file.read_bytes(), str(file), size) for file in files]
    channels = max(image.shape[-1] for image in images)
    first = images[0].shape[:2]
    for file, image in zip(files, images):
        if image.shape[:2] != first:
            message = (
                f"{image.shape[0]}x{image.shape[1]} pixels, the first one {first[0]}x{first[1]}"
            )
            raise OptionError(message, where=str(file), hint="--size 28x28")
    return np.stack([np.broadcast_to(image, (*first, channels)) for image in images])
