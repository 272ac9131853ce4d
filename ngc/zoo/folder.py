"""The folder of a zoo while it is written: by one import at a time, and never half a file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ngc.errors import NgcError
from ngc.files import write_beside
from ngc.zoo.store import facts_path, read_facts

FOLDERS = ("architectures", "shards")


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    text = json.dumps(facts, indent=1) + "\n"
    write_beside(facts_path(folder), lambda file: file.write(text.encode()))


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make the folder, and let nobody else import into it meanwhile; what an import that was
    killed left half-written is removed."""
    if folder.exists() and not folder.is_dir():
        raise NgcError("it is a file", where=str(folder))
    if not folder.parent.is_dir():
        raise NgcError("there is no such folder", where=str(folder.parent))
    folder.mkdir(exist_ok=True)
    new = not any(folder.iterdir())
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # not on Windows
            pass
        except OSError as error:
            raise NgcError("another import is under way there", where=str(folder)) from error
        if facts_path(folder).is_file():
            for inner in (folder, folder / "shards", folder / "architectures"):
                for path in inner.glob(".*"):  # as ``write_beside`` names them
                    path.unlink(missing_ok=True)
        yield
    finally:
        os.close(descriptor)
        if new and not facts_path(folder).is_file():  # nothing came of it
            shutil.rmtree(folder, ignore_errors=True)


def clear(folder: Path) -> None:
    """Remove a zoo; nothing else."""
    if read_facts(folder) is None:
        return
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in (folder / "skipped.csv", facts_path(folder)):
        path.unlink(missing_ok=True)
