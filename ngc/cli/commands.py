"""The commands of ngc."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ngc.cli.settings import FAILED, Settings, command, printable, say
from ngc.errors import ModelErrors, NgcError, OptionError

if TYPE_CHECKING:
    import onnx

PURPOSE = (
    "Compile trained networks (ONNX, PyTorch, Keras, scikit-learn) into neural graphs, "
    "and prove each compilation."
)

app = typer.Typer(
    name="ngc",
    help=PURPOSE,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

MODELS = "ONNX file, .pt2 of PyTorch, .keras or .h5, or package.module:name (runs that code)."
ModelFile = Annotated[str, typer.Argument(metavar="MODEL", help=MODELS, show_default=False)]


class Level(StrEnum):
    """Stages that ``show`` prints."""

    onnx = "onnx"
    program = "program"
    graph = "graph"


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ngc {version('ngc')}")
        raise typer.Exit()


@app.callback(help=PURPOSE)
def ngc(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """All commands."""


@command(app)
def compile(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL...", help=MODELS, show_default=False),
    ] = None,
    *,
    settings: Settings,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path(
        "graph.pt"
    ),
    plan_from: Annotated[
        str,
        typer.Option(metavar="MODEL", help="The architecture of checkpoints.", show_default=False),
    ] = "",
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE...",
            help="With --plan-from: weights alone (.safetensors, .npz, .pt), any number of files.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compile networks into their neural graphs, all in one file.

    Example: ngc compile model.onnx -o graph.pt --flatten kernel

    Example: ngc compile --plan-from model.onnx --weights checkpoints/*.safetensors
    """
    from ngc.cli.tables import compiled_table, show_tables
    from ngc.files import save

    # A shell writes out checkpoints/*.safetensors: the files after the first look like models.
    names = [*(weights or []), *(models or [])]
    if bool(weights) != bool(plan_from):
        raise OptionError("--plan-from and --weights go together", hint="ngc compile --help")
    if not names:
        raise OptionError("no model is given", hint="ngc compile model.onnx")
    require_folder(output)
    compilations, errors = [], []
    compiled = settings.compile(plan_from).with_weights if plan_from else settings.compile
    for number, name in enumerate(names, start=1):
        say(f"compiling {name} ({number} of {len(names)})")
        try:
            compilations.append(compiled(name))
        except NgcError as error:
            errors.append(error)
    if len(errors) > 1:
        raise ModelErrors(errors, len(names))
    if errors:
        raise errors[0]
    save(compilations, output)
    show_tables([compiled_table(names, compilations, output)])


@command(app)
def verify(
    model: ModelFile,
    settings: Settings,
    seed: Annotated[int, typer.Option(help="Seed of inputs, weights and permutations.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds for one run of onnxruntime.")] = 300.0,
    save_failure: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for a failure; by default ngc-failure-MODEL.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Prove that the graph is the network: four checks, exit code 1 if one fails.

    faithful: the program equals onnxruntime. lossless: the weights come back bit for bit.
    symmetric: a random symmetry leaves the outputs as they are. complete: no parameter is lost.

    Example: ngc verify model.onnx --norm fold
    """
    from ngc.cli.tables import show_tables, verification_lines, verification_table
    from ngc.proof import verify

    say(f"compiling {model}")
    compiled = settings.compile(model)
    say("running the four checks")
    verification = verify(compiled, seed=seed, timeout=timeout)
    show_tables([verification_table(model, verification)], verification_lines(verification))
    if not verification.passed:
        folder = save_failure or Path(f"ngc-failure-{Path(model).stem}")
        verification.save(folder)
        say(f"model and inputs are in {folder}, to replay the failure", fg=typer.colors.RED)
        raise typer.Exit(FAILED)


@command(app)
def show(
    model: ModelFile,
    settings: Settings,
    level: Annotated[Level | None, typer.Option(help="One stage only.", show_default=False)] = None,
    after: Annotated[
        str, typer.Option(metavar="PASS", help="Stop after this pass, and show what it leaves.")
    ] = "",
    nodes: Annotated[
        bool,
        typer.Option("--nodes", help="Also single nodes: their names or numbers."),
    ] = False,
    text: Annotated[bool, typer.Option("--text", help="Stable text instead of tables.")] = False,
) -> None:
    """Print the stages of a compilation: the model, its program, its neural graph.

    Example: ngc show model.onnx --level graph --after residual
    """
    from ngc.cli.show import read_stages, stage_tables, stage_text
    from ngc.cli.tables import show_tables

    stages = read_stages(model, settings, level, after)
    for stage in stages:
        for note in stage.notes:
            say(f"note: {note}")
        if text:
            typer.echo(printable(stage_text(stage)), nl=False)
        else:
            show_tables(stage_tables(stage, nodes))


@command(app)
def decompile(
    graph: Annotated[Path, typer.Argument(metavar="GRAPH", help="A graph.pt.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="The file to write: ONNX, or .safetensors, tensors by their own names.",
        ),
    ] = Path("back.onnx"),
    number: Annotated[int, typer.Option(help="Which of the graphs in the file, from 0.")] = 0,
) -> None:
    """Give the network back: the weights on the graph, in the source model's own form.

    Example: ngc decompile graph.pt -o back.onnx
    """
    from ngc.files import decompile, load, write_beside

    require_folder(output)
    stored = load(graph)
    if not 0 <= number < len(stored):
        found = f"it holds {len(stored)} graph(s), there is no number {number}"
        raise OptionError(found, where=str(graph), hint="--number, from 0")
    if output.suffix == ".safetensors":
        from safetensors.torch import save

        blob = save(stored.state_dict(number))
    else:
        blob = serialised(decompile(stored, number), output)
    write_beside(output, lambda file: file.write(blob))
    typer.echo(f"{output}: {stored.sources[number]}, {len(blob):,} bytes")


@command(app)
def symmetries(model: ModelFile, settings: Settings) -> None:
    """List the families of neurons that can be permuted without changing the network.

    Example: ngc symmetries model.onnx
    """
    from ngc.cli.tables import show_tables, symmetry_table
    from ngc.symmetry import symmetries

    show_tables([symmetry_table(model, symmetries(settings.compile(model).wiring))])


@command(app)
def operators() -> None:
    """List the ONNX operators that compile, and the opset each rule holds from.

    Example: ngc operators
    """
    from ngc.cli.tables import operator_table, show_tables

    show_tables([operator_table()])


def require_folder(output: Path) -> None:
    """Refuse an output that could not be written, before the work begins."""
    if not output.parent.is_dir():
        raise OptionError(f"there is no folder {output.parent}", where=str(output))
    if output.is_dir():
        raise OptionError("it is a folder", where=str(output))


def serialised(model: onnx.ModelProto, output: Path) -> bytes:
    try:
        return model.SerializeToString(deterministic=True)
    except ValueError as error:
        raise OptionError(
            f"the model is too large for one file ({error})", where=str(output)
        ) from error
