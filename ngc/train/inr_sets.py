"""Sets of INRs: many SIRENs of one architecture with labels and splits, in one safetensors file.

The file holds ``seq.K.weight [N, out, in]``, ``seq.K.bias [N, out]``, ``label``, ``index``,
``split`` and ``psnr`` [N]; its metadata has one entry ``ngc``, a JSON object with the conventions,
the command that made the set, and the versions of what it ran on. Reading it runs no code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from ngc.errors import NgcError, OptionError
from ngc.files import write_beside
from ngc.train.images import SPLITS
from ngc.train.siren import Conventions, Params, render, siren_onnx

if TYPE_CHECKING:
    import onnx

FORMAT = 1
MAX_ENTRIES = 2**31  # of all tensors of a file together
EMBEDDED = Path(__file__).parent / "embedded" / "inr_mnist.safetensors"
# What is told of each network, and how narrow it is stored.
COLUMNS = {
    "label": torch.uint8,
    "index": torch.int32,
    "split": torch.uint8,
    "psnr": torch.float32,
}


@dataclass(frozen=True, eq=False)
class InrSet:
    """params ``{name: float32 [N, ...]}``; label, index, split (0 train, 1 test, 2 validation)
    int64 [N]; psnr in dB float32 [N], NaN where it is not known. ``origin`` is what else the
    metadata say: ``images``, ``command``, ``versions``, ..."""

    params: Params
    label: Tensor
    index: Tensor
    split: Tensor
    psnr: Tensor
    conventions: Conventions
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.label)

    def select(self, numbers: Tensor | Sequence[int] | slice) -> InrSet:
        """Some of the networks; ``numbers`` are positions, a mask, or a slice."""
        at = numbers if isinstance(numbers, slice | Tensor) else torch.tensor(list(numbers))
        if isinstance(at, Tensor) and at.dtype != torch.bool:
            at = at.long()
        return InrSet(
            {name: tensor[at] for name, tensor in self.params.items()},
            self.label[at],
            self.index[at],
            self.split[at],
            self.psnr[at],
            self.conventions,
            self.origin,
        )

    def of_split(self, name: str) -> InrSet:
        """The networks of "train", "test" or "validation"."""
        return self.select(self.split == SPLITS[name])

    def render(self, params: Params | None = None) -> Tensor:
        """Images [N, channels, height, width] of all networks, or of others, not clamped."""
        return render(self.conventions, self.params if params is None else params)

    def onnx(self, number: int) -> onnx.ModelProto:
        """Network ``number``, ready for ``ngc.compile``."""
        if not 0 <= number < len(self):
            found = f"there is no number {number}, the set has {len(self)}"
            raise OptionError(found, where="INR set", hint=f"0 to {len(self) - 1}")
        params = {name: tensor[number] for name, tensor in self.params.items()}
        return siren_onnx(self.conventions, params)

    def statistics(self) -> list[LayerStatistics]:
        """One row a layer."""
        return [
            LayerStatistics.of(self.params[weight], self.params[bias])
            for weight, bias in zip(*[iter(self.conventions.shapes)] * 2)
        ]

    def save(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the file; ``dtype`` is that of the parameters, float32 or float16."""
        from safetensors.torch import save

        check(self, str(path))
        tensors = {name: tensor.to(dtype).contiguous() for name, tensor in self.params.items()}
        for name, narrow in COLUMNS.items():
            tensors[name] = _narrowed(getattr(self, name), narrow)
        # One entry: several would be written in an order that changes from run to run.
        told = {**self.origin, "format": FORMAT, "conventions": self.conventions.to_dict()}
        blob = save(tensors, {"ngc": json.dumps(told, sort_keys=True)})
        write_beside(path, lambda file: file.write(blob))


@dataclass(frozen=True, slots=True)
class LayerStatistics:
    """Mean and standard deviation of all weights, and of all biases, of one layer."""

    weight_mean: float
    weight_std: float
    bias_mean: float
    bias_std: float

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor) -> LayerStatistics:
        weight, bias = weight.double(), bias.double()
        figures = (x.item() for t in (weight, bias) for x in (t.mean(), t.std(unbiased=False)))
        return cls(*figures)


# (weight std, bias std) of each layer of the published sets of Navon et al. 2023 (DWSNets).
PUBLISHED_STATISTICS = {
    "mnist": ((0.0628, 0.0213), (0.0183, 0.0110), (0.1179, 0.0999)),
    "fashion_mnist": ((0.0782, 0.0286), (0.0324, 0.0167), (0.1346, 0.0960)),
}


def embedded() -> InrSet:
    """The set that comes with ngc: 2,000 training and 500 test images of MNIST, float16."""
    return load(EMBEDDED)


def load(path: Path | str) -> InrSet:
    """Read a set, checked. A file without our metadata has the default conventions."""
    path = Path(path)
    where = str(path)
    if not path.is_file():
        raise NgcError(
            "there is no such file",
            where=where,
            hint="make one: ngc data inr (--data-dir or NGC_DATA)",
        )
    tensors, metadata = _read(path)
    told = _told(metadata, where)
    if tensors.get("seq.0.weight", torch.empty(0)).dim() != 3:
        raise NgcError("no INR set: no seq.0.weight [N,out,in] in it", where=where)
    conventions = Conventions()
    if "conventions" in told:
        conventions = Conventions.from_dict(told["conventions"], where)
    _check_tensors(tensors, conventions, where)
    found = InrSet(
        {name: tensors[name].float() for name in conventions.shapes},
        tensors["label"].long(),
        tensors["index"].long(),
        tensors["split"].long(),
        tensors["psnr"].float(),
        conventions,
        {key: value for key, value in told.items() if key not in ("format", "conventions")},
    )
    check(found, where)
    return found


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            entries = sum(int(np.prod(file.get_slice(name).get_shape())) for name in names)
            if entries > MAX_ENTRIES:
                raise NgcError(f"{entries:,} entries, at most {MAX_ENTRIES:,}", where=str(path))
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise NgcError(f"not a safetensors file: {error}", where=str(path)) from error


def _told(metadata: Mapping[str, str], where: str) -> dict[str, Any]:
    """What the metadata say, those of other programs as they are."""
    told: Any = dict(metadata)
    if "ngc" in metadata:
        try:
            told = json.loads(metadata["ngc"])
        except ValueError as error:
            raise NgcError(f"its metadata are not JSON: {error}", where=where) from error
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            found = told.get("format") if isinstance(told, dict) else told
            message = f"it has format {found!r}, this ngc reads {FORMAT}"
            raise NgcError(message, where=where)
    if not isinstance(told.get("conventions"), dict) and (
        "ngc" in metadata or "conventions" in told
    ):
        raise NgcError("its metadata do not tell the conventions", where=where)
    return told


def _check_tensors(tensors: Params, conventions: Conventions, where: str) -> None:
    """Names and types, before anything is converted."""
    expected = {*COLUMNS, *conventions.shapes}
    missing, extra = sorted(expected - set(tensors)), sorted(set(tensors) - expected)
    if missing:
        raise NgcError(f"not in it: {', '.join(missing)}", where=where)
    if extra:
        message = f"tensors that the widths do not call for: {', '.join(extra)}"
        raise NgcError(message, where=where)
    for name, tensor in tensors.items():
        fractions = name == "psnr" or name in conventions.shapes
        if tensor.is_floating_point() != fractions or tensor.is_complex() or not tensor.dim():
            raise NgcError(f"{name} is {tensor.dtype} {list(tensor.shape)}", where=where)


def check(found: InrSet, where: str) -> None:
    """Refuse a set that contradicts itself."""
    fail = partial(_refused, where)
    shapes = found.conventions.shapes
    if set(found.params) != set(shapes):
        fail(f"it has {', '.join(found.params)}, expected {', '.join(shapes)}")
    for name, shape in shapes.items():
        tensor, expected = found.params[name], (len(found), *shape)
        if tuple(tensor.shape) != expected:
            fail(f"{name} has shape {list(tensor.shape)}, expected {list(expected)}")
        if not tensor.isfinite().all():
            fail(f"{name} has entries that are no numbers")
    for name in COLUMNS:
        if tuple(getattr(found, name).shape) != (len(found),):
            fail(f"{name} has shape {list(getattr(found, name).shape)}, expected [{len(found)}]")
    if not len(found):
        fail("it holds no network")
    for name in ("label", "index", "split"):
        if getattr(found, name).min() < 0:
            fail(f"{name} has negative entries")
    if found.split.max() >= len(SPLITS):
        fail(f"split has {int(found.split.max())}, known are 0 train, 1 test, 2 validation")


def _refused(where: str, text: str) -> NoReturn:
    raise NgcError(text, where=where)


def _narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Stored narrow where that loses nothing, else as it is."""
    narrow = tensor.to(dtype)
    return (
        narrow
        if torch.equal(narrow.to(tensor.dtype), tensor) or dtype.is_floating_point
        else tensor
    )
