"""Fit one SIREN to each image: chunk after chunk, resumable, on CPU or GPU.

Finished chunks lie beside the output, in OUTPUT.parts, until the last one is done. What a chunk
holds depends on nothing but the settings, so a run that was killed and started anew gives the file
that an unbroken one gives, bit for bit.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ngc.errors import NgcError, OptionError
from ngc.files import write_beside
from ngc.train.images import Images
from ngc.train.inr_sets import InrSet
from ngc.train.siren import Conventions, Params, initial, psnr, render
from ngc.train.siren_gradient import SirenStack, adam

# Networks trained in one go. On a CPU as many as its caches hold: 16 SIRENs of 32 x 32 on 784
# points are 11 MB. A GPU wants work enough for each of its launches.
BLOCK = {"cpu": 16, "cuda": 2048}

Progress = Callable[[int, int], None]  # images done, images in all
# Blocks -> what is fitted to them, in order.
Each = Callable[
    [Callable[[Images], dict[str, Tensor]], Iterable[Images]], Iterable[dict[str, Tensor]]
]


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a set is fitted.

    stages: (steps, learning rate) of Adam, one after another; each step sees the full image.
    chunk: images in a part file. half: store float16. device: as torch names it.
    """

    stages: tuple[tuple[int, float], ...] = ((500, 1e-3), (100, 1e-4))
    chunk: int = 256
    half: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise OptionError(f"chunk is {self.chunk}", where="fit", hint="a number from 1")
        for steps, rate in self.stages:
            if steps < 0 or not 0 < rate < math.inf:
                raise OptionError(f"{steps} steps at {rate}", where="fit", hint="500x1e-3")

    @property
    def rates(self) -> list[float]:
        return [rate for steps, rate in self.stages for _ in range(steps)]


def fit(
    images: Tensor,
    params: Params,
    conventions: Conventions,
    stages: tuple[tuple[int, float], ...] = FitOptions().stages,
) -> Params:
    """Fitted parameters of B networks; images [B, channels, height, width] in [0, 1] and initial
    parameters on one device."""
    stack = SirenStack(conventions, params, images)
    with torch.no_grad():
        adam(stack, FitOptions(stages).rates)
    return stack.params()


def fit_set(
    images: Images,
    conventions: Conventions,
    output: Path,
    options: FitOptions = FitOptions(),
    *,
    origin: Mapping[str, Any] | None = None,
    restart: bool = False,
    progress: Progress = lambda done, total: None,
) -> InrSet:
    """Fit all images, write the set to ``output``, and return it as it was stored.

    ``origin`` goes into the file's metadata. A run that was broken off goes on where it was, unless
    ``restart``, which also allows to replace an output that is there.
    """
    _check_images(images, conventions)
    _check_device(options.device)
    parts = Path(f"{output}.parts")
    told = {**(origin or {}), "versions": _versions(), "fit": _told(options)}
    _prepare(output, parts, _fingerprint(images, conventions, options), restart)
    chunks = []
    with _workers(options.device) as each:
        for start in range(0, len(images), options.chunk):
            some = images.select(slice(start, start + options.chunk))
            path = parts / f"{start:08d}.safetensors"
            done = _Counted(progress, start, len(images))
            chunks.append(_chunk(some, conventions, options, path, each, done))
    progress(len(images), len(images))
    result = InrSet(
        {name: torch.cat([chunk[name] for chunk in chunks]).float() for name in conventions.shapes},
        torch.from_numpy(images.label),
        torch.from_numpy(images.index),
        torch.from_numpy(images.split),
        torch.cat([chunk["psnr"] for chunk in chunks]),
        conventions,
        told,
    )
    result.save(output, torch.float16 if options.half else torch.float32)
    shutil.rmtree(parts)
    return result


def _chunk(
    images: Images,
    conventions: Conventions,
    options: FitOptions,
    path: Path,
    each: Each,
    progress: _Counted,
) -> dict[str, Tensor]:
    """Parameters, as they are stored, and PSNR of the images of one chunk; from its part file where
    that is there."""
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    if path.exists():
        try:
            return load(path.read_bytes())
        except SafetensorError as error:
            raise NgcError(f"damaged: {error}", where=str(path), hint="delete it") from error
    block = BLOCK.get(torch.device(options.device).type, BLOCK["cuda"])
    some = [images.select(slice(k, k + block)) for k in range(0, len(images), block)]
    blocks: list[dict[str, Tensor]] = []
    for fitted in each(lambda part: _block(part, conventions, options), some):
        blocks.append(fitted)
        progress.report(sum(len(one["psnr"]) for one in blocks))
    chunk = {name: torch.cat([one[name] for one in blocks]) for name in blocks[0]}
    blob = save(chunk)
    write_beside(path, lambda file: file.write(blob))
    return chunk


def _block(images: Images, conventions: Conventions, options: FitOptions) -> dict[str, Tensor]:
    """Parameters, as they are stored, and PSNR of images that are fitted in one go."""
    targets = torch.from_numpy(images.targets()).to(options.device)
    params = initial(conventions, images.split.tolist(), images.index.tolist())
    fitted = fit(targets, params, conventions, options.stages)
    if not all(tensor.isfinite().all() for tensor in fitted.values()):
        message = f"the fit of an image from number {int(images.index[0])} on has diverged"
        raise NgcError(message, where="fit", hint="a lower learning rate")
    stored = {name: t.half() if options.half else t for name, t in fitted.items()}
    with torch.no_grad():
        pictures = render(conventions, {name: t.float() for name, t in stored.items()})
        return {name: t.cpu() for name, t in stored.items()} | {
            "psnr": psnr(pictures, targets).cpu()
        }


@contextmanager
def _workers(device: str) -> Iterator[Each]:
    """A map over blocks. On a CPU each core has a block of its own: threads that share one block
    wait for each other many times a step, and for long where other programs hold a core."""
    count = torch.get_num_threads()
    if torch.device(device).type != "cpu" or count == 1:
        yield map
        return
    pool = ThreadPoolExecutor(count, initializer=lambda: torch.set_num_threads(1))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(count)


@dataclass(frozen=True, slots=True)
class _Counted:
    """Progress within a chunk that begins at image ``start``."""

    progress: Progress
    start: int
    total: int

    def report(self, number: int) -> None:
        self.progress(self.start + number, self.total)


# --- settings of a run --------------------------------------------------------------------------


def _check_images(images: Images, conventions: Conventions) -> None:
    found = images.pixels.shape[1:]
    expected = (conventions.height, conventions.width, conventions.channels)
    if not len(images):
        raise OptionError("there are no images to fit", where=images.name)
    if found != expected:
        message = f"images of {list(found)} for networks of {list(expected)}"
        raise OptionError(message, where=images.name)


def _check_device(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(f"not a device here: {reason}", where=device, hint="cpu") from error


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("ngc", "torch", "numpy")}


def _told(options: FitOptions) -> dict[str, Any]:
    stages = [list(stage) for stage in options.stages]
    return {**asdict(options), "stages": stages, "optimizer": "Adam, the full image each step"}


def _fingerprint(images: Images, conventions: Conventions, options: FitOptions) -> str:
    """All that the contents of part files depend on."""
    settings = {
        "images": images.digest(),
        "conventions": conventions.to_dict(),
        "fit": _told(options),
        "versions": _versions(),
    }
    return json.dumps(settings, sort_keys=True, indent=1)


def _prepare(output: Path, parts: Path, fingerprint: str, restart: bool) -> None:
    """The folder of parts: new, or that of a run with the same settings."""
    if output.exists() and not restart:
        raise OptionError("it is there already", where=str(output), hint="another -o, or --restart")
    if restart:
        shutil.rmtree(parts, ignore_errors=True)
    settings = parts / "settings.json"
    if settings.exists() and settings.read_text() != fingerprint:
        message = "it holds parts of a run with other settings, images or versions"
        raise OptionError(message, where=str(parts), hint="the same settings, or --restart")
    if not output.parent.is_dir():
        raise OptionError(f"there is no folder {output.parent}", where=str(output))
    parts.mkdir(exist_ok=True)
    write_beside(settings, lambda file: file.write(fingerprint.encode()))
