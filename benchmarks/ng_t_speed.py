"""NG-T of the paper's size: pairs in chunks beside the formulas written down, n x n x d in full.

    python -m benchmarks.ng_t_speed [--batch 64] [--probes 64] [--steps 5] [--threads 2]
                                    [--dropout 0]

The task is INR classification (networks 2-32-32-1, 67 neurons and 4,489 pairs each, 393,866
parameters with 64 probes): a training step is forward, backward and AdamW; evaluation is forward
alone. All hold the same weights, and their outputs are compared first. Steps of the ways alternate
in one process, so that other load on the machine meets all of them; peak memory is that of a
process of its own, less that before the first step. Once with the C library's allocator as it is,
once told to keep large blocks.

chunked  ngc's default
bf16     the same under autocast
direct   ngc's reference: q_ij, k_ij and v_ij of every pair, by autograd
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional as F

from ngc.backends.blocks import bind_blocks, structure_of
from ngc.backends.graphs import GraphBatch
from ngc.backends.probes import Prober
from ngc.compiler import make_plan
from ngc.models import Facts
from ngc.models.ng_t import NgT
from ngc.options import Options
from ngc.passes.wire import wire

from benchmarks.bind_throughput import mlp  # isort: skip
from benchmarks.ng_gnn_speed import KEEP  # isort: skip

WAYS = ("chunked", "bf16", "direct")


class Setting:
    """A batch of sine networks, and the model in one of the ways."""

    def __init__(self, args: argparse.Namespace) -> None:
        program = mlp([2, 32, 32, 1])
        plan = make_plan(program, Options())
        torch.manual_seed(0)
        weights = torch.randn(args.batch, program.num_slots) * 0.1
        weights[:, 0], weights[:, 1] = 0, 1
        self.batch: GraphBatch = bind_blocks(plan, weights, Prober(wire(program), plan))
        self.labels = torch.arange(args.batch) % 10
        facts = Facts.of([(structure_of(plan), 1)], ((1, 2),))
        self.model = NgT(facts, probes=args.probes, dropout=args.dropout)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0)

    def choose(self, way: str) -> nn.Module:
        self.model.path = "direct" if way == "direct" else "chunked"
        return self.model

    def train(self, way: str) -> None:
        self.optimizer.zero_grad()
        with _precision(way):
            loss = F.cross_entropy(self.choose(way).train()(self.batch).float(), self.labels)
        loss.backward()
        self.optimizer.step()

    def evaluate(self, way: str) -> None:
        with torch.no_grad(), _precision(way):
            self.choose(way).eval()(self.batch)

    def difference(self) -> float:
        """Between the outputs of the two forms."""
        with torch.no_grad():
            one, other = (self.choose(way).eval()(self.batch) for way in ("chunked", "direct"))
        return float((one - other).abs().max())


def _precision(way: str) -> torch.autocast | nullcontext[None]:
    return torch.autocast("cpu", torch.bfloat16) if way == "bf16" else nullcontext()


def seconds(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Medians of alternating steps, by way."""
    setting = Setting(args)
    found: dict[str, dict[str, list[float]]] = {way: {"train": [], "evaluate": []} for way in WAYS}
    for step in range(args.steps + 1):
        for way in WAYS:
            for name, run in (("train", setting.train), ("evaluate", setting.evaluate)):
                taken = timed(run, way)
                if step:  # the first one warms up
                    found[way][name].append(taken)
    return {
        way: {name: statistics.median(values) for name, values in of_way.items()}
        for way, of_way in found.items()
    }


def timed(run: Callable[[str], None], way: str) -> float:
    start = time.perf_counter()
    run(way)
    return time.perf_counter() - start


def memory(way: str, args: argparse.Namespace) -> float:
    """Peak in GB of two training steps, beyond what it took to start."""
    setting = Setting(args)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        setting.train(way)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def alone(what: str, args: argparse.Namespace) -> object:
    match what:
        case "difference":
            return Setting(args).difference()
        case "seconds":
            return seconds(args)
    return memory(what, args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    for name, default in (("batch", 64), ("probes", 64), ("steps", 5), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument(
        "--alone", choices=("difference", "seconds", *WAYS), help="one measurement, here"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.alone:
        print(json.dumps(alone(args.alone, args)))
        return
    print(f"outputs differ by at most {in_process('difference', {}, args):.1e}\n")
    print("| allocator | way | training step s | evaluation s | peak GB | times direct, training | "
          "evaluation | memory |\n|" + "---|" * 8)  # fmt: skip
    for allocator, variables in (("default", {}), ("keeps blocks", KEEP)):
        taken = in_process("seconds", variables, args)
        peaks = {way: in_process(way, variables, args) for way in WAYS}
        for way in WAYS:
            one, direct = taken[way], taken["direct"]
            print(
                f"| {allocator} | {way} | {one['train']:.3f} | {one['evaluate']:.3f} | "
                f"{peaks[way]:.2f} | {direct['train'] / one['train']:.1f} | "
                f"{direct['evaluate'] / one['evaluate']:.1f} | "
                f"{peaks[way] / peaks['direct']:.2f} |",
                flush=True,
            )


# The parent does nothing heavy itself: a process starts with the peak memory of the one before it.
def in_process(what: str, variables: dict[str, str], args: argparse.Namespace):  # type: ignore[no-untyped-def]
    command = [sys.executable, "-m", "benchmarks.ng_t_speed", "--alone", what]
    for name in ("batch", "probes", "steps", "threads", "dropout"):
        command += [f"--{name}", str(getattr(args, name))]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | variables
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
