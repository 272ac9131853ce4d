"""Compile broken files: each must compile or raise an NgcError, within limits of time and memory.

    python -m benchmarks.fuzz [--count 2000] [--seed 0] [--jobs 2] [--keep FOLDER]

What compiles is also printed, searched for symmetries, saved and decompiled, where nothing may be
refused. It happens in worker processes, which are watched: no traceback but an NgcError, no file
over 10 s, no worker over 2 GB of resident memory (torch and onnx included). Exits with 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

SECONDS = 10.0
MEMORY = 2 * 2**30

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Outcome:
    """What became of one file. ``verdict``: compiled, refused, traceback, hang, memory, crash."""

    kind: str
    file: str
    verdict: str
    detail: str
    seconds: float
    memory: int


class Worker:
    """A process that compiles the files named on its stdin."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def compile(self, path: Path) -> dict[str, object]:
        if self.process is None:
            self.process = self._start()
        process, start = self.process, time.monotonic()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{path}\n".encode())
        process.stdin.flush()
        line = self._line(start + SECONDS)
        seconds = time.monotonic() - start
        if line.endswith(b"\n"):
            return {**json.loads(line), "seconds": seconds}
        verdict = "crash" if seconds < SECONDS else "hang"
        self.stop()
        return {
            "verdict": verdict,
            "detail": f"{process.returncode}",
            "memory": 0,
            "seconds": seconds,
        }

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fuzz", "--worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.process = process
        self._line(time.monotonic() + 120)  # imports take their time
        return process

    def _line(self, end: float) -> bytes:
        assert self.process is not None
        assert self.process.stdout is not None
        descriptor, line = self.process.stdout.fileno(), b""
        while not line.endswith(b"\n"):
            if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
                break
            part = os.read(descriptor, 1 << 16)
            if not part:
                break
            line += part
        return line

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()


def work() -> None:
    """The worker: one JSON line for each path."""
    import ngc
    from tests.frontends.use import compile_and_use

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(
        resource.RLIMIT_AS, (now + 3 * MEMORY, now + 3 * MEMORY)
    )  # saves the machine
    answers.write("ready\n")
    for line in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
        verdict, detail = "compiled", ""
        try:
            compile_and_use(Path(line.rstrip("\n")))
        except ngc.NgcError as error:
            verdict, detail = "refused", str(error)
        except BaseException as error:
            import traceback

            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            verdict, detail = "traceback", f"{type(error).__name__} at {where}: {error}"
        status = Path("/proc/self/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        answer = {"verdict": verdict, "detail": detail[:500], "memory": peak}
        answers.write(json.dumps(answer) + "\n")


def run(count: int, seed: int, jobs: int, folder: Path) -> list[Outcome]:
    """Write the files and compile them."""
    from tests.frontends.mutations import broken_files

    files: Queue[tuple[str, Path]] = Queue()
    for k, (kind, data) in enumerate(broken_files(seed, count)):
        path = folder / f"{k:05d}.onnx"
        path.write_bytes(data)
        files.put((kind, path))

    def drain() -> list[Outcome]:
        worker, outcomes = Worker(), []
        while True:
            try:
                kind, path = files.get_nowait()
            except Empty:
                break
            answer = worker.compile(path)
            if answer["memory"] > MEMORY:  # type: ignore[operator]
                answer["verdict"] = "memory"
            outcomes.append(Outcome(kind=kind, file=str(path), **answer))  # type: ignore[arg-type]
        worker.stop()
        return outcomes

    with ThreadPoolExecutor(jobs) as pool:
        parts = [pool.submit(drain) for _ in range(jobs)]
        return [outcome for part in parts for outcome in part.result()]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--count", type=int, default=2000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--keep", type=Path, help="folder for the files (else a temporary one)")
    options.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.worker:
        return work()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        outcomes = run(chosen.count, chosen.seed, chosen.jobs, folder)
    bad = [o for o in outcomes if o.verdict not in ("compiled", "refused")]
    print(dict(Counter(o.verdict for o in outcomes)))
    for kind in dict.fromkeys(o.kind for o in sorted(outcomes, key=lambda o: o.file)):
        verdicts = Counter(o.verdict for o in outcomes if o.kind == kind)
        print(f"  {kind:14} " + ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items()))
    slowest, largest = max(o.seconds for o in outcomes), max(o.memory for o in outcomes)
    print(f"slowest {slowest:.1f} s, largest peak {largest / 2**20:.0f} MiB")
    for outcome in bad:
        print(f"{outcome.verdict}: {outcome.file} ({outcome.kind}) {outcome.detail}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
