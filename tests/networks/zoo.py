"""All hand-made networks by name."""

from __future__ import annotations

from tests.networks import convolutional, dense, norms
from tests.networks.base import NETWORKS

__all__ = ["NETWORKS", "convolutional", "dense", "norms"]
