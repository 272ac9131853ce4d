"""graph.pt: neural graphs on disk, with what ``decompile`` needs.

The file is a dictionary of tensors, numbers and strings, so it loads with ``weights_only=True``:
reading it runs no code. It is written beside its place and renamed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from ngc.backends.onnx_export import fill_skeleton, make_skeleton
from ngc.backends.pyg import NeuralGraph, bind, lift
from ngc.backends.state_dict import StateDict
from ngc.backends.torch_exec import unpack
from ngc.errors import LiftError, ModelError, NgcError
from ngc.ir.program import Program
from ngc.ir.text import parse_program, print_program
from ngc.options import Options
from ngc.plan import Plan

if TYPE_CHECKING:
    from ngc.compiler import Compilation

FORMAT = 1

MADE_BY = "one that it wrote: ngc compile MODEL -o graph.pt"

# What graphs of files from before an option were compiled with.
BEFORE = {"attention": "explicit", "recurrent": "unrolled"}


@dataclass(frozen=True, eq=False)
class Architecture:
    """What the graphs of one architecture in a file share."""

    program: Program
    options: Options
    skeleton: onnx.ModelProto
    max_elements: int

    def to_dict(self) -> dict[str, Any]:
        """As it is stored: text, numbers, a tensor."""
        blob = self.skeleton.SerializeToString(deterministic=True)
        return {
            "program": print_program(self.program),
            "options": asdict(self.options),
            "skeleton": torch.from_numpy(np.frombuffer(blob, dtype=np.uint8).copy()),
            "max_elements": self.max_elements,
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Architecture:
        """The inverse of ``to_dict``."""
        skeleton = onnx.ModelProto()
        skeleton.ParseFromString(entry["skeleton"].numpy().tobytes())
        return cls(
            parse_program(entry["program"]),
            Options().changed({**BEFORE, **entry["options"]}),
            skeleton,
            int(entry["max_elements"]),
        )


@dataclass(frozen=True, eq=False)
class GraphFile:
    """The contents of graph.pt: graphs, and for each the number of its architecture."""

    architectures: tuple[Architecture, ...]
    graphs: tuple[NeuralGraph, ...]
    architecture_of: tuple[int, ...]
    sources: tuple[str, ...]
    rests: tuple[torch.Tensor, ...]
    tensors: tuple[StateDict | None, ...]

    def __len__(self) -> int:
        return len(self.graphs)

    def plan(self, number: int = 0) -> Plan:
        """The plan of graph ``number``, compiled anew from the stored program."""
        from ngc.budget import Budget
        from ngc.compiler import make_plan

        one = self.architectures[self.architecture_of[number]]
        return make_plan(one.program, one.options, Budget(max_elements=one.max_elements))

    def weights(self, number: int = 0, graph: NeuralGraph | None = None) -> torch.Tensor:
        """Weights [slots] lifted from graph ``number``, or from an edited copy of it."""
        plan = self.plan(number)
        weights = lift(plan, self.graphs[number] if graph is None else graph)
        weights[torch.from_numpy(~plan.covered())] = self.rests[number].to(weights.dtype)
        return weights

    def model(self, number: int = 0, graph: NeuralGraph | None = None) -> onnx.ModelProto:
        """The ONNX network of graph ``number``, or of an edited copy of it."""
        one = self.architectures[self.architecture_of[number]]
        return fill_skeleton(one.skeleton, unpack(one.program, self.weights(number, graph)))

    def state_dict(
        self, number: int = 0, graph: NeuralGraph | None = None
    ) -> dict[str, torch.Tensor]:
        """Every tensor of graph ``number``, or of an edited copy of it, by its name in the
        framework or in the ONNX file."""
        tensors = self.tensors[number]
        if tensors is None:
            raise LiftError(
                "the graph is of a time when ngc kept no names of ONNX files",
                where=self.sources[number],
                hint="decompile it to .onnx, where they are",
            )
        program = self.architectures[self.architecture_of[number]].program
        return tensors.write(program, self.weights(number, graph))


def save(compilations: Sequence[Compilation], path: str | Path) -> None:
    """Write the graphs of some compilations into one file."""
    architectures: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}
    graphs = []
    for one in compilations:
        skeleton = make_skeleton(one.source.proto, one.program.params, one.arrays)
        blob = skeleton.SerializeToString(deterministic=True)
        key = f"{one.plan.hash} {hash(blob)}"
        if key not in numbers:
            numbers[key] = len(architectures)
            found = Architecture(one.program, one.plan.options, skeleton, one.max_elements)
            architectures.append(found.to_dict())
        graphs.append(
            {
                "architecture": numbers[key],
                "source": one.source.name,
                "features": bind(one.plan, one.weights).to_dict(),
                # Entries of parameters that lie on no node or edge.
                "rest": one.weights[torch.from_numpy(~one.plan.covered())],
                "tensors": one.tensors.to_dict(),
            }
        )
    content = {"format": FORMAT, "architectures": architectures, "graphs": graphs}
    write_beside(Path(path), lambda file: torch.save(content, file))


def write_beside(path: Path, write: Any) -> None:
    """Write a file so that it is either whole or not there."""
    if not path.parent.is_dir():
        raise NgcError("there is no such folder", where=str(path.parent))
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: str | Path) -> GraphFile:
    """Read graph.pt. Runs no code from the file."""
    path = Path(path)
    if not path.is_file():
        raise ModelError("there is no such file", where=str(path))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's, zip's and unpickling errors; torch advises to run code
        if isinstance(error, OSError) and error.strerror:
            raise ModelError(f"cannot read it: {error.strerror}", where=str(path)) from error
        raise ModelError("not a file that ngc wrote", where=str(path), hint=MADE_BY) from error
    if not isinstance(content, dict):
        raise ModelError("not a file that ngc wrote", where=str(path), hint=MADE_BY)
    try:
        if content["format"] != FORMAT:
            raise ModelError(f"format {content['format']}, ngc reads {FORMAT}", where=str(path))
        architectures = tuple(Architecture.from_dict(entry) for entry in content["architectures"])
        graphs = tuple(NeuralGraph.from_dict(entry["features"]) for entry in content["graphs"])
        numbers = tuple(int(entry["architecture"]) for entry in content["graphs"])
        if any(not 0 <= number < len(architectures) for number in numbers):
            raise ModelError("a graph names an architecture that is not there", where=str(path))
        names = tuple(str(entry["source"]) for entry in content["graphs"])
        rests = tuple(entry["rest"] for entry in content["graphs"])
        named = (entry.get("tensors") for entry in content["graphs"])
        tensors = tuple(None if entry is None else StateDict.from_dict(entry) for entry in named)
    except NgcError:
        raise
    except KeyError as error:
        found = f"not a file that ngc wrote: it has no entry {error}"
        raise ModelError(found, where=str(path)) from error
    except Exception as error:  # whatever an entry of a wrong type leads to
        raise ModelError("not a file that ngc wrote, or a damaged one", where=str(path)) from error
    return GraphFile(architectures, graphs, numbers, names, rests, tensors)


def decompile(file: GraphFile | str | Path, number: int = 0) -> onnx.ModelProto:
    """The network of a graph, as ONNX: the weights on the graph in the source model's own form."""
    return (file if isinstance(file, GraphFile) else load(file)).model(number)
