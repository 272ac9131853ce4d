"""Tiny networks of Hugging Face's architectures with random weights: what `ngc verify` says.

    python -m benchmarks.hugging_face [NAME...] [--attention explicit|fused] [--list] [--debug]

Needs `pip install transformers`. Nothing is downloaded: every model is made from its configuration.
"""

from __future__ import annotations

import argparse
import time
import traceback
import warnings

import torch

import ngc
from ngc.options import CHOICES

from tests.networks.hugging_face import MODELS, made  # isort: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("names", nargs="*", default=list(MODELS))
    parser.add_argument("--attention", choices=CHOICES["attention"], default="explicit")
    parser.add_argument("--list", action="store_true", help="the names alone")
    parser.add_argument("--debug", action="store_true", help="tracebacks")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.list:
        print(*MODELS, sep="\n")
        return
    for name in args.names:
        start = time.perf_counter()
        try:
            model, inputs = made(name)
            compiled = ngc.compile(model, inputs, attention=args.attention)
            outcome = ngc.verify(compiled)
            kept = compiled.state_dict()
            back = all(torch.equal(kept[key], own) for key, own in model.state_dict().items())
            checks = "; ".join(
                f"{check.name} {'pass' if check.passed else 'FAIL'} {check.figure} {check.detail}"
                for check in outcome.checks
            )
            graph = compiled.plan.graph
            fused = ""
            if args.attention == "fused":
                heads = [len(one.result) for one in graph.fused]
                fused = f"heads fused {heads}, "
                fused += f"not fused {list(graph.unfused)}, " if graph.unfused else ""
            print(f"{name}: {graph.num_nodes} nodes, {graph.num_edges} edges, {fused}"
                  f"state_dict {'same' if back else 'DIFFERS'}; {checks}")  # fmt: skip
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}")
            if args.debug:
                traceback.print_exc()
        print(f"  {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
