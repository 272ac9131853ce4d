"""What a trained model does on test networks, as files: confusion, predictions, or edits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ngc.files import write_beside
from ngc.train.module import Training
from ngc.train.regression import Regression
from ngc.train.report import (
    draw_confusion,
    draw_pictures,
    draw_residuals,
    draw_scatter,
    save_picture,
    write_columns,
)
from ngc.train.tasks import Classification, Editing, edited_weights

SHOWN = 8  # test networks in a grid of pictures


def show_results(module: Training, folder: Path) -> None:
    """Files that show the test of a task."""
    match module.task:
        case Classification(classes=classes) if module.results:
            counts = module.results["confusion"].numpy()
            draw_confusion(counts, classes, folder / "confusion.png")
        case Regression() if module.results:
            show_predictions(module, folder)
        case Editing() as task:
            show_edits(module, task, folder)


def show_predictions(module: Training, folder: Path) -> None:
    """What was predicted and what is true for each test network: a table, a scatter plot, and the
    residuals of each family of architectures."""
    networks = module.networks
    number, predicted, true = (module.results[k].numpy() for k in ("number", "predicted", "true"))
    groups = [networks.groups[k] for k in number] if networks.groups else ["all"] * len(number)
    names = [networks.names[k] if networks.names else str(k) for k in number]
    columns: dict[str, Any] = {
        "network": names,
        "family": groups,
        "true": true,
        "predicted": predicted,
    }
    write_columns(columns, folder / "predictions.csv")
    draw_scatter(true, predicted, groups, folder / "scatter.png")
    draw_residuals(predicted - true, groups, folder / "residuals.png")


@torch.no_grad()
def show_edits(module: Training, task: Editing, folder: Path) -> None:
    """A grid of pictures before the edit, its target, and after; and each edited network, as ONNX
    and as a picture."""
    module.eval()
    batch = module.batch(module.networks.splits["test"][:SHOWN])
    after = edited_weights(module(batch.graphs), batch)
    before = [member.weights for member in batch.members]
    pictures = {
        "before": task.pictures(batch, before, module.networks),
        "target": task.targets[batch.numbers],
        "after": task.pictures(batch, after, module.networks),
    }
    arrays = {name: tensor.cpu().numpy() for name, tensor in pictures.items()}
    draw_pictures(arrays, folder / "pictures.png")
    edited = folder / "edited"
    edited.mkdir(exist_ok=True)
    for member, weights in zip(batch.members, after):
        for place, vector in zip(member.places.tolist(), weights):
            name = f"network-{int(batch.numbers[place])}"
            blob = member.family.onnx(vector).SerializeToString(deterministic=True)
            write_beside(edited / f"{name}.onnx", lambda file, blob=blob: file.write(blob))
            for stage in ("before", "target", "after"):
                save_picture(arrays[stage][place], edited / f"{name}-{stage}.png")
