"""The commands around training: run, runs, predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ngc.cli.commands import MODELS, app
from ngc.cli.settings import REFUSED, ModuleInput, command, say
from ngc.errors import NgcError, OptionError

if TYPE_CHECKING:
    from ngc.train.recipe import Recipe

INTERRUPTED = 130  # exit code, as of a shell after Ctrl-C

Out = Annotated[Path, typer.Option(metavar="DIR", help="The folder that runs are kept in.")]


@command(app)
def run(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE", help="A recipe, or a run folder to resume.", show_default=False
        ),
    ],
    changes: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe."),
    ] = [],  # noqa: B006
    out: Out = Path("runs"),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the last run of this recipe, if it was killed."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only check the recipe, and print it in full.")
    ] = False,
) -> None:
    """Train as a recipe says, test the best epoch, and report. A recipe with a sweep is several.

    Example: ngc run recipes/inr_mnist.yaml --set train.epochs=3
    """
    if check:
        from ngc.train.recipe import read_recipes

        typer.echo("---\n".join(one.dump() for one in read_recipes(recipe, changes)), nl=False)
        return
    say("loading torch and lightning")
    from ngc.cli.tables import show_tables
    from ngc.cli.train_tables import comparison_table
    from ngc.train.recipe import read_recipe, read_recipes
    from ngc.train.runner import begun_folder, is_first
    from ngc.train.runs import RECIPE, read_run

    if recipe.is_dir():
        _require_resumable(recipe, changes, resume)
        _run(read_recipe(recipe / RECIPE), recipe, resumed=True)
    elif begun := begun_folder():
        _run(read_recipe(begun / RECIPE), begun, resumed=True)
    else:
        recipes = read_recipes(recipe, changes)
        try:
            folders = [_run_in(out, one, resume) for one in recipes]
        except typer.Exit:
            if len(recipes) > 1:
                say(f"the whole sweep: the same command with --resume, {len(recipes)} runs in all")
            raise
        if len(folders) > 1 and is_first():
            show_tables([comparison_table([read_run(folder) for folder in folders])])


def _run_in(out: Path, recipe: Recipe, resume: bool) -> Path:
    """Run a recipe in a folder of its own, or go on with its last run; the folder."""
    from ngc.train import runner, runs

    if resume:
        same = [one.path for one in runs.find_runs(out, _skip) if runner.is_of(one.path, recipe)]
        if same:
            return _run(recipe, same[-1], resumed=True)
        say(f"no run of {recipe.name} with these settings in {out}: starting one")
    return _run(recipe, runs.new_folder(out, recipe.name), resumed=False)


def _run(recipe: Recipe, folder: Path, *, resumed: bool) -> Path:
    """Run a recipe in a folder, or what is left of it, and show what it found."""
    from ngc.cli.tables import show_tables
    from ngc.cli.train_tables import result_table
    from ngc.train import runner
    from ngc.train.trainer import Interrupted

    if runner.is_first():
        say(f"run folder: {folder}")
    try:
        with runner.shared_with_devices(folder):
            metrics = runner.run(recipe, folder)
    except Interrupted as error:
        say(f"{error}")
        raise typer.Exit(INTERRUPTED) from None
    except NgcError:
        if not resumed and runner.is_first():
            runner.discard_unbegun(folder)
        raise
    if runner.is_first():
        show_tables([result_table(folder, metrics)])
    return folder


def _skip(error: NgcError) -> None:
    say(f"skipped: {error}", fg=typer.colors.YELLOW)


def _require_resumable(path: Path, changes: list[str], resume: bool) -> None:
    """Refuse a folder that is no run to go on with."""
    from ngc.train import runs

    if not resume:
        way = f"ngc run {path} --resume" if runs.is_run(path) else "a recipe: a YAML file"
        raise OptionError("it is a folder", where=str(path), hint=way)
    if changes:
        raise OptionError("a run goes on as it began", where="--set", hint="a new run")
    runs.require_run(path)


@command(app)
def runs(
    which: Annotated[
        list[Path],
        typer.Argument(metavar="[RUN...]", help="Run folders to compare.", show_default=False),
    ] = [],  # noqa: B006
    out: Out = Path("runs"),
) -> None:
    """List all runs, or compare some side by side.

    Example: ngc runs runs/inr_mnist-001 runs/inr_mnist-002
    """
    from ngc.cli.tables import show_tables
    from ngc.cli.train_tables import comparison_table, runs_table
    from ngc.train.runs import find_runs, read_run

    if which:
        show_tables([comparison_table([read_run(path) for path in which])])
    else:
        show_tables([runs_table(out, find_runs(out, _skip))])


@command(app)
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)],
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help=MODELS, show_default=False)
    ],
    plan_from: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The architecture, where each MODEL is weights alone (.safetensors, .npz, .pt).",
            show_default=False,
        ),
    ] = None,
    input: ModuleInput = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for edited networks."),
    ] = None,
) -> None:
    """What a trained model says about networks: the class of each, its accuracy, or an edited copy.

    Files that cannot be read are named, and the exit code is then 2; the others are read.

    Example: ngc predict runs/inr_mnist-001 model.onnx

    Example: ngc predict runs/zoo-001 --plan-from package.module:Net --input 1x3x32x32 last.pt
    """
    from ngc.cli.tables import show_tables
    from ngc.cli.train_tables import edit_table, number_table, prediction_table
    from ngc.frontends.dims import parse_examples
    from ngc.train.predict import load_trained, predict, save_edits

    trained = load_trained(run)
    if trained.predicts == "edits" and output is None:
        raise OptionError("this model edits networks", where=str(run), hint="-o DIR, to write them")
    refused: list[NgcError] = []
    inputs = parse_examples(input or [])
    found = predict(trained, models, refused.append, plan_from=plan_from, inputs=inputs)
    for error in refused:
        say(f"error: {error}", fg=typer.colors.RED)
    for one in (one for one in found if one.unseen):
        listed = ", ".join(one.unseen)
        say(f"note: {one.file} is unlike the training networks: {listed}", fg=typer.colors.YELLOW)
    if found and trained.predicts == "edits":
        assert output is not None
        kept = [] if plan_from is None else [plan_from]
        show_tables([edit_table(found, save_edits(found, output, kept))])
    elif found and trained.target:
        show_tables([number_table(trained.target, found)])
    elif found:
        show_tables([prediction_table(trained.classes, found)])
    if refused:
        raise typer.Exit(REFUSED)
