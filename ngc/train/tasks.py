"""What a model is trained for: the loss, the metrics, and which of them chooses the best epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from ngc.backends.blocks import scatter_edits
from ngc.backends.graphs import Edits
from ngc.errors import NgcError, OptionError
from ngc.train.images import load_images
from ngc.train.inr_sets import InrSet
from ngc.train.networks import Batch, NetworkSet
from ngc.train.pictures import EDITS, Renderer
from ngc.train.siren import psnr


@dataclass(frozen=True)
class Goal:
    """The validation metric that says which epoch is best."""

    metric: str
    larger: bool

    def better(self, new: float, old: float | None) -> bool:
        return old is None or (new > old if self.larger else new < old)


class Meters(nn.Module):
    """Running metrics of one pass over a split, by name."""

    def __init__(self, **metrics: Metric) -> None:
        super().__init__()
        self.metrics = nn.ModuleDict(metrics)

    def __getitem__(self, name: str) -> Any:
        return self.metrics[name]

    def read(self) -> dict[str, float]:
        """The numbers, to six digits, after which all start anew. Over all devices together."""
        found = {
            name: float(f"{value.item():.6g}")
            for name, metric in self.metrics.items()
            if (value := metric.compute()).dim() == 0  # type: ignore[operator]
        }
        for metric in self.metrics.values():
            metric.reset()  # type: ignore[operator]
        return found


class Mean(Metric):
    """A weighted mean, NaN if a value is. That of torchmetrics leaves NaNs out, or the weights."""

    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: int) -> None:
        self.total += value.float() * weight
        self.weight += weight

    def compute(self) -> Tensor:
        return self.total / self.weight


class Task(ABC):
    """``predicts`` and ``outputs`` are what a model is built with (``ngc.models.registry``)."""

    predicts: str
    outputs: int
    goal: Goal

    @abstractmethod
    def meters(self, test: bool = False) -> Meters:
        """Fresh meters; ``test``: with those that only the test needs."""

    @abstractmethod
    def loss(self, prediction: Any, batch: Batch, networks: NetworkSet, meters: Meters) -> Tensor:
        """The mean loss of a batch; updates the meters."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move what the task itself holds."""

    def results(self, meters: Meters) -> dict[str, Tensor]:
        """What the meters of a test know besides numbers, on the CPU; for pictures of it."""
        return {}


class Classification(Task):
    """Cross-entropy and accuracy of the networks' labels."""

    predicts = "graph"
    goal = Goal("accuracy", larger=True)

    def __init__(self, networks: NetworkSet) -> None:
        self.classes = networks.classes
        self.outputs = len(networks.classes)

    def to(self, device: torch.device) -> None:
        pass  # labels are the set's

    def meters(self, test: bool = False) -> Meters:
        metrics: dict[str, Metric] = {
            "loss": Mean(),
            "accuracy": MulticlassAccuracy(self.outputs, average="micro", validate_args=False),
        }
        if test:
            metrics["confusion"] = MulticlassConfusionMatrix(self.outputs, validate_args=False)
        return Meters(**metrics)

    def loss(
        self, prediction: Tensor, batch: Batch, networks: NetworkSet, meters: Meters
    ) -> Tensor:
        label = networks.label[batch.numbers]
        loss = F.cross_entropy(prediction.float(), label)
        meters["loss"].update(loss.detach(), weight=len(label))
        meters["accuracy"].update(prediction.detach(), label)
        if "confusion" in meters.metrics:
            meters["confusion"].update(prediction.detach(), label)
        return loss

    def results(self, meters: Meters) -> dict[str, Tensor]:
        return {"confusion": meters["confusion"].compute().cpu()}


class Editing(Task):
    """Mean square error between the pictures of edited networks and given pictures.

    ``targets`` [N, channels, height, width] for each network of the set.
    """

    predicts = "edits"
    outputs = 0
    goal = Goal("mse", larger=False)

    def __init__(self, renderers: tuple[Renderer, ...], targets: Tensor) -> None:
        self.renderers, self.targets = renderers, targets

    def to(self, device: torch.device) -> None:
        self.targets = self.targets.to(device)

    def meters(self, test: bool = False) -> Meters:
        metrics: dict[str, Metric] = {"mse": Mean()}
        if test:
            metrics["mse_unedited"] = Mean()
        return Meters(**metrics)

    def loss(self, prediction: Edits, batch: Batch, networks: NetworkSet, meters: Meters) -> Tensor:
        targets = self.targets[batch.numbers]
        pictures = self.pictures(batch, edited_weights(prediction, batch), networks)
        loss = F.mse_loss(pictures, targets)
        meters["mse"].update(loss.detach(), weight=len(targets))
        if "mse_unedited" in meters.metrics:
            before = self.pictures(batch, [one.weights for one in batch.members], networks)
            meters["mse_unedited"].update(F.mse_loss(before, targets), weight=len(targets))
        return loss

    def pictures(self, batch: Batch, weights: list[Tensor], networks: NetworkSet) -> Tensor:
        """Pictures [b, channels, height, width] of the networks of a batch with these weights."""
        drawn = [
            self.renderers[networks.families.index(member.family)](vectors)
            for member, vectors in zip(batch.members, weights)
        ]
        return batch.graphs.restored(drawn)


def edited_weights(edits: Edits, batch: Batch) -> list[Tensor]:
    """Weights [n, slots] plus their predicted changes, for each architecture of a batch."""
    return [
        one.weights + scatter_edits(one.family.compilation.plan, nodes.float(), edges.float())
        for one, nodes, edges in zip(batch.members, edits.nodes, edits.edges)
    ]


def editing_of_inrs(
    inrs: InrSet, networks: NetworkSet, edit: str, target: str, images: str | None
) -> Editing:
    """The task of changing INRs so that they show an edited picture: that of the ``image`` they
    were fitted to, or their own ``rendering``, clamped to [0, 1]."""
    known = inrs.conventions
    renderers = tuple(
        Renderer(family, known.grid(), known.height, known.width) for family in networks.families
    )
    if target == "image":
        plain = fitted_images(inrs, images)
    else:
        plain = inrs.render().clamp(0, 1)
    return Editing(renderers, EDITS[edit](plain))


def fitted_images(inrs: InrSet, images: str | None) -> Tensor:
    """The image [N, channels, height, width] that each INR was fitted to.

    ``images``: a data set or a folder; by default what the set says.
    """
    name = images or str(inrs.origin.get("images", ""))
    if not name:
        raise OptionError(
            "the set does not say which images it was fitted to",
            where="data.images",
            hint="mnist, fashion_mnist, cifar10 or a folder; or task.target: rendering",
        )
    found = load_images(name)
    rows = found.places(inrs.split.tolist(), inrs.index.tolist())
    missing = rows.count(None)
    if missing:
        text = f"{missing} networks are of images that are not among them"
        raise NgcError(text, where=f"images {name}", hint="the images that the set was fitted to")
    targets = torch.from_numpy(found.select([row for row in rows if row is not None]).targets())
    known = inrs.conventions
    size = (known.channels, known.height, known.width)
    if tuple(targets.shape[1:]) != size:
        text = f"images of size {list(targets.shape[1:])}, the networks draw {list(size)}"
        raise NgcError(text, where=f"images {name}")
    _require_fit(inrs, targets, name)
    return targets


def _require_fit(inrs: InrSet, targets: Tensor, name: str) -> None:
    """Refuse images that the networks were not fitted to, such as those of another data set."""
    some = slice(0, 64)
    found = psnr(inrs.select(some).render(), targets[some]).median().item()
    stated = inrs.psnr[some].median().item()
    if stated - found > 3:  # dB; half precision and clamping cost far less
        text = f"the networks show these images with {found:.1f} dB, the set says {stated:.1f}"
        raise NgcError(text, where=f"images {name}", hint="data.images: those it was fitted to")
