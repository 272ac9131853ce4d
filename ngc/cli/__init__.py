"""The command line. Thin: parse, call the library, print. Results to stdout, progress to stderr."""

from ngc.cli.commands import app

__all__ = ["app"]
