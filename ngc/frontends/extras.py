"""Packages that only some models need: how to install the one that is not there."""

from __future__ import annotations

from importlib.util import find_spec

from ngc.errors import NgcError

# Package, as it is imported -> what pip calls what brings it.
INSTALLS = {
    "keras": "'ngc[keras]'",
    "h5py": "'ngc[keras]'",
    "sklearn": "'ngc[sklearn]'",
    "transformers": "transformers",
    "torchvision": "torchvision",
}


def is_missing(package: str) -> bool:
    """Whether a package that an import asked for, or the one it lies in, is not installed."""
    return find_spec(package.partition(".")[0]) is None


def install(package: str) -> str:
    """The command that installs a package, or words for one whose name pip may know otherwise."""
    package = package.partition(".")[0]
    known = INSTALLS.get(package)
    return f"pip install {known}" if known else f"install the package that has {package}"


def require(package: str, what: str, where: str) -> None:
    """Refuse a model that cannot be read without this package."""
    if is_missing(package):
        raise NgcError(f"{what} needs {package}", where=where, hint=install(package))
