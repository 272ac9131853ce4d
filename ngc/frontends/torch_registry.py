"""What torch's exporter knows of operators, kept between exports.

It reads the source of some 500 functions for every model that it exports, which takes longer than
exporting a small model. A torch in which that is done elsewhere exports as ever, only slower.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

# Their operators are known to the exporter once they are imported.
EXTENSIONS = ("torchvision", "torchaudio")

_made: dict[Any, Any] = {}


@contextlib.contextmanager
def registry_kept() -> Iterator[None]:
    """While this is open, the exporter's table of operators is made once in a process."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        make = ONNXRegistry.from_torchlib
    except (ImportError, AttributeError):
        yield
        return

    def kept(*args: Any, **kwargs: Any) -> Any:
        loaded = tuple(name for name in EXTENSIONS if name in sys.modules)
        key = (args, tuple(sorted(kwargs.items())), loaded)
        if key not in _made:
            _made[key] = make(*args, **kwargs)
        found = copy.copy(_made[key])
        found.functions = {target: list(metas) for target, metas in found.functions.items()}
        return found

    with mock.patch.object(ONNXRegistry, "from_torchlib", staticmethod(kept)):
        yield
