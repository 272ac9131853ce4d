"""A small zoo of classifiers of several architectures, whose weights tell their accuracy."""

from __future__ import annotations

import csv
from pathlib import Path

import onnx

from ngc.train.networks import Family
from ngc.zoo import Zoo, import_zoo
from tests.models.classifiers import Layer, classifier, classifier_weights

ARCHITECTURES = {
    "plain": (Layer(4), Layer(3)),
    "large kernel": (Layer(3, 5, "tanh"),),
    "skip": (Layer(4, 3, "gelu"), Layer(3, 1), Layer(4, 3, skip=0)),
}
STEPS = 2  # checkpoints of a run


def write_networks(folder: Path, runs: int = 6) -> Path:
    """ONNX files RUN/STEP.onnx of each architecture, and table.csv. The larger the last bias, the
    better is the network."""
    rows = []
    for number, (name, layers) in enumerate(ARCHITECTURES.items()):
        network = classifier(*layers, reverse="none", kernel=5)
        family = Family(network, classifier_weights(network, runs * STEPS, seed=number))
        for k, weights in enumerate(family.weights):
            run, step = f"{name}-{k // STEPS}", k % STEPS
            accuracy = 0.1 + 0.8 * (k + number) / (runs * STEPS + 2)
            changed = weights.clone()
            changed[-4:] = 4 * accuracy  # the last bias
            file = folder / run / f"{step}.onnx"
            file.parent.mkdir(parents=True, exist_ok=True)
            onnx.save(family.onnx(changed), file)
            rows.append([f"{run}/{step}.onnx", f"{accuracy:.4f}", run, step, name])
    with (folder / "table.csv").open("w", newline="") as file_:
        csv.writer(file_).writerows([["name", "accuracy", "run", "step", "family"], *rows])
    return folder


def small_zoo(folder: Path, runs: int = 6) -> Zoo:
    """The zoo FOLDER/zoo, of three architectures with so many runs each."""
    source = write_networks(folder / "networks", runs)
    return import_zoo(source, folder / "zoo", table=source / "table.csv", shard=8)
