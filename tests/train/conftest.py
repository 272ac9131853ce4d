"""A folder to type commands in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.tiny import tiny_recipe


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny recipe, as the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NGC_RUN_FOLDER", raising=False)
    tiny_recipe(tmp_path)
    return tmp_path
