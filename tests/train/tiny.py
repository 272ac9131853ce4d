"""A model of a few parameters, a set of networks that it can learn from, and recipes for both."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from ngc.backends.graphs import Edits, GraphBatch, Part
from ngc.backends.schema import SCALARS
from ngc.models.facts import Facts
from ngc.models.registry import MODELS, model
from ngc.train.inr_sets import InrSet
from ngc.train.recipe import read_recipe
from ngc.train.runner import run
from ngc.train.siren import Conventions, initial

CONVENTIONS = Conventions((2, 4, 3, 1), height=6, width=5)
NAME = "tiny_of_tests"

if NAME not in MODELS:

    @model(NAME)
    class Tiny(nn.Module):
        """Means over nodes and edges, a hidden layer with dropout; or everything times a factor."""

        def __init__(
            self,
            facts: Facts,
            *,
            predicts: str = "graph",
            outputs: int = 10,
            width: int = 8,
            dropout: float = 0.25,
            activation: Literal["relu", "tanh"] = "relu",
            sizes: tuple[int, ...] = (),
        ) -> None:
            super().__init__()
            self.edits = predicts == "edits"
            self.factor = nn.Parameter(torch.full((2,), -0.01))
            act = nn.ReLU() if activation == "relu" else nn.Tanh()
            self.net = nn.Sequential(
                nn.Linear(len(SCALARS) + 3, width),
                act,
                nn.Dropout(dropout),
                nn.Linear(width, outputs or 1),
            )

        def forward(self, batch: GraphBatch) -> Tensor | Edits:
            if self.edits:
                nodes = tuple(part.x * self.factor[0] for part in batch.parts)
                return Edits(nodes, tuple(part.edges * self.factor[1] for part in batch.parts))
            return self.net(batch.restored([self._summary(part) for part in batch.parts]))

        def _summary(self, part: Part) -> Tensor:
            last = part.x[:, part.structure.outputs, 0].mean(1, keepdim=True)
            edges = part.edges.flatten(1)
            moments = torch.stack([edges.mean(1), edges.std(1)], 1)
            return torch.cat([part.x.mean(1), last, moments], 1)


def tiny_set(count: int = 40, classes: int = 3, seed: int = 0) -> InrSet:
    """Initial SIRENs whose last bias tells the class; every fourth is a test network."""
    index = torch.arange(count)
    split = (index % 4 == 3).long()
    params = initial(CONVENTIONS, split.tolist(), (index + 1000 * seed).tolist())
    label = torch.from_numpy(np.random.default_rng(seed).integers(0, classes, count))
    label[:classes] = torch.arange(classes)
    params["seq.2.bias"] = params["seq.2.bias"] + label[:, None].float()
    return InrSet(params, label, index, split, torch.full((count,), 21.5), CONVENTIONS)


def write_tiny_set(path: Path, **changes: int) -> Path:
    tiny_set(**changes).save(path)
    return path


def tiny_recipe(folder: Path, text: dict[str, Any] | None = None, name: str = "tiny") -> Path:
    """A recipe file over a tiny set beside it; ``text`` changes its sections."""
    if not (folder / "set.safetensors").exists():
        write_tiny_set(folder / "set.safetensors")
    content: dict[str, Any] = {
        "task": {"name": "inr_classification"},
        "data": {"set": str(folder / "set.safetensors"), "validation": 8},
        "graph": {"reverse": "features"},
        "model": {"name": NAME},
        "train": {"epochs": 3, "batch_size": 8, "lr": 0.01, "warmup_steps": 2},
    }
    for section, values in (text or {}).items():
        known = content.get(section)
        content[section] = {**known, **values} if isinstance(known, dict) else values
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def started(folder: Path, text: dict[str, Any] | None = None, name: str = "run") -> dict[str, Any]:
    """Metrics of a run of a tiny recipe in the folder ``name``."""
    torch.set_num_threads(1)  # torch adds in an order that depends on their number
    return run(read_recipe(tiny_recipe(folder, text)), folder / name)


def history(path: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv in a run folder."""
    with (path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))
