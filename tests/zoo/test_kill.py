"""An import that is killed at any time, and taken up again, gives the same bytes; so do workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ngc.zoo import import_zoo
from tests.zoo.networks import contents, write_folder

# Slowly, so that a kill finds it at work.
SCRIPT = """
import sys, time
from ngc.zoo import import_zoo
from ngc.zoo.compiling import Compiler

row = Compiler.row

def slowly(self, program, arrays):
    time.sleep(0.02)
    return row(self, program, arrays)

Compiler.row = slowly  # in the workers too, which import this file

if __name__ == "__main__":
    source, zoo, workers = sys.argv[1:]
    import_zoo(source, zoo, shard=3, workers=int(workers))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("networks"), runs=range(24), steps=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_import_goes_on(folder: Path, tmp_path: Path, workers: int) -> None:
    expected = import_zoo(folder, tmp_path / "whole", shard=3).path
    script, zoo = tmp_path / "script.py", tmp_path / "zoo"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), str(zoo), str(workers)]
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": root}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while len(list(zoo.glob("shards/*.csv"))) < 4 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.003)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, process.stderr and process.stderr.read()
    done = {path: path.stat().st_mtime_ns for path in zoo.glob("shards/*.csv")}
    assert 4 <= len(done) < 16
    import_zoo(folder, zoo)
    assert contents(zoo) == contents(expected)
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())


def test_several_workers_write_the_same_zoo(folder: Path, tmp_path: Path) -> None:
    told = []
    one = import_zoo(folder, tmp_path / "one", shard=10)
    two = import_zoo(
        folder, tmp_path / "two", shard=10, workers=2, progress=lambda *args: told.append(args)
    )
    assert contents(one.path) == contents(two.path)
    assert told[0] == (0, 48)
    assert told[-1] == (48, 48)
