"""The commands of ``ngc data``: make, import, describe and export sets of INRs."""

from __future__ import annotations

import inspect
import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ngc.cli.progress import progress_bar
from ngc.cli.settings import command, say
from ngc.errors import OptionError

if TYPE_CHECKING:
    from ngc.train.images import Images
    from ngc.train.inr_sets import InrSet

data_app = typer.Typer(
    name="data",
    help="Data to train on: sets of implicit neural representations (INRs).",
    no_args_is_help=True,
)

SetFile = Annotated[
    str,
    typer.Argument(metavar="SET", help='A set (.safetensors), or "embedded".', show_default=False),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DATA",
        help="Folder with mnist/, fashion_mnist/ or cifar10/ [NGC_DATA, else a download].",
        show_default=False,
    ),
]


class Init(StrEnum):
    """Initial weights of the networks of a set."""

    random = "random"
    shared = "shared"


class Scheme(StrEnum):
    """How initial weights are drawn."""

    published = "published"
    siren = "siren"


class Storage(StrEnum):
    """How weights are stored."""

    float32 = "float32"
    float16 = "float16"


class Order(StrEnum):
    """Which coordinate of a pixel comes first."""

    row = "row"
    column = "column"


@command(data_app)
def inr(
    images: Annotated[
        str,
        typer.Option(
            metavar="mnist|fashion_mnist|cifar10|DIR",
            help="A data set, or a folder of pictures: DIR/train/CLASS/*.png, DIR/CLASS/*.png, "
            "DIR/*.png.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file to write [inr_NAME.safetensors].", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Images in all: the first ones of each split, by its share.", show_default=False
        ),
    ] = None,
    train: Annotated[
        int | None, typer.Option(help="Only the first training images.", show_default=False)
    ] = None,
    test: Annotated[
        int | None, typer.Option(help="Only the first test images.", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Scale the pictures of DIR.", show_default=False),
    ] = None,
    init: Annotated[
        Init, typer.Option(help="Initial weights for each image, or shared by all.")
    ] = Init.random,
    scheme: Annotated[
        Scheme,
        typer.Option(
            help="Initial weights as of the published sets (21 dB), or as of SIREN (over 40 dB)."
        ),
    ] = Scheme.published,
    hidden: Annotated[str, typer.Option(help="Widths of the hidden layers.")] = "32,32",
    omega: Annotated[float, typer.Option(help="Factor of the sines' arguments.")] = 30.0,
    offset: Annotated[float, typer.Option(help="Added to the output.")] = 0.5,
    steps: Annotated[
        str, typer.Option(help="Steps of Adam and their learning rates.")
    ] = "500x1e-3,100x1e-4",
    seed: Annotated[int, typer.Option(help="Seed of the initial weights.")] = 0,
    storage: Annotated[
        Storage, typer.Option(help="Precision of the weights in the file.")
    ] = Storage.float32,
    chunk: Annotated[int, typer.Option(help="Images between two saves.")] = 256,
    device: Annotated[str, typer.Option(help="Where to fit: cpu, cuda, cuda:1, ...")] = "cpu",
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Begin anew, and replace an output that is there."),
    ] = False,
) -> None:
    """Fit one SIREN to each image. Killed, and run again with the same options, it goes on.

    Example: ngc data inr --images mnist --limit 1000 -o inrs.safetensors
    """
    from ngc.cli.data_tables import describe
    from ngc.train.images import DATA_SETS, load_images
    from ngc.train.inr_fit import FitOptions, fit_set
    from ngc.train.siren import Conventions

    stages = tuple(_stage(text) for text in steps.split(","))
    options = FitOptions(stages, chunk, storage is Storage.float16, device)
    found = _first(load_images(images, data_dir, _size(size)), limit, train, test)
    height, width, channels = found.pixels.shape[1:]
    conventions = Conventions(
        widths=(2, *_widths(hidden), channels),
        omega=omega,
        offset=offset,
        height=height,
        width=width,
        init=init.value,
        init_scheme=scheme.value,
        seed=seed,
    )
    # Without where data sets are: the command makes the same set on another machine.
    folder = images not in DATA_SETS
    named = images if folder else found.name
    classes = {"classes": list(found.classes)} if folder and found.classes else {}
    made_by = _command_of(
        named, limit=limit, train=train, test=test, size=size, init=init, scheme=scheme,
        hidden=hidden, omega=omega, offset=offset, steps=steps, seed=seed, storage=storage,
        chunk=chunk, device=device,
    )  # fmt: skip
    path = output or Path(f"inr_{found.name}.safetensors")
    say(f"fitting {len(found):,} images of {found.name}: {_counts(found)}")
    with progress_bar("fitting") as progress:
        result = fit_set(
            found,
            conventions,
            path,
            options,
            origin={"images": named, "command": made_by, **classes},
            restart=restart,
            progress=progress,
        )
    describe(result, path)


@command(data_app)
def import_(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A published set: a folder of .pth.", show_default=False
        ),
    ],
    output: Output,
    splits: Annotated[
        Path | None,
        typer.Option(
            metavar="JSON",
            help="Paths and labels of train, val and test [from the names].",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="mnist|fashion_mnist|DIR",
            help="The images, to find the order of coordinates and to measure the PSNR.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
    order: Annotated[
        Order, typer.Option(help="Which coordinate comes first, if no images are given.")
    ] = Order.column,
    storage: Annotated[
        Storage, typer.Option(help="Precision of the weights in the file.")
    ] = Storage.float32,
) -> None:
    """Read a published set of INRs; no code of its files is run.

    Example: ngc data import mnist-inrs -o mnist.safetensors --splits mnist_splits.json
    """
    import torch

    from ngc.cli.data_tables import describe
    from ngc.train.images import load_images
    from ngc.train.inr_import import import_folder
    from ngc.train.siren import COLUMN_FIRST, ROW_FIRST

    found = load_images(images, data_dir) if images else None
    with progress_bar("reading") as progress:
        result = import_folder(
            folder,
            splits=splits,
            images=found,
            coordinates=ROW_FIRST if order is Order.row else COLUMN_FIRST,
            progress=progress,
        )
    result.save(output, torch.float16 if storage is Storage.float16 else torch.float32)
    describe(result, output)


@command(data_app)
def show(
    file: SetFile,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Also draw the first INRs.", show_default=False),
    ] = None,
    count: Annotated[int, typer.Option(help="How many to draw.")] = 128,
) -> None:
    """Describe a set: sizes, PSNR, statistics of each layer beside the published ones, conventions.

    Example: ngc data show embedded --picture sheet.png
    """
    from ngc.cli.data_tables import describe

    found, path = _opened(file)
    describe(found, path)
    if picture is not None:
        from ngc.files import write_beside
        from ngc.train.image_files import contact_sheet

        if count < 1:
            raise OptionError(f"it is {count}", where="--count", hint="a number from 1")
        blob = contact_sheet(found.select(slice(0, count)).render().numpy())
        write_beside(picture, lambda stream: stream.write(blob))
        typer.echo(f"{picture}: {min(count, len(found))} INRs")


@command(data_app)
def export(
    file: SetFile,
    output: Output,
    number: Annotated[int, typer.Option(help="Which of the set, from 0.")] = 0,
) -> None:
    """Write one INR as ONNX, for ``ngc compile`` and all that reads ONNX.

    Example: ngc data export embedded --number 7 -o seven.onnx
    """
    from ngc.files import write_beside

    found, path = _opened(file)
    blob = found.onnx(number).SerializeToString(deterministic=True)
    write_beside(output, lambda stream: stream.write(blob))
    typer.echo(f"{output}: number {number} of {path}, label {int(found.label[number])}")


def _command_of(images: str, **values: object) -> str:
    """The command with all options that are not at their default."""
    words = ["ngc", "data", "inr", "--images", images]
    defaults = inspect.signature(inr).parameters
    for name, value in values.items():
        words += [f"--{name}", str(value)] if value != defaults[name].default else []
    return shlex.join(words)


# --- reading options ----------------------------------------------------------------------------


def _opened(file: str) -> tuple[InrSet, Path]:
    from ngc.train import inr_sets

    path = inr_sets.EMBEDDED if file == "embedded" else Path(file)
    return inr_sets.load(path), path


def _first(images: Images, limit: int | None, train: int | None, test: int | None) -> Images:
    """The first images of each split."""
    import numpy as np

    from ngc.train.images import TEST, TRAIN

    for name, value in (("--limit", limit), ("--train", train), ("--test", test)):
        if value is not None and value < 0:
            raise OptionError(f"it is {value}", where=name, hint="a number from 0")
    most = {TRAIN: train, TEST: test}
    kept = [
        np.flatnonzero(images.split == split)[: most.get(split)]
        for split in np.unique(images.split)
    ]
    whole = sum(map(len, kept))
    if limit is not None and limit < whole:
        ends = np.rint(np.cumsum([0, *map(len, kept)]) * (limit / whole)).astype(int)
        kept = [numbers[:n] for numbers, n in zip(kept, np.diff(ends))]
    return images.select(np.concatenate(kept))


def _counts(images: Images) -> str:
    from ngc.train.images import SPLITS

    counts = {name: int((images.split == split).sum()) for name, split in SPLITS.items()}
    return ", ".join(f"{number:,} {name}" for name, number in counts.items() if number)


def _stage(text: str) -> tuple[int, float]:
    try:
        steps, rate = text.split("x")
        return int(steps), float(rate)
    except ValueError:
        raise OptionError(
            f"cannot read {text!r}", where="--steps", hint="500x1e-3,100x1e-4"
        ) from None


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"cannot read {text!r}", where="--hidden", hint="32,32") from None


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        height, width = (int(part) for part in text.split("x"))
    except ValueError:
        raise OptionError(f"cannot read {text!r}", where="--size", hint="28x28") from None
    if not (2 <= height <= 1024 and 2 <= width <= 1024):
        raise OptionError(f"it is {text}", where="--size", hint="2x2 to 1024x1024")
    return height, width
