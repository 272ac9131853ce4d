"""Imports run one way, from later layers to earlier ones; neighbours do not know each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Later lines import earlier ones. A name stands for a module, or a package with all it holds; of
# two names that fit a module the longer one counts.
LAYERS = (
    ("ngc.errors",),
    ("ngc.budget", "ngc.options"),
    ("ngc.ir", "ngc.oracle_worker", "ngc.upgrade", "ngc.widen"),
    ("ngc.frontends", "ngc.oracle", "ngc.coverage"),
    ("ngc.passes", "ngc.backends"),
    ("ngc.plan", "ngc.symmetry", "ngc.samples"),
    ("ngc.backends.pyg", "ngc.backends.probes", "ngc.compare", "ngc.recompute"),
    ("ngc.backends.blocks", "ngc.known"),
    ("ngc.compiler",),
    ("ngc.files", "ngc.answers", "ngc.checkpoints"),
    ("ngc.proof",),
    ("ngc.models",),
    ("ngc.zoo",),
    ("ngc.train",),
    ("ngc.cli",),
    ("ngc",),  # the names of the package, loaded when used
)
LAYER_OF = {name: k for k, names in enumerate(LAYERS) for name in names}

# (from, to): why it may run backwards.
ALLOWED = {
    ("ngc.compiler", "ngc.files"): "Compilation.save is a shorthand, imported when called",
    ("ngc.compiler", "ngc.checkpoints"): "as is Compilation.with_weights",
}


def modules() -> dict[str, Path]:
    """Every module by its name; the folder models/ is ngc.models."""
    found = {}
    for path in [*ROOT.glob("ngc/**/*.py"), *ROOT.glob("models/**/*.py")]:
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        parts = ["ngc", *parts] if parts[0] == "models" else parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: set[str]) -> set[str]:
    """Modules of ours that a file imports anywhere: at its head, in a function, for types only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), names=names, level=0):
                inner = {f"{module}.{alias.name}" for alias in names} & known
                found |= inner or {module}
            case ast.ImportFrom(level=level):
                assert level == 0, f"{path}: a relative import"
    return {name for name in found if name.split(".")[0] == "ngc"}


def layer_name(module: str) -> str:
    """The longest name in the table that the module falls under."""
    parts = module.split(".")
    prefixes = (".".join(parts[:k]) for k in range(len(parts), 0, -1))
    return next(prefix for prefix in prefixes if prefix in LAYER_OF)


MODULES = modules()


def test_every_module_has_a_layer() -> None:
    assert len(MODULES) > 50
    loose = [name for name in MODULES if layer_name(name) == "ngc" and name != "ngc"]
    assert loose == []


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"ngc"}))
def test_imports_run_one_way(module: str) -> None:
    own = layer_name(module)
    for other in imports(MODULES[module], set(MODULES)):
        target = layer_name(other)
        if target == own or (module, target) in ALLOWED:
            continue
        assert LAYER_OF[target] < LAYER_OF[own], f"{module} imports {other}"


def test_allowed_exceptions_are_needed() -> None:
    for module, target in ALLOWED:
        assert target in {layer_name(other) for other in imports(MODULES[module], set(MODULES))}


def test_models_see_only_the_feature_table_and_batches() -> None:
    for name, path in MODULES.items():
        if name.startswith("ngc.models"):
            outside = {m for m in imports(path, set(MODULES)) if not m.startswith("ngc.models")}
            assert outside <= {"ngc.errors", "ngc.backends.schema", "ngc.backends.graphs"}, name
