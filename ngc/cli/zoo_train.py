"""``ngc zoo train``: make a zoo of small networks."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ngc.cli.data import DataDir
from ngc.cli.progress import progress_bar
from ngc.cli.settings import command, say
from ngc.cli.train import INTERRUPTED
from ngc.cli.zoo import zoo_app

if TYPE_CHECKING:
    from rich.table import Table


@command(zoo_app)
def train(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="RECIPE", help="A recipe of a zoo.", show_default=False),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="The folder to write.", show_default=False
        ),
    ],
    changes: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe."),
    ] = [],  # noqa: B006
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an earlier run was broken off.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Train many small networks of random architectures, and keep checkpoints of each.

    Example: ngc zoo train recipes/zoo/wild_park.yaml -o wild_park --set networks=40
    """
    from ngc.cli.tables import show_tables
    from ngc.train.maker import make_zoo
    from ngc.train.maker_recipe import read_zoo_recipe

    found = read_zoo_recipe(recipe, changes)

    words = ["ngc", "zoo", "train", str(recipe), "-o", str(output)]
    for change in changes:
        words += ["--set", change]
    try:
        with progress_bar("training networks", rate="networks a minute") as progress:
            summary = make_zoo(
                found,
                output,
                resume=resume,
                data_dir=data_dir,
                command=shlex.join(words),
                progress=progress,
            )
    except KeyboardInterrupt:
        say(f"broken off\n  go on: {shlex.join([*words, '--resume'])}")
        raise typer.Exit(INTERRUPTED) from None
    show_tables([_summary_table(output, summary)])


def _summary_table(folder: Path, summary: dict[str, Any]) -> Table:
    from ngc.cli.tables import add_row, make_table

    spreads = summary["accuracy"]
    names = list(spreads["of the last epoch"])
    title = (
        f"{folder}: {summary['networks']:,} networks of {summary['architectures']:,} "
        f"architectures, {summary['checkpoints']:,} checkpoints"
    )
    caption = f"sha256 of all networks: {summary['sha256']}"
    if summary["stopped"]:
        caption += f"; stopped early, the loss was no number: {', '.join(summary['stopped'])}"
    table = make_table(title, ("test accuracy", *names), names, caption)
    for what, figures in spreads.items():
        add_row(table, what, *(f"{100 * figures[name]:.1f} %" for name in names))
    return table
