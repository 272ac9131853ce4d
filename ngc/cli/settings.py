"""What commands share: the options of a compilation as flags, errors in one line, ``--debug``.

Nothing here imports torch or onnx before a command runs, so that ``ngc --help`` is quick.
"""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ngc.errors import NgcError, OptionError
from ngc.options import CHOICES, Options

if TYPE_CHECKING:
    from ngc.budget import Budget
    from ngc.compiler import Compilation
    from ngc.frontends.dims import Example

FAILED, REFUSED = 1, 2  # exit codes: a check failed; an error of the user or of the model
PANEL = "Options of the compilation"

ModuleInput = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SIZES", help="Input of a PyTorch module, e.g. 1x3x32x32.", show_default=False
    ),
]


@dataclass(frozen=True)
class Settings:
    """What the flags of a command say about a compilation."""

    options: Options
    budget: Budget
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)
    inputs: tuple[Example, ...] | None = None

    def compile(self, model: str) -> Compilation:
        """Compile a file; its notes go to stderr."""
        from ngc.compiler import compile

        result = compile(
            model, self.inputs, options=self.options, shapes=self.shapes, dims=self.dims,
            budget=self.budget,
        )  # fmt: skip
        for note in result.notes:
            say(f"note: {note}")
        return result


def say(text: str, **style: Any) -> None:
    """A line of progress."""
    typer.secho(printable(text), err=True, **style)


def printable(text: str) -> str:
    """Text that cannot steer a terminal: names come from strangers."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


# --- flags --------------------------------------------------------------------------------------


def option_flags() -> list[inspect.Parameter]:
    """One flag for each field of ``Options``, with its help from the docstring there."""
    explained = explanations()
    return [_flag(f.name, _TYPES.get(f.name, str), explained[f.name], _shown(f.name, f.default))
            for f in fields(Options)]  # fmt: skip


_TYPES: dict[str, Any] = {"input_axes": list[str]}
_METAVARS = {"kernel": "7x7", "input_axes": "x=1,2"}


def _shown(name: str, default: Any) -> Any:
    """The default of a flag: as in ``Options`` where it is text, else none given."""
    return default if isinstance(default, str) else [] if name in _TYPES else None


def explanations() -> dict[str, str]:
    """What the docstring of ``Options`` says of each field."""
    text = inspect.getdoc(Options) or ""
    entries = re.findall(r"^(\w+): (.*(?:\n {4}.*)*)", text, re.MULTILINE)
    return {name: " ".join(meaning.replace("``", "").split()) for name, meaning in entries}


def _flag(
    name: str, kind: Any, meaning: str, default: Any, panel: str = PANEL
) -> inspect.Parameter:
    metavar = _METAVARS.get(name) or "|".join(CHOICES.get(name, ())) or None
    info = typer.Option(
        f"--{name.replace('_', '-')}",
        help=meaning,
        metavar=metavar,
        rich_help_panel=panel,
        show_default=isinstance(default, str | int),
    )
    if default is None:
        kind = kind | None
    annotation = Annotated[kind, info]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def model_flags() -> list[inspect.Parameter]:
    """Flags that say how the model is read."""
    panel = "Sizes"
    return [
        _flag("shape", list[str], "Sizes of an input, e.g. x=1x3x224x224.", [], panel),
        _flag(
            "input",
            list[str],
            "Input of a PyTorch module, e.g. 1x3x32x32, ids=1x16:int64.",
            [],
            panel,
        ),
        _flag("dim", list[str], "Size of a named dimension, e.g. batch=1.", [], panel),
        _flag(
            "max_elements",
            int,
            "Most entries that one tensor, or all weights together, may have. "
            "A larger model is refused before anything is allocated.",
            2**28,
            panel,
        ),
    ]


def settings_of(flags: dict[str, Any]) -> Settings:
    """Settings from the values of all flags above."""
    from ngc.budget import Budget
    from ngc.frontends.dims import parse_dim, parse_examples, parse_shape

    values = {f.name: flags[f.name] for f in fields(Options)}
    values["input_axes"] = dict(parse_axes(text) for text in values["input_axes"])
    shapes = dict(parse_shape(text) for text in flags["shape"])
    dims = dict(parse_dim(text) for text in flags["dim"])
    inputs = parse_examples(flags["input"])
    budget = Budget(max_elements=flags["max_elements"])
    return Settings(Options(**values), budget, shapes, dims, inputs)


def parse_axes(text: str) -> tuple[str, str]:
    """``x=1,2`` as the name of an input and its axes."""
    name, found, axes = text.rpartition("=")
    if not name or not found:
        raise OptionError(f"cannot read the axes {text!r}", hint="--input-axes x=1,2")
    return name, axes


# --- commands -----------------------------------------------------------------------------------


def command(app: typer.Typer, name: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a command, by default with the name of the function. A parameter ``settings``
    becomes all flags of a compilation; errors meant for the user are printed in one message, with
    ``--debug`` after their traceback."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())
        compiles = any(p.name == "settings" for p in own)
        debug = _flag("debug", bool, "Show where in ngc an error arose.", False, "Help")
        flags = [*option_flags(), *model_flags()] if compiles else []
        kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != "settings"]

        def run(*, debug: bool, **values: Any) -> None:
            try:
                if compiles:
                    values["settings"] = settings_of({p.name: values.pop(p.name) for p in flags})
                function(**values)
            except BrokenPipeError:  # the reader has seen enough, e.g. ``ngc show | head``
                raise
            except (NgcError, OSError) as error:
                if debug:
                    traceback.print_exc(file=sys.stderr)
                say(f"error: {error}", fg=typer.colors.RED)
                raise typer.Exit(REFUSED) from None

        run.__signature__ = inspect.Signature([*kept, *flags, debug])  # type: ignore[attr-defined]
        run.__name__, run.__doc__, run.__annotations__ = function.__name__, function.__doc__, {}
        app.command(name or function.__name__.rstrip("_"))(run)
        return function

    return register
