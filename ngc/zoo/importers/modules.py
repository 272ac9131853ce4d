"""Checkpoints of the CNN Wild Park, the published one and ours: a configuration -> its networks.

Each configuration is compiled once, as a module like anybody's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ngc.compiler import Compilation
from ngc.errors import ModelError
from ngc.zoo import wild_park
from ngc.zoo.compiling import Compiler


def row_of(
    config: wild_park.Config, tensors: Mapping[str, np.ndarray], compiler: Compiler
) -> tuple[str, np.ndarray]:
    """Architecture and row of a network with these tensors, named as its module names them."""
    key = json.dumps(config.to_dict(), sort_keys=True)
    compiled = compiler.recent(key, lambda: _compiled(config, compiler))
    return compiler.checkpoint(compiled, tensors, "checkpoint")


def _compiled(config: wild_park.Config, compiler: Compiler) -> tuple[Compilation, str]:
    return compiler.compiled(wild_park.network(config), torch.zeros(1, *config.inputs))


def family_of(config: wild_park.Config) -> str:
    """A word for plots of residuals."""
    return f"{len(config.layers)} layers"


def config_of(values: Mapping[str, Any]) -> wild_park.Config:
    """Of ours, as ``to_dict`` wrote it."""
    try:
        return wild_park.Config.from_dict(values)
    except (TypeError, AttributeError) as error:
        raise ModelError(f"its architecture cannot be read ({error})") from error
