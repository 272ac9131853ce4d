"""Damaged files compile and can be used, or are refused; benchmarks/fuzz.py takes two thousand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ngc.errors import NgcError
from tests.frontends.mutations import broken_files
from tests.frontends.use import compile_and_use


def test_damaged_files_compile_or_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    outcomes: Counter[str] = Counter()
    for _, data in broken_files(seed=1, count=102):
        path.write_bytes(data)
        try:
            compile_and_use(path)
        except NgcError:
            outcomes["refused"] += 1
        else:
            outcomes["compiled"] += 1
    assert outcomes["refused"] > 20, "the damage must do damage"
    assert outcomes["compiled"] > 5, "and leave some models whole"


def test_the_same_seed_makes_the_same_files() -> None:
    assert list(broken_files(3, 17)) == list(broken_files(3, 17))
