"""The Small CNN Zoo as published (Unterthiner et al. 2020): a matrix with a network in each row.

weights.npy              [networks, parameters]; read through a memory map
metrics.csv (or .csv.gz) a row each: config.*, modeldir, step, test_accuracy, ...
layout.csv               which numbers of a row are which tensor (``small_cnn_layout.py``)
"""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TextIO

import numpy as np

from ngc.errors import ModelError, NgcError
from ngc.zoo.compiling import Compiler
from ngc.zoo.importers.base import Importer, Member, Network
from ngc.zoo.importers.small_cnn_layout import ACTIVATIONS, Layout, read_layout
from ngc.zoo.importers.tables import check_meaning, digest_of_file

WEIGHTS, LAYOUT, METRICS = "weights.npy", "layout.csv", ("metrics.csv", "metrics.csv.gz")
SIZES = {"mnist": 28, "fashion_mnist": 28, "cifar10": 32, "svhn_cropped": 32}  # of the images
SIZE, STRIDE = 32, 2  # where the metrics do not say
MEANT = {"test_accuracy": "accuracy", "modeldir": "run"}  # their columns -> ours


@dataclass(frozen=True)
class SmallCnn(Importer):
    kind: ClassVar[str] = "small-cnn"

    source: Path

    @cached_property
    def layout(self) -> Layout:
        return read_layout(self.source / LAYOUT)

    @cached_property
    def weights(self) -> np.ndarray:
        path = self.source / WEIGHTS
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise NgcError(f"not a matrix of numpy ({error})", where=str(path)) from error
        if found.ndim != 2 or found.dtype.kind != "f" or found.shape[1] != self.layout.width:
            raise NgcError(
                f"it is {found.dtype} {list(found.shape)}; the layout has {self.layout.width:,} "
                "numbers for a network",
                where=str(path),
            )
        return found

    @cached_property
    def metrics(self) -> Path:
        for name in METRICS:
            if (self.source / name).is_file():
                return self.source / name
        raise NgcError(f"there is no {METRICS[0]}", where=str(self.source))

    def names(self) -> Sequence[str]:
        rows = sum(1 for _ in self._told(0))
        if rows != len(self.weights):
            what = f"{rows:,} rows, but {len(self.weights):,} networks in {WEIGHTS}"
            raise NgcError(what, where=str(self.metrics))
        return [f"{number:06d}" for number in range(rows)]

    def members(self, start: int, stop: int) -> list[Member]:
        rows = zip(range(start, stop), self._told(start))
        return [Member(f"{number:06d}", told) for number, told in rows]

    def _told(self, start: int) -> Iterator[dict[str, str]]:
        """What the metrics say of the networks from ``start`` on."""
        with _opened(self.metrics) as file:
            try:
                reader = csv.reader(file)
                columns = next(reader, [])
                for number, row in enumerate(reader):
                    if number < start:
                        continue
                    where = f"{self.metrics}, network {number}"
                    if len(row) != len(columns):
                        raise NgcError(f"{len(row)} fields, not {len(columns)}", where=where)
                    yield _renamed(dict(zip(columns, row)), where)
            except (csv.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
                raise NgcError(f"not a table ({error})", where=str(self.metrics)) from error

    def read(self, member: Member, compiler: Compiler) -> Network:
        told = member.metadata
        activation = told.get("config.activation", "")
        if activation not in ACTIVATIONS:
            hint = f"one of {', '.join(ACTIVATIONS)}"
            raise ModelError(f"config.activation is {activation!r}", hint=hint)
        if told.get("config.dnn_architecture", "cnn") != "cnn":
            raise ModelError(f"config.dnn_architecture is {told['config.dnn_architecture']!r}")
        size = SIZES.get(told.get("config.dataset", ""), SIZE)
        stride = int(told.get("config.cnn_stride") or STRIDE)
        key = (self.kind, activation, size, stride)
        digest, order = compiler.kept(key, lambda: self._architecture(compiler, *key[1:]))
        row = compiler.stored(self.weights[int(member.name)][order])
        return Network(digest, row, {**told, "family": activation})

    def _architecture(
        self, compiler: Compiler, activation: str, size: int, stride: int
    ) -> tuple[str, np.ndarray]:
        """The hash of an architecture, and which number of a published row each of its parameters
        is."""
        numbers = np.arange(self.layout.width)
        some = np.random.default_rng(0).normal(size=self.layout.width)
        compilation = compiler.compile(self.layout.onnx(some, activation, size, stride))
        tensors = self.layout.tensors(numbers)
        params = compilation.program.params
        order = np.concatenate([tensors[param.name].reshape(-1) for param in params])
        assert len(order) == len(numbers)
        return compiler.put(compilation), order

    def member_bytes(self) -> int:
        return self.layout.width * self.weights.itemsize

    def settings(self) -> dict[str, str]:
        return {
            "weights": f"{self.weights.dtype} {list(self.weights.shape)}",
            "layout": digest_of_file(self.source / LAYOUT),
            "metrics": digest_of_file(self.metrics),
        }

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source}


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", newline="")
    return path.open(newline="")


def _renamed(told: dict[str, str], where: str) -> dict[str, str]:
    """With our names for columns that have a meaning."""
    told.pop("", None)  # the index of a data frame
    found = {MEANT.get(name, name): value for name, value in told.items()}
    check_meaning(found, where)
    if not found.get("run"):  # networks of one run have one configuration
        config = "|".join(f"{k}={v}" for k, v in sorted(told.items()) if k.startswith("config."))
        found["run"] = hashlib.sha256(config.encode()).hexdigest()[:16]
    return found
