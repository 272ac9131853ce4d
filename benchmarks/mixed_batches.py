"""NG-GNN and NG-T on batches of image classifiers, by how many architectures a batch mixes.

    python -m benchmarks.mixed_batches [--batch 64] [--architectures 1,8,64] [--sizes small,large]
                                       [--models ng_gnn:blocks,ng_gnn:lists,ng_t:chunked]
                                       [--steps 3] [--device cpu]

Architectures are drawn by the rules of CNN Wild Park: ``small`` with its channels (4 to 32),
``large`` with four times as many, an eighth of the networks. Those of a batch are spread over the
drawn ones by their number of edges, so that batches of one and of many have about as many edges.
Models have the paper's sizes for CNN Wild Park. A training step is forward, backward and AdamW;
evaluation is forward alone. Each row is a process of its own, with the allocator that ``ngc run``
sets; its peak memory is less that before the first step. On a processor one thread is used, and
what counts is its own time, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from ngc.backends.blocks import bind_part, join, structure_of
from ngc.compiler import Compilation, compile
from ngc.models import Facts, build

from benchmarks.steps import KEEP, WARM_UP, Steps, peak_memory  # isort: skip
from tests.models.classifiers import SEVEN, Layer, classifier_model, classifier_weights  # isort: skip

DRAWN = 64
SCALE = {"small": 1, "large": 4}
FEWER = {"small": 1, "large": 8}
MODELS = {
    "ng_gnn": {},
    "ng_t": {"node_width": 16, "edge_width": 8, "heads": 1, "head": (128, 128)},
}


def drawn(size: str) -> list[Compilation]:
    """Architectures by the rules of CNN Wild Park, ascending by their number of edges."""
    chance, found = random.Random(0), []
    activations = [name for name in SEVEN if name not in ("none", "silu")]
    for _ in range(DRAWN):
        layers = tuple(
            Layer(
                channels=SCALE[size] * chance.choice([4, 8, 16, 32]),
                kernel=chance.choice([3, 5, 7]),
                activation=chance.choice(activations),
                skip=chance.choice([None, *range(k - 1)]) if k else None,
            )
            for k in range(chance.choice([2, 3, 4, 5]))
        )
        model = classifier_model(layers, classes=10, size=8)
        found.append(compile(model, reverse="features", kernel=(7, 7)))
    return sorted(found, key=lambda compiled: compiled.plan.num_edges)


def setting(name: str, path: str, size: str, many: int, args: argparse.Namespace) -> Steps:
    """A batch with networks of so many architectures, and the model."""
    found, batch = drawn(size), args.batch // FEWER[size]
    mean = statistics.mean(compiled.plan.num_edges for compiled in found)
    chosen = [found[(2 * k + 1) * DRAWN // (2 * many)] for k in range(many)]
    if many == 1:
        chosen = [min(found, key=lambda compiled: abs(compiled.plan.num_edges - mean))]
    parts = []
    for number, compiled in enumerate(chosen):
        places = torch.arange(number, batch, len(chosen))
        weights = classifier_weights(compiled, len(places)).to(args.device)
        parts.append((bind_part(compiled.plan, weights), places.to(args.device)))
    facts = Facts.of([(structure_of(compiled.plan), 1) for compiled in found])
    torch.manual_seed(0)
    settings = {**MODELS[name], "dropout": 0.0, "activations": SEVEN, "path": path}
    model = build(name, facts, **settings)
    return Steps(model.to(args.device), join(parts), low=False)


def measured(args: argparse.Namespace) -> dict[str, float]:
    name, path, size, many = args.row.split(":")
    steps = setting(name, path, size, int(many), args)
    parts = steps.batch.parts
    edges = sum(len(part) * part.structure.num_edges for part in parts)
    before = peak_memory(steps.batch.device)
    train = seconds(steps.train, args)
    memory = peak_memory(steps.batch.device) - before
    found = {"train": train, "evaluation": seconds(steps.evaluate, args), "memory": memory}
    return found | {"networks": len(steps.batch), "parts": len(parts), "edges": edges}


def seconds(run: Callable[[], None], args: argparse.Namespace) -> float:
    """Median of some steps."""
    taken = []
    for _ in range(WARM_UP + args.steps):
        start = clock(args.device)
        run()
        taken.append(clock(args.device) - start)
    return statistics.median(taken[WARM_UP:])


def clock(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--architectures", default="1,8,64")
    parser.add_argument("--sizes", default="small,large")
    parser.add_argument("--models", default="ng_gnn:blocks,ng_gnn:lists,ng_t:chunked")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--row", help="measure one, model:path:size:architectures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.row:
        print(json.dumps(measured(args)))
        return
    print("| model | size | networks | architectures | edges | training networks/s | "
          "evaluation networks/s | peak GB |\n|" + "---|" * 8)  # fmt: skip
    for model in args.models.split(","):
        for size in args.sizes.split(","):
            for many in args.architectures.split(","):
                if int(many) > args.batch // FEWER[size]:
                    continue
                one = in_process(f"{model}:{size}:{many}", args)
                print(
                    f"| {model} | {size} | {one['networks']} | {one['parts']} | {one['edges']:,} | "
                    f"{one['networks'] / one['train']:.0f} | "
                    f"{one['networks'] / one['evaluation']:.0f} | {one['memory']:.2f} |",
                    flush=True,
                )


def in_process(row: str, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.mixed_batches", "--row", row]
    for option in ("batch", "steps", "device"):
        command += [f"--{option}", str(getattr(args, option))]
    variables = KEEP if args.device == "cpu" else {}
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | variables
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
