"""Published sets of INRs (Navon et al. 2023, DWSNets): folders of ``.pth`` -> ``InrSet``.

MNIST          DIR/mnist_png_training_LABEL_INDEX/checkpoints/model_final.pth, ..._testing_...
Fashion-MNIST  DIR/train/model_INDEX.pth and DIR/test/..., with the label in the file

Each is a state dict ``seq.K.weight``, ``seq.K.bias``. They are read with ``weights_only``: no code
of theirs is run. Splits may come from a JSON, ``{"train": {"path": [...], "label": [...]}, "val":
..., "test": ...}``.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ngc.errors import NgcError
from ngc.train.images import SPLITS, TEST, TRAIN, Images
from ngc.train.inr_sets import InrSet
from ngc.train.siren import (
    COLUMN_FIRST,
    RANDOM,
    ROW_FIRST,
    UNKNOWN,
    Conventions,
    Params,
    bias_name,
    psnr,
    render,
    weight_name,
)

MAX_BYTES = 2**24  # of one .pth
IN_FOLDER = re.compile(r".*_(training|testing)_(\d+)_(\d+)")  # MNIST: split, label, index
IN_NAME = re.compile(r".*?(\d+)\.pth")  # Fashion-MNIST: index
SPLIT_NAMES = {"train": "train", "test": "test", "val": "validation", "validation": "validation"}


@dataclass(frozen=True, slots=True)
class Source:
    """One file; the label is None where only the file itself tells it."""

    path: Path
    split: int
    index: int
    label: int | None


def import_folder(
    folder: Path,
    *,
    splits: Path | None = None,
    images: Images | None = None,
    coordinates: str = COLUMN_FIRST,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> InrSet:
    """All networks of a published set.

    ``coordinates``: the order that the published code renders with. With the ``images`` that the
    networks were fitted to, the order is the one that shows them, and ``psnr`` is measured.
    """
    if not folder.is_dir():
        raise NgcError("there is no such folder", where=str(folder))
    sources = _of_json(folder, splits) if splits is not None else _of_names(folder)
    stacks: dict[str, list[Tensor]] = {}
    labels = []
    for number, source in enumerate(sources, start=1):
        state = _state(source.path)
        told = state.pop("label", None)
        label = source.label if source.label is not None else told
        if not isinstance(label, int) or label < 0:
            raise NgcError(f"its label is {label!r}", where=str(source.path), hint="--splits JSON")
        labels.append(label)
        for name, tensor in state.items():
            stacks.setdefault(name, []).append(tensor)
        if any(len(stack) != number or stack[0].shape != stack[-1].shape
               for stack in stacks.values()):  # fmt: skip
            raise NgcError(f"another architecture than {sources[0].path}", where=str(source.path))
        progress(number, len(sources))
    params = {name: torch.stack(stack) for name, stack in stacks.items()}
    found = InrSet(
        params,
        torch.tensor(labels),
        torch.tensor([source.index for source in sources]),
        torch.tensor([source.split for source in sources]),
        torch.full((len(sources),), float("nan")),
        Conventions(_widths(params), coordinates=coordinates, init=RANDOM, init_scheme=UNKNOWN),
        {"images": folder.resolve().name, "command": "ngc data import"},
    )
    return found if images is None else _measured(found, images)


# --- finding files ------------------------------------------------------------------------------


def _of_names(folder: Path) -> list[Source]:
    """Splits and labels from the names of folders and files, in the order of numbers."""
    found = []
    for path in folder.glob("*/**/*.pth"):
        named = [IN_FOLDER.fullmatch(part) for part in path.relative_to(folder).parts]
        match = next((match for match in named if match), None)
        if match:
            split = TRAIN if match[1] == "training" else TEST
            found.append(Source(path, split, int(match[3]), int(match[2])))
        elif path.parent.name in SPLIT_NAMES:
            split = SPLITS[SPLIT_NAMES[path.parent.name]]
            found.append(Source(path, split, _index(path), None))
    if not found:
        expected = "NAME_training_LABEL_INDEX/checkpoints/*.pth or train/model_INDEX.pth"
        raise NgcError("no INRs found in it", where=str(folder), hint=expected)
    return sorted(found, key=lambda source: (source.split, source.index, source.path))


def _index(path: Path) -> int:
    """The number of the image, from the name of the file or of a folder above it."""
    for part in reversed(path.parts[-3:]):
        match = IN_FOLDER.fullmatch(part)
        if match:
            return int(match[3])
    match = IN_NAME.fullmatch(path.name)
    if not match:
        raise NgcError("no number of an image in its name", where=str(path))
    return int(match[1])


def _of_json(folder: Path, splits: Path) -> list[Source]:
    """Splits, and labels where there are any, from a JSON, in its order."""
    try:
        content = json.loads(splits.read_text())
    except (OSError, ValueError) as error:
        raise NgcError(f"cannot read it: {error}", where=str(splits)) from error
    if not isinstance(content, dict) or not content or set(content) - set(SPLIT_NAMES):
        expected = "an object with train, val and test"
        raise NgcError("not a JSON of splits", where=str(splits), hint=expected)
    sources = []
    for name, listed in content.items():
        paths = listed.get("path") if isinstance(listed, dict) else listed
        labels = listed.get("label") if isinstance(listed, dict) else None
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise NgcError(f"{name} has no list of paths", where=str(splits))
        numbers = _labels(labels, len(paths), f"{splits}: {name}")
        split = SPLITS[SPLIT_NAMES[name]]
        for text, label in zip(paths, numbers):
            path = _inside(folder, text, str(splits))
            sources.append(Source(path, split, _index(path), label))
    if not sources:
        raise NgcError("it lists no file", where=str(splits))
    return sources


def _labels(labels: Any, count: int, where: str) -> list[int | None]:
    if labels is None:
        return [None] * count
    texts = list(map(str, labels)) if isinstance(labels, list) else []
    if len(texts) != count or not all(text.isdecimal() for text in texts):
        raise NgcError(f"expected {count} labels, whole numbers", where=where)
    return [int(text) for text in texts]


def _inside(folder: Path, text: str, where: str) -> Path:
    """A listed file, which must lie in the folder; lists often name the folder itself first."""
    root = folder.resolve()
    tails = Path(text).parts
    for start in range(len(tails)):
        path = root.joinpath(*tails[start:]).resolve()
        if path.is_relative_to(root) and path.is_file():
            return path
    raise NgcError(f"{text} is not in {folder}", where=where)


# --- reading files ------------------------------------------------------------------------------


def _state(path: Path) -> dict[str, Any]:
    """Parameters of one file, float32, and its label if it has one."""
    if path.stat().st_size > MAX_BYTES:
        raise NgcError(f"more than {MAX_BYTES:,} bytes", where=str(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's, zip's and unpickling errors; torch advises to run code
        raise NgcError("not a state dict that can be read safely", where=str(path)) from error
    if not isinstance(state, Mapping):
        raise NgcError("not a state dict", where=str(path))
    found: dict[str, Any] = {}
    for name, value in state.items():
        if name == "label":
            found[name] = int(value) if isinstance(value, int | Tensor) else value
        elif isinstance(value, Tensor) and re.fullmatch(r"seq\.\d+\.(weight|bias)", str(name)):
            found[name] = value.detach().float()
        else:
            raise NgcError(
                f"{name!r} is not known", where=str(path), hint="seq.K.weight, seq.K.bias"
            )
    return found


def _widths(params: Params) -> tuple[int, ...]:
    """Widths of the layers, from the shapes of their weights."""
    depth = len(params) // 2
    if not depth or set(params) != {f(k) for k in range(depth) for f in (weight_name, bias_name)}:
        raise NgcError(f"layers incomplete: {', '.join(sorted(params))}", where="state dict")
    shapes = [tuple(params[weight_name(k)].shape[1:]) for k in range(depth)]
    if any(len(shape) != 2 for shape in shapes):
        raise NgcError("a weight is no matrix", where="state dict")
    if any(above[1] != below[0] for below, above in itertools.pairwise(shapes)):
        raise NgcError("its layers do not fit onto each other", where="state dict")
    return (shapes[0][1], *(shape[0] for shape in shapes))


def _measured(found: InrSet, images: Images) -> InrSet:
    """With the order of coordinates that shows the images, and the PSNR."""
    height, width, _ = images.pixels.shape[1:]
    rows = images.places(found.split.tolist(), found.index.tolist())
    if None in rows:
        number = int(found.index[rows.index(None)])
        raise NgcError(f"no image number {number} of its split", where=images.name)
    targets = torch.from_numpy(images.select([row for row in rows if row is not None]).targets())
    tried = []
    for order in (COLUMN_FIRST, ROW_FIRST):
        conventions = replace(found.conventions, coordinates=order, height=height, width=width)
        if conventions.channels != targets.shape[1]:
            raise NgcError(f"images of {targets.shape[1]} channels", where=images.name)
        tried.append((psnr(render(conventions, found.params), targets), conventions))
    quality, conventions = max(tried, key=lambda pair: float(pair[0].median()))
    return replace(found, psnr=quality, conventions=conventions)
