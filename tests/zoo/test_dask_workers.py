"""A Dask cluster of two workers writes the same zoo as this process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster
from typer.testing import CliRunner

from ngc.cli import app
from ngc.errors import ModelError, OptionError
from ngc.zoo import import_zoo
from tests.zoo.networks import contents, write_folder


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("networks"), runs=range(6), steps=2)


def test_two_workers_write_the_bytes_of_a_local_import(
    scheduler: str, folder: Path, tmp_path: Path
) -> None:
    expected = import_zoo(folder, tmp_path / "local", shard=2)
    arguments = ["zoo", "compile", str(folder), "-o", str(tmp_path / "dask"), "--shard", "2"]
    result = CliRunner().invoke(app, [*arguments, "--scheduler", scheduler])
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "dask") == contents(expected.path)


def test_an_import_that_was_begun_here_goes_on_there(
    scheduler: str, folder: Path, tmp_path: Path
) -> None:
    expected = contents(import_zoo(folder, tmp_path / "local", shard=2).path)
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        import_zoo(folder, broken, shard=2, progress=_interrupted)
    done = list(broken.glob("shards/*.csv"))
    assert 0 < len(done) < 6
    import_zoo(folder, broken, shard=2, scheduler=scheduler)
    assert contents(broken) == expected


def _interrupted(done: int, total: int) -> None:
    if done == 4:
        raise KeyboardInterrupt


def test_corrupt_members_are_named_as_in_a_local_import(
    scheduler: str, folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    file = sorted(copy.rglob("*.onnx"))[3]
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match=file.relative_to(copy).as_posix()):
        import_zoo(copy, tmp_path / "zoo", shard=2, scheduler=scheduler)
    zoo = import_zoo(copy, tmp_path / "zoo", shard=2, scheduler=scheduler, skip_corrupt=True)
    assert len(zoo) == 11


def test_an_address_without_a_scheduler_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no Dask scheduler answers"):
        import_zoo(folder, tmp_path / "zoo", scheduler="tcp://127.0.0.1:9")
