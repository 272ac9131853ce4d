"""What is installed is what is here: packages in pyproject, files in the wheel."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def package_folders() -> dict[str, Path]:
    """Every folder with an ``__init__.py``; models/ is ngc.models."""
    found = {}
    for path in [*ROOT.glob("ngc/**/__init__.py"), *ROOT.glob("models/**/__init__.py")]:
        parts = path.parent.relative_to(ROOT).parts
        found[".".join(("ngc", *parts) if parts[0] == "models" else parts)] = path.parent
    return found


def configuration() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_listed() -> None:
    listed = configuration()["tool"]["setuptools"]["packages"]
    assert len(listed) > 8
    assert sorted(listed) == sorted(package_folders())


def test_every_folder_of_code_is_a_package() -> None:
    folders = {path.parent for path in ROOT.glob("ngc/**/*.py")}
    assert folders == {
        p for name, p in package_folders().items() if not name.startswith("ngc.models")
    }


def test_models_cannot_be_imported_as_a_package_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import models"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "import ngc.models, not models" in done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", "69")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    # Built from links, so that no build/ folder appears in the tree or comes from it.
    for name in ("pyproject.toml", "README.md", "LICENSE", "ngc", "models"):
        (source / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(target), str(source)], check=True, cwd=source)
    (found,) = target.glob("ngc-*.whl")
    return found


def test_the_wheel_holds_every_module(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {str(path.relative_to(ROOT)) for path in ROOT.glob("ngc/**/*.py")}
    expected |= {f"ngc/{path.relative_to(ROOT)}" for path in ROOT.glob("models/**/*.py")}
    assert len(expected) > 50
    assert expected <= names
    assert {name for name in names if name.endswith(".py")} == expected


def test_the_wheel_has_the_command_and_the_licence(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    (entries,) = (name for name in names if name.endswith("entry_points.txt"))
    assert "ngc = ngc.cli:app" in archive.read(entries).decode()
    assert any(name.endswith("LICENSE") for name in names)
