"""Compile time and peak memory of real networks, each compiled in a process of its own.

    python benchmarks/compile_models.py [model.onnx ...] [--flatten repeat|virtual|kernel]
        [--norm nodes|fold]

Without models: the nine networks of the onnx package (backend/test/data/light; their weights are
constant, which matters neither for time nor for memory). ``total`` is from the start of the process
to the graph with its weights, imports included; peak memory is that of the process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

COLUMNS = (
    "model",
    "total s",
    "import s",
    "compile s",
    "bind s",
    "peak GB",
    "nodes",
    "edges",
    "taps",
)


def light_models() -> list[Path]:
    import onnx

    return sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))


def compile_one(path: str, options: dict[str, str]) -> dict[str, object]:
    """Compile in this process and say what it took."""
    import resource

    start = time.perf_counter()
    import ngc
    from ngc.compiler import compile as compile_model

    imported = time.perf_counter()
    try:
        compiled = compile_model(path, **options)
    except ngc.NgcError as error:
        return {"refused": str(error).splitlines()[0]}
    done = time.perf_counter()
    graph = compiled.graph()
    bound = time.perf_counter()
    assert graph.num_edges == compiled.plan.num_edges
    return {
        "import s": imported - start,
        "compile s": done - imported,
        "bind s": bound - done,
        "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "nodes": compiled.plan.num_nodes,
        "edges": compiled.plan.num_edges,
        "taps": compiled.plan.graph.num_taps,
    }


def in_process_of_its_own(path: Path, options: dict[str, str]) -> dict[str, object]:
    command = [sys.executable, __file__, "--one", json.dumps([str(path), options])]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    total = time.perf_counter() - start
    if done.returncode:
        return {"refused": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    return {"total s": total} | json.loads(done.stdout.splitlines()[-1])


def shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else f"{value:,}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--flatten", choices=("repeat", "virtual", "kernel"), default="repeat")
    parser.add_argument("--norm", choices=("nodes", "fold"), default="nodes")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        path, options = json.loads(args.one)
        print(json.dumps(compile_one(path, options)))
        return
    options = {"flatten": args.flatten, "norm": args.norm}
    print(f"flatten={args.flatten} norm={args.norm}")
    print(f"{COLUMNS[0]:28}" + "".join(f"{name:>12}" for name in COLUMNS[1:]))
    for path in args.models or light_models():
        found = in_process_of_its_own(path, options)
        figures = "".join(f"{shown(found[c]):>12}" for c in COLUMNS[1:] if c in found)
        print(f"{path.stem:28}{figures or '  ' + str(found.get('refused'))}", flush=True)


if __name__ == "__main__":
    main()
