"""A network as the ONNX files that torch's exporters make of it."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from pathlib import Path

import torch

from tests.networks.base import Network


def export(network: Network, folder: Path) -> dict[str, Path]:
    """Path of the file of each exporter; files already in the folder stay as they are."""
    paths = {exporter: folder / f"{exporter}.onnx" for exporter in network.exporters}
    if all(path.exists() for path in paths.values()):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    module, inputs = network.module(), network.inputs()
    names = [f"x{k}" for k in range(len(inputs))]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, inputs, dynamo=True, external_data=False, optimize=False, verbose=False,
            input_names=names,
        )  # fmt: skip
        assert program is not None
        _write(program.model_proto.SerializeToString(), paths["dynamo"])
        program.optimize()  # what optimize=True does at the end
        _write(program.model_proto.SerializeToString(), paths["dynamo_optimised"])
        if "legacy" in paths:
            buffer = io.BytesIO()
            torch.onnx.export(
                module, inputs, buffer, dynamo=False, verbose=False, input_names=names
            )
            _write(buffer.getvalue(), paths["legacy"])
    return paths


def _write(data: bytes, path: Path) -> None:
    """In one step: another process may be writing the same file."""
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_bytes(data)
    beside.rename(path)
