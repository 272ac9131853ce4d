"""Architectures of a zoo: each in one file, called by its hash.

The hash covers what the file holds: the program, the options that shape programs, and the ONNX
skeleton that weights are written back into. Names of the model, notes of its exporter and other
things that differ between networks of one architecture are left out, so that whichever network is
seen first gives the same file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir
import torch
from torch import Tensor

from ngc.backends.onnx_export import METADATA, fill_skeleton, make_skeleton
from ngc.backends.torch_exec import unpack
from ngc.budget import Budget
from ngc.compiler import Compilation, make_plan
from ngc.errors import ModelError, OptionError
from ngc.files import Architecture, write_beside
from ngc.ir.program import Program
from ngc.ir.slots import FIRST_SLOT, ONE
from ngc.ir.source import Source
from ngc.ir.text import structure_hash
from ngc.known import Known
from ngc.options import Options

NAME = "network"  # of every program: what a model is called is no part of its architecture


@dataclass(frozen=True, eq=False)
class ZooArchitecture:
    """What the networks of one architecture share."""

    hash: str
    program: Program
    options: Options
    skeleton: onnx.ModelProto
    max_elements: int

    @property
    def num_parameters(self) -> int:
        """Numbers in a row: the weight vector without its constants."""
        return self.program.num_slots - FIRST_SLOT

    def model(self, row: Tensor) -> onnx.ModelProto:
        """The network of a row [parameters], as ONNX."""
        return fill_skeleton(self.skeleton, unpack(self.program, slots_of(row)))

    def compilation(
        self, options: Options | None = None, row: Tensor | None = None, known: Known | None = None
    ) -> Compilation:
        """The network of a row [parameters], by default one of zeros, compiled with options that
        give the same program; the plan is made once for each of them."""
        options = options or self.options
        if options.norm != self.options.norm:
            raise OptionError(
                f"the zoo was imported with norm={self.options.norm}, not {options.norm}",
                where=f"architecture {self.hash}",
                hint=f"ngc zoo import --norm {options.norm}",
            )
        weights = slots_of(torch.zeros(self.num_parameters) if row is None else row)
        arrays = unpack(self.program, weights)
        proto = fill_skeleton(self.skeleton, arrays)
        source = Source(proto, onnx_ir.from_proto(proto), self.hash)
        plan = make_plan(self.program, options, Budget(max_elements=self.max_elements), known)
        return Compilation(source, self.program, arrays, plan, (), self.max_elements)


def slots_of(rows: Tensor) -> Tensor:
    """Weights [..., slots] of rows [..., parameters]."""
    weights = rows.new_zeros((*rows.shape[:-1], rows.shape[-1] + FIRST_SLOT))
    weights[..., ONE] = 1
    weights[..., FIRST_SLOT:] = rows
    return weights


def architecture_of(compilation: Compilation) -> ZooArchitecture:
    """Of a compiled network."""
    program = replace(compilation.program, name=NAME)
    proto = compilation.source.proto
    skeleton = _bare(make_skeleton(proto, program.params, compilation.arrays))
    options = Options(norm=compilation.plan.options.norm)
    blob = skeleton.SerializeToString(deterministic=True)
    told = f"{structure_hash(program)} {options.norm} {compilation.max_elements} "
    digest = hashlib.sha256(told.encode() + blob).hexdigest()[:32]
    return ZooArchitecture(digest, program, options, skeleton, compilation.max_elements)


def _bare(skeleton: onnx.ModelProto) -> onnx.ModelProto:
    """Without what may differ between networks of one architecture."""
    for field in ("producer_version", "domain", "model_version", "doc_string"):
        skeleton.ClearField(field)
    for k in reversed(range(len(skeleton.metadata_props))):
        if skeleton.metadata_props[k].key != METADATA:
            del skeleton.metadata_props[k]
    skeleton.graph.name = NAME
    skeleton.graph.ClearField("doc_string")
    for node in skeleton.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    # A parameter that nodes compute is replaced by its own value in every network: what it was in
    # the first one does not matter.
    (entry,) = skeleton.metadata_props
    content = json.loads(entry.value)
    for computed in content["computed"].values():
        if computed["type"]:
            computed.update(digest="", sources={})
    entry.value = json.dumps(content, sort_keys=True)
    return skeleton


def path_of(folder: Path, digest: str) -> Path:
    return folder / "architectures" / f"{digest}.pt"


def write_architecture(folder: Path, one: ZooArchitecture) -> None:
    """Once; whoever comes second finds it there."""
    path = path_of(folder, one.hash)
    if path.is_file():
        return
    content = Architecture(one.program, one.options, one.skeleton, one.max_elements).to_dict()
    write_beside(path, lambda file: torch.save(content, file))


def read_architecture(folder: Path, digest: str) -> ZooArchitecture:
    """Runs no code from the file."""
    path = path_of(folder, digest)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = Architecture.from_dict(content)
        return ZooArchitecture(
            digest, found.program, found.options, found.skeleton, found.max_elements
        )
    except OSError as error:
        raise ModelError(f"cannot read it: {error.strerror}", where=str(path)) from error
    except Exception as error:  # torch's, zip's, protobuf's and unpickling errors
        raise ModelError("not an architecture of a zoo, or damaged", where=str(path)) from error
