"""The command line. Thin: parse, call the library, print. Results to stdout, progress to stderr."""

from ngc.cli import train, zoo_train  # noqa: F401  (they add their commands to the app)
from ngc.cli.commands import app
from ngc.cli.data import data_app
from ngc.cli.zoo import zoo_app

app.add_typer(data_app)
app.add_typer(zoo_app)

__all__ = ["app"]
