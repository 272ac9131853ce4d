"""ngc: trained networks as neural graphs, proven by running them.

The names below are loaded when first used, so that ``import ngc`` and ``ngc --help`` are quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ngc.backends.pyg import NeuralGraph, bind, lift
    from ngc.backends.torch_exec import Executor, pack, unpack
    from ngc.budget import Budget
    from ngc.compiler import Compilation, compile
    from ngc.errors import NgcError
    from ngc.files import GraphFile, decompile, load, save
    from ngc.options import Options
    from ngc.plan import Plan
    from ngc.proof import Verification, verify
    from ngc.symmetry import symmetries

_HOME = {
    "NeuralGraph": "ngc.backends.pyg",
    "bind": "ngc.backends.pyg",
    "lift": "ngc.backends.pyg",
    "Executor": "ngc.backends.torch_exec",
    "pack": "ngc.backends.torch_exec",
    "unpack": "ngc.backends.torch_exec",
    "Budget": "ngc.budget",
    "Compilation": "ngc.compiler",
    "compile": "ngc.compiler",
    "NgcError": "ngc.errors",
    "GraphFile": "ngc.files",
    "decompile": "ngc.files",
    "load": "ngc.files",
    "save": "ngc.files",
    "Options": "ngc.options",
    "Plan": "ngc.plan",
    "symmetries": "ngc.symmetry",
    "Verification": "ngc.proof",
    "verify": "ngc.proof",
}

__all__ = [
    "Budget", "Compilation", "Executor", "GraphFile", "NeuralGraph", "NgcError", "Options", "Plan",
    "Verification", "bind", "compile", "decompile", "lift", "load", "pack", "save", "symmetries",
    "unpack", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ngc' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
