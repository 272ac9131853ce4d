"""SIRENs: networks that are one image each, and every convention that such a network depends on.

    h_0 = (y, x);  h_k = sin(omega (W_k h_{k-1} + b_k));  pixel = W_L h_{L-1} + b_L + offset

Parameters of a stack of networks are ``{"seq.K.weight": [B, out, in], "seq.K.bias": [B, out]}``,
K = 0, 1, ... (the names of the published sets). Sitzmann et al. 2020, "Implicit Neural
Representations with Periodic Activation Functions".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ngc.errors import OptionError

if TYPE_CHECKING:
    import onnx

ROW_FIRST = "linspace(-1,1,n) row first"  # a point is (row, column), y from -1 at the top
COLUMN_FIRST = "linspace(-1,1,n) column first"  # a point is (column, row)
RANDOM, SHARED = "random", "shared"
PUBLISHED, SIREN, UNKNOWN = "published", "siren", "unknown"

CHOICES: dict[str, tuple[str, ...]] = {
    "coordinates": (ROW_FIRST, COLUMN_FIRST),
    "init": (RANDOM, SHARED, UNKNOWN),
    "init_scheme": (PUBLISHED, SIREN, UNKNOWN),
}
OPSET, IR_VERSION = 17, 8  # of ``siren_onnx``: read by every onnxruntime since 1.12

Params = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Conventions:
    """What turns weights into an image, and what the weights started from.

    widths: of all layers, inputs and outputs included.
    omega: factor of every sine's argument.
    offset: added to the output, so that zero weights are mid-grey.
    coordinates: range of the grid, and which of its axes the first input is.
    height, width: of the image; pixels lie in [0, 1].
    init: ``random`` for each image, or ``shared`` by all images of a set; ``unknown`` of imports.
    init_scheme: ``published`` (sine layers uniform +-sqrt(6/fan_in)/omega, the first one too,
        biases 0, last layer as in torch, +-1/sqrt(fan_in)) or ``siren`` (first layer +-1/fan_in,
        others +-sqrt(6/fan_in)/omega, the last one too, biases +-1/sqrt(fan_in)).
    seed: of the initial weights.
    """

    widths: tuple[int, ...] = (2, 32, 32, 1)
    omega: float = 30.0
    offset: float = 0.5
    coordinates: str = ROW_FIRST
    height: int = 28
    width: int = 28
    init: str = RANDOM
    init_scheme: str = PUBLISHED
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise _wrong(name, getattr(self, name), f"one of {', '.join(allowed)}")
        whole = all(type(n) is int and n > 0 for n in self.widths)
        if not whole or len(self.widths) < 3 or self.widths[0] != 2 or self.channels not in (1, 3):
            expected = "2, at least one hidden width, then 1 (grey) or 3 (colour)"
            raise _wrong("widths", self.widths, expected)
        for name in ("height", "width"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 2:
                raise _wrong(name, getattr(self, name), "a whole number from 2")
        if type(self.seed) is not int or self.seed < 0:
            raise _wrong("seed", self.seed, "a whole number from 0")
        for name in ("omega", "offset"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not math.isfinite(value):
                raise _wrong(name, value, "a number")
        if self.omega <= 0:
            raise _wrong("omega", self.omega, "a number above 0")

    @property
    def channels(self) -> int:
        return self.widths[-1]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter of one network, in order."""
        found: dict[str, tuple[int, ...]] = {}
        for k, (fan_in, fan_out) in enumerate(itertools.pairwise(self.widths)):
            found[weight_name(k)], found[bias_name(k)] = (fan_out, fan_in), (fan_out,)
        return found

    def grid(self, device: torch.device | str = "cpu") -> Tensor:
        """The points of all pixels, [height * width, 2], row after row of the image."""
        rows = torch.linspace(-1, 1, self.height, device=device)
        columns = torch.linspace(-1, 1, self.width, device=device)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        axes = (y, x) if self.coordinates == ROW_FIRST else (x, y)
        return torch.stack(axes, -1).reshape(-1, 2)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "widths": list(self.widths)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "") -> Conventions:
        """The inverse of ``to_dict``; names that are not known, or missing, are errors."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            odd = ", ".join(sorted(names ^ set(values)))
            raise OptionError(f"conventions missing or not known: {odd}", where=where)
        if not isinstance(values["widths"], list | tuple):
            raise _wrong("widths", values["widths"], "a list of numbers")
        return cls(**values)


def _wrong(name: str, value: object, expected: str) -> OptionError:
    return OptionError(f"{name} is {value!r}", where="conventions", hint=expected)


def weight_name(k: int) -> str:
    return f"seq.{k}.weight"


def bias_name(k: int) -> str:
    return f"seq.{k}.bias"


def initial(conventions: Conventions, splits: Sequence[int], indices: Sequence[int]) -> Params:
    """Initial parameters of the networks of some images, each known by its split and number.

    They depend on these two and the seed alone, not on the images fitted beside. Drawn by numpy,
    so the same on every device.
    """
    keys = (
        [(conventions.seed, int(split), int(index)) for split, index in zip(splits, indices)]
        if conventions.init == RANDOM
        else [(conventions.seed,)] * len(indices)
    )
    bounds = _bounds(conventions)
    sizes = [math.prod(shape) for shape in conventions.shapes.values()]
    flat = np.stack([np.random.default_rng(key).uniform(-1, 1, sum(sizes)) for key in keys])
    pieces = np.split(flat.astype(np.float32), np.cumsum(sizes)[:-1], axis=1)
    return {
        name: torch.from_numpy(piece * np.float32(bounds[name])).unflatten(1, shape)
        for piece, (name, shape) in zip(pieces, conventions.shapes.items())
    }


def _bounds(conventions: Conventions) -> dict[str, float]:
    """Each parameter starts uniform within +- its bound."""
    if UNKNOWN in (conventions.init, conventions.init_scheme):
        raise OptionError("an initialisation that is unknown cannot be drawn from", where="init")
    published = conventions.init_scheme == PUBLISHED
    last = len(conventions.widths) - 2
    found = {}
    for k, fan_in in enumerate(conventions.widths[:-1]):
        weight, bias = math.sqrt(6 / fan_in) / conventions.omega, 1 / math.sqrt(fan_in)
        if published:
            weight, bias = (1 / math.sqrt(fan_in), bias) if k == last else (weight, 0.0)
        elif k == 0:
            weight = 1 / fan_in
        found[weight_name(k)], found[bias_name(k)] = weight, bias
    return found


def evaluate(conventions: Conventions, params: Mapping[str, Tensor], points: Tensor) -> Tensor:
    """Values [B, n, channels] of B networks at points [n, 2]; differentiable in both."""
    last = len(conventions.widths) - 2
    h = points.mT.expand(len(params[weight_name(0)]), -1, -1)  # [B, features, n]
    for k in range(last + 1):
        h = torch.baddbmm(params[bias_name(k)].unsqueeze(-1), params[weight_name(k)], h)
        h = h + conventions.offset if k == last else torch.sin(conventions.omega * h)
    return h.mT


def render(conventions: Conventions, params: Mapping[str, Tensor], batch: int = 256) -> Tensor:
    """Images [B, channels, height, width] of B networks; not clamped to [0, 1]; differentiable."""
    grid = conventions.grid(params[weight_name(0)].device)
    count = len(params[weight_name(0)])
    pieces = [
        evaluate(conventions, {name: p[k : k + batch] for name, p in params.items()}, grid)
        for k in range(0, count, batch)
    ]
    pixels = torch.cat(pieces) if pieces else grid.new_empty(0, len(grid), conventions.channels)
    return pixels.mT.unflatten(-1, (conventions.height, conventions.width))


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, one number an image: -10 log10 of the mean square error of
    pixels in [0, 1], before clamping."""
    error = (images.double() - targets.double()).square().flatten(1).mean(1)
    return (-10 * torch.log10(error.clamp(min=1e-20))).float()


def siren_onnx(conventions: Conventions, params: Mapping[str, Tensor]) -> onnx.ModelProto:
    """One network as ONNX: "coordinates" [n, 2] -> "pixels" [n, channels], n open."""
    from onnx import TensorProto, helper, numpy_helper

    last = len(conventions.widths) - 2
    # Constants, for an initializer would be a parameter.
    constants = {"omega": conventions.omega, "offset": conventions.offset}
    tensors = {name: params[name].detach().cpu().float().numpy() for name in conventions.shapes}
    nodes = [
        helper.make_node("Constant", [], [name], name, value_float=float(number))
        for name, number in constants.items()
    ]
    value = "coordinates"
    for k in range(last + 1):
        inputs = [value, weight_name(k), bias_name(k)]
        nodes.append(helper.make_node("Gemm", inputs, [f"affine_{k}"], f"seq.{k}", transB=1))
        if k == last:
            nodes.append(helper.make_node("Add", [f"affine_{k}", "offset"], ["pixels"], "add"))
            continue
        value = f"sine_{k}"
        nodes.append(helper.make_node("Mul", [f"affine_{k}", "omega"], [f"scaled_{k}"], f"mul.{k}"))
        nodes.append(helper.make_node("Sin", [f"scaled_{k}"], [value], f"sin.{k}"))
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "siren",
        [helper.make_tensor_value_info("coordinates", kind, ["n", 2])],
        [helper.make_tensor_value_info("pixels", kind, ["n", conventions.channels])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="ngc")
