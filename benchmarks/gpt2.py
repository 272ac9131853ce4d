"""GPT-2 small at full size, random weights: compile, and bind a second checkpoint.

    python -m benchmarks.gpt2 [--tokens 16] [--threads 2] [--attention explicit|fused]

Needs `pip install transformers`. Nothing is downloaded. Memory is the peak of the process, which
holds the model itself, too.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import ngc
from ngc.options import CHOICES

from tests.networks.hugging_face import Only  # isort: skip


def timed(what: str, run: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {what} | {seconds:.1f} | {peak:.1f} |", flush=True)
    return result


def main() -> None:
    import transformers

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--attention", choices=CHOICES["attention"], default="explicit")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    inner = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    model = Only(inner, ("logits",), use_cache=False)
    print("| step | s | peak GB |\n|---|---|---|")
    inputs = {"input_ids": torch.arange(args.tokens)[None]}
    compiled = timed("compile", lambda: ngc.compile(model, inputs, attention=args.attention))
    graph = timed("bind", lambda: ngc.bind(compiled.plan, compiled.weights))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "second.safetensors"
        state = {name: torch.randn_like(t) for name, t in model.state_dict().items()}
        state["model.lm_head.weight"] = state["model.transformer.wte.weight"].clone()
        save_file(state, path)
        del state, graph
        other = timed("read a second checkpoint", lambda: compiled.with_weights(path))
    graph = timed("bind it", lambda: ngc.bind(other.plan, other.weights))
    print(f"\n{graph.num_nodes:,} nodes, {graph.num_edges:,} edges")


if __name__ == "__main__":
    main()
