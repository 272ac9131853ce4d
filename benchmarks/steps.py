"""Training and evaluation steps of several ways to run one model, each in processes of its own.

For other benchmarks: they make a ``Steps`` in ``setting(way, args)`` and call ``compare``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from ngc.backends.graphs import GraphBatch

# The C library's allocator told to keep large blocks, as `ngc run` tells it on a processor.
KEEP = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**36),
    "MALLOC_TOP_PAD_": str(2**26),
}
WARM_UP = 2  # steps until the allocator has what it needs
SETTINGS = {"batch": 64, "probes": 64, "steps": 4, "rounds": 3, "threads": 2}


class Steps:
    """Classification by ``module`` on a batch: forward, backward and AdamW, or forward alone."""

    def __init__(self, module: nn.Module, batch: GraphBatch, low: bool) -> None:
        self.module, self.batch, self.low = module, batch, low
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=0.0)
        self.labels = torch.arange(len(batch), device=batch.device) % 10

    def precision(self) -> AbstractContextManager[object]:
        kind = self.batch.device.type
        return torch.autocast(kind, torch.bfloat16) if self.low else nullcontext()

    def outputs(self) -> torch.Tensor:
        with torch.no_grad():
            return self.module.eval()(self.batch)  # type: ignore[no-any-return]

    def train(self) -> None:
        self.optimizer.zero_grad()
        with self.precision():
            loss = F.cross_entropy(self.module.train()(self.batch).float(), self.labels)
        loss.backward()
        self.optimizer.step()

    def evaluate(self) -> None:
        with torch.no_grad(), self.precision():
            self.module.eval()(self.batch)

    def measure(self, steps: int) -> dict[str, list[float]]:
        """Seconds of steps, and the peak memory in GB of training beyond what it took to start."""
        before = peak_memory(self.batch.device)
        train = self.seconds(self.train, steps)
        memory = peak_memory(self.batch.device) - before
        evaluation = self.seconds(self.evaluate, steps)
        return {"train": train, "evaluation": evaluation, "memory": [memory]}

    def seconds(self, run: Callable[[], None], steps: int) -> list[float]:
        taken = []
        for _ in range(WARM_UP + steps):
            start = time.perf_counter()
            run()
            if self.batch.device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
        return taken[WARM_UP:]


def peak_memory(device: torch.device) -> float:
    """GB held at most: on a GPU by tensors, else by this process (ru_maxrss would count what
    started it, too)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) / 2**20


def compare(
    name: str,
    description: str,
    setting: Callable[[str, argparse.Namespace], Steps],
    ways: Sequence[str],
    exact: Sequence[str],
) -> None:
    """The table of a benchmark module of this name. ``ways`` ends with the one that others are held
    against; the outputs of those in ``exact`` are compared first. Processes of the ways take turns,
    so that other load on the machine meets all of them."""
    parser = argparse.ArgumentParser(description=description)
    for option, default in SETTINGS.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--way", choices=ways, help="measure one in this process")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.way:
        print(json.dumps(setting(args.way, args).measure(args.steps)))
        return
    outputs = [setting(way, args).outputs() for way in exact]
    differ = max(float((output - outputs[0]).abs().max()) for output in outputs)
    print(f"outputs differ by at most {differ:.1e}\n")
    print(
        "| allocator | way | training step s | evaluation s | peak GB | "
        f"times {ways[-1]}, training | evaluation | memory |\n|" + "---|" * 8
    )
    allocators = {"default": {}, "keeps blocks": KEEP} if args.device == "cpu" else {"cuda": {}}
    for allocator, variables in allocators.items():
        found = {way: {"train": [], "evaluation": [], "memory": []} for way in ways}
        for _ in range(args.rounds):
            for way in ways:
                for key, values in in_process(name, way, variables, args).items():
                    found[way][key] += values
        medians = {
            way: {key: statistics.median(values) for key, values in of_way.items()}
            for way, of_way in found.items()
        }
        for way, one in medians.items():
            other = medians[ways[-1]]
            print(
                f"| {allocator} | {way} | {one['train']:.3f} | {one['evaluation']:.3f} | "
                f"{one['memory']:.2f} | {other['train'] / one['train']:.1f} | "
                f"{other['evaluation'] / one['evaluation']:.1f} | "
                f"{one['memory'] / other['memory']:.2f} |",
                flush=True,
            )


def in_process(
    name: str, way: str, variables: dict[str, str], args: argparse.Namespace
) -> dict[str, list[float]]:
    command = [sys.executable, "-m", name, "--way", way]
    for option in (*SETTINGS, "dropout", "device"):
        command += [f"--{option}", str(getattr(args, option))]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | variables
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]
