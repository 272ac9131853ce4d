"""Every network is exported once in a test session."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.networks.export import export
from tests.networks.zoo import NETWORKS

Files = Callable[[str], dict[str, Path]]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Paths of the files of a network, by exporter."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # the workers' common one
    return lambda name: export(NETWORKS[name], folder / "networks" / name)
