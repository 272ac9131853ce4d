"""What the README says is so: its commands exist, its example runs, its output is real."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ngc
from ngc.cli import app
from ngc.cli.settings import option_flags
from ngc.options import CHOICES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return found


def test_make_verbs_exist() -> None:
    verbs = set(re.findall(r"\bmake (\w+)", "\n".join(blocks("sh"))))
    assert verbs == {"demo", "test"}
    verbs |= set(re.findall(r"`make (\w+)`", README))
    defined = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert verbs <= defined


def test_ci_runs_the_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_commands_exist() -> None:
    lines = [line for line in "\n".join(blocks("sh")).splitlines() if re.match(r"\S*\bngc ", line)]
    assert len(lines) > 5
    for line in lines:
        words = line.split("#")[0].split()
        groups = [group.typer_instance.info.name for group in app.registered_groups]
        name = words[1:3] if words[1] in groups else words[1:2]
        result = CliRunner().invoke(app, [*name, "--help"])
        assert result.exit_code == 0, line
        for flag in (word for word in words if word.startswith("--")):
            assert flag in result.stdout, line


@pytest.mark.parametrize("code", blocks("python"), ids=["compile", "learn"])
def test_a_python_example_runs_alone(code: str, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = dict(os.environ, PYTHONPATH=str(Path(ngc.__file__).parents[1]))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_the_output_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (shown,) = blocks("text")
    command, *expected = shown.strip().splitlines()
    words = command.removeprefix("$ ngc ").split()
    found = CliRunner(env={"COLUMNS": None}).invoke(app, words).stdout.splitlines()
    assert masked(expected) == masked(found)


def masked(lines: list[str]) -> list[str]:
    """Without blank lines and rules; errors of rounding differ between machines."""
    kept = [line.strip() for line in lines if line.strip(" ─")]
    return [re.sub(r"\d\.\de-\d\d", "ERROR", line) for line in kept]


def test_every_option_is_in_the_table() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", README, re.MULTILINE))
    assert set(rows) == {flag.name for flag in option_flags()}
    for name, values in CHOICES.items():
        assert rows[name] == ", ".join(f"`{value}`" for value in ordered(name, values))


def ordered(name: str, values: tuple[str, ...]) -> list[str]:
    """The default first."""
    default = ngc.Options().to_dict()[name]
    return sorted(values, key=lambda value: value != default)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 5
    for link in links:
        assert (ROOT / link).exists(), link
