"""The commands of ``ngc zoo``: data sets of many trained networks."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ngc.cli.data import Storage
from ngc.cli.progress import progress_bar
from ngc.cli.settings import ModuleInput, command, say
from ngc.errors import OptionError

if TYPE_CHECKING:
    from ngc.zoo.store import Zoo

zoo_app = typer.Typer(
    name="zoo",
    help="Zoos: data sets of many trained networks, of one or many architectures.",
    no_args_is_help=True,
)

ZooFolder = Annotated[
    Path, typer.Argument(metavar="ZOO", help="A folder of ngc zoo import.", show_default=False)
]


class Norm(StrEnum):
    """What becomes of normalisations."""

    nodes = "nodes"
    fold = "fold"


@command(zoo_app)
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A published zoo, what ngc zoo train wrote, or any folder of networks.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write.", show_default=False)
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The architecture of a folder of weights alone (.safetensors, .npz, .pt): an ONNX "
            "file, or package.module:name.",
            show_default=False,
        ),
    ] = "",
    input: ModuleInput = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZES", help="Sizes of an input, e.g. x=1x3x32x32.", show_default=False
        ),
    ] = None,
    dim: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZE", help="Size of a named dimension, e.g. batch=1.", show_default=False
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="What is known of the networks, a row each: name (path in DIR), accuracy, run, "
            "step, split, family, anything else.",
            show_default=False,
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE,...",
            help="Of another zoo, only networks with one of these values.",
            show_default=False,
        ),
    ] = None,
    max_parameters: Annotated[
        int | None,
        typer.Option(help="Of another zoo, only networks up to this size.", show_default=False),
    ] = None,
    norm: Annotated[
        Norm, typer.Option(help="Keep normalisations, or fold BatchNorm into the weights.")
    ] = Norm.nodes,
    skip_corrupt: Annotated[
        bool,
        typer.Option("--skip-corrupt", help="Leave out what cannot be read, list it in ZOO."),
    ] = False,
    dtype: Annotated[
        Storage, typer.Option(help="Precision of the weights on disk.")
    ] = Storage.float32,
    shard: Annotated[
        int | None,
        typer.Option(help="Networks in one shard [2048, fewer large ones].", show_default=False),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    scheduler: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="A Dask cluster that does the work, e.g. tcp://HOST:8786.",
            show_default=False,
        ),
    ] = "",
    kind: Annotated[
        str,
        typer.Option(
            metavar="onnx|state-dicts|small-cnn|wild-park|made|zoo",
            help="What DIR is [from its files].",
            show_default=False,
        ),
    ] = "",
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, and replace a zoo that is there.")
    ] = False,
) -> None:
    """Turn many networks into one data set. Killed, and run again, it goes on.

    Example: ngc zoo import checkpoints -o zoo --table checkpoints.csv

    Example: ngc zoo import runs -o zoo --model package.module:Net --input 1x3x32x32
    """
    from ngc.cli.zoo_show import describe
    from ngc.frontends.dims import parse_dim, parse_examples, parse_shape
    from ngc.options import Options
    from ngc.zoo import import_zoo

    with progress_bar("importing") as progress:
        zoo = import_zoo(
            source,
            output,
            kind=kind or None,
            model=model or None,
            inputs=parse_examples(input or []),
            table=table,
            where=dict(_values(text) for text in where or []),
            max_parameters=max_parameters,
            options=Options(norm=norm.value),
            shapes=dict(parse_shape(text) for text in shape or []),
            dims=dict(parse_dim(text) for text in dim or []),
            dtype=dtype.value,
            shard=shard,
            workers=workers,
            scheduler=scheduler or None,
            skip_corrupt=skip_corrupt,
            restart=restart,
            progress=progress,
        )
    _say_notes(zoo)
    describe(zoo)


# Importing is compiling, once for each architecture: the other name, for those who look for it.
command(zoo_app, "compile")(import_)


def _values(text: str) -> tuple[str, list[str]]:
    """COLUMN=VALUE,VALUE"""
    column, equals, values = text.partition("=")
    if not (column and equals):
        raise OptionError(f"found {text!r}", where="--where", hint="--where step=10,20")
    return column, values.split(",")


@command(zoo_app)
def show(zoo: ZooFolder) -> None:
    """Describe a zoo: architectures, networks, bytes, distribution of accuracy.

    Example: ngc zoo show zoo
    """
    from ngc.cli.zoo_show import describe
    from ngc.zoo import open_zoo

    found = open_zoo(zoo)
    _say_notes(found)
    describe(found)


def _say_notes(zoo: Zoo) -> None:
    for note in zoo.facts.get("notes", ()):
        say(f"note: {note}")
    skipped = zoo.facts.get("skipped", 0)
    if skipped:
        where = zoo.path / "skipped.csv"
        say(f"{skipped:,} members could not be read and are left out: {where}")
