"""Import 20,000 checkpoints of 200 architectures into a zoo, and bind them all.

    python -m benchmarks.zoo_import [--networks 20000] [--architectures 200] [--kind onnx made]
                                    [--workers 1] [--folder DIR]

onnx    a folder of ONNX files, RUN/STEP.onnx
made    what ``ngc zoo train`` writes: safetensors and a description of each architecture

Weights are random. Each import runs in a process of its own, for a quarter of the networks and for
all of them: its memory must not grow. ``first import``: all of it, starting Python apart.
``bind``: the plan of each architecture, and the graphs of all networks in batches of up to 64.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from ngc.backends.pyg import bind
from ngc.options import Options
from ngc.zoo import import_zoo, open_zoo, wild_park
from ngc.zoo.architectures import slots_of

BATCH = 64
OPS = {"relu": "Relu", "gelu": "Gelu", "tanh": "Tanh", "sigmoid": "Sigmoid"}
OPS |= {"leaky_relu": "LeakyRelu", "identity": "Identity"}


def sample(count: int) -> list[wild_park.Config]:
    """Architectures without repeats, of up to 16 channels."""
    generator = torch.Generator().manual_seed(0)
    rules = wild_park.Rules(channels=(4, 8, 16))
    found: dict[str, wild_park.Config] = {}
    while len(found) < count:
        one = wild_park.sample(rules, generator)
        layers = tuple(replace(layer, skip=None) for layer in one.layers)
        one = replace(one, layers=layers)
        found[json.dumps(one.to_dict())] = one
    return list(found.values())


def state_of(config: wild_park.Config, rng: np.random.Generator) -> dict[str, np.ndarray]:
    state, before = {}, config.inputs[0]
    for k, layer in enumerate(config.layers):
        shape = (layer.channels, before, layer.kernel, layer.kernel)
        state[f"layers.{k}.weight"] = rng.standard_normal(shape, dtype=np.float32)
        state[f"layers.{k}.bias"] = rng.standard_normal(layer.channels, dtype=np.float32)
        before = layer.channels
    state["fc.weight"] = rng.standard_normal((config.classes, before), dtype=np.float32)
    state["fc.bias"] = rng.standard_normal(config.classes, dtype=np.float32)
    return state


def model_of(config: wild_park.Config, state: dict[str, np.ndarray]) -> onnx.ModelProto:
    nodes, value = [], "images"
    for k, layer in enumerate(config.layers):
        operands = [value, f"layers.{k}.weight", f"layers.{k}.bias"]
        pads = [layer.kernel // 2] * 4
        strides = [layer.stride] * 2
        nodes.append(helper.make_node("Conv", operands, [f"c{k}"], pads=pads, strides=strides))
        nodes.append(helper.make_node(OPS[layer.activation], [f"c{k}"], [f"a{k}"]))
        value = f"a{k}"
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "fc.weight", "fc.bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, *config.inputs])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, config.classes])],
        [numpy_helper.from_array(array, name) for name, array in state.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def write_networks(folder: Path, kind: str, configs: list[wild_park.Config], each: int) -> None:
    rng = np.random.default_rng(0)
    for number, config in enumerate(configs):
        place = folder / ("networks" if kind == "made" else "") / f"{number:05d}"
        place.mkdir(parents=True)
        for step in range(each):
            state = state_of(config, rng)
            if kind == "onnx":
                onnx.save(model_of(config, state), place / f"{step}.onnx")
            else:
                tensors = {name: torch.from_numpy(array) for name, array in state.items()}
                save_file(tensors, place / f"{step}.safetensors")
        if kind == "made":
            about = {"architecture": config.to_dict(), "run": f"{number:05d}", "hyper": {}}
            (place / "network.json").write_text(json.dumps(about))
            with (place / "metrics.csv").open("w", newline="") as file:
                rows = [(step, rng.uniform()) for step in range(each)]
                csv.writer(file).writerows([("epoch", "accuracy"), *rows])


def link_some(source: Path, target: Path, each: int) -> None:
    """The first steps of every network."""
    for path in source.rglob("*"):
        if path.is_file() and (not path.stem.isdecimal() or int(path.stem) < each):
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, place)


def imported(source: Path, zoo: Path, workers: int) -> dict[str, float]:
    """In a process of its own: seconds, and its peak memory in MiB before and after."""
    command = [sys.executable, "-m", "benchmarks.zoo_import", "--import", str(source), str(zoo)]
    done = subprocess.run(
        [*command, "--workers", str(workers)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def import_here(source: Path, zoo: Path, workers: int) -> None:
    before = peak()
    start = time.perf_counter()
    import_zoo(source, zoo, workers=workers)
    seconds = time.perf_counter() - start
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    told = {"seconds": seconds, "before": before, "peak": peak(), "workers": children}
    print(json.dumps(told))


def peak() -> float:
    """Of this process, in MiB. (``ru_maxrss`` would count what started it.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (one for one in lines if one.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def bind_all(path: Path) -> tuple[int, float, float]:
    """Networks, seconds for the plans, and for the graphs of all networks."""
    zoo = open_zoo(path)
    plans = bound = 0.0
    for number, one in enumerate(zoo.architectures):
        start = time.perf_counter()
        plan = one.compilation(Options()).plan
        plans += time.perf_counter() - start
        start = time.perf_counter()
        rows = zoo.rows(number)
        for first in range(0, len(rows), BATCH):
            numbers = torch.arange(first, min(first + BATCH, len(rows)))
            bind(plan, slots_of(rows[numbers]))
        bound += time.perf_counter() - start
    return len(zoo), plans, bound


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def report(folder: Path, kind: str, networks: int, architectures: int, workers: int) -> None:
    each = networks // architectures
    source = folder / kind
    write_networks(source, kind, sample(architectures), each)
    link_some(source, folder / f"{kind}_quarter", each // 4)
    for name in (f"{kind}_quarter", kind):
        zoo = folder / f"zoo_{name}"
        told = imported(folder / name, zoo, workers)
        count, plans, bound = bind_all(zoo)
        weights = 4 * sum(
            len(found.rows(k)) * found.rows(k).parameters
            for found in [open_zoo(zoo)]
            for k in range(len(found.architectures))
        )
        print(
            f"{name}: {count:,} networks of {len(open_zoo(zoo).architectures)} architectures, "
            f"{weights / count / 4:,.0f} parameters in the mean\n"
            f"  import  {told['seconds']:8.1f} s  {count / told['seconds']:8,.0f} networks/s\n"
            f"  bind    {plans + bound:8.1f} s  {count / (plans + bound):8,.0f} networks/s "
            f"({plans:.1f} s of it plans)\n"
            f"  disk    {bytes_in(zoo) / weights:8.3f} times the weights "
            f"({bytes_in(zoo):,} bytes; {bytes_in(folder / name):,} imported)\n"
            f"  memory  {told['peak']:8.0f} MiB at most, {told['before']:.0f} before the import"
            + (f", {told['workers']:.0f} of a worker" if workers > 1 else "")
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, default=20_000)
    parser.add_argument("--architectures", type=int, default=200)
    parser.add_argument("--kind", nargs="+", choices=["onnx", "made"], default=["onnx", "made"])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--import", dest="paths", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.paths:
        import_here(*args.paths, args.workers)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for kind in args.kind:
            report(Path(folder), kind, args.networks, args.architectures, args.workers)


if __name__ == "__main__":
    main()
