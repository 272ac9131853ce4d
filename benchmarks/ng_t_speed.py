"""NG-T of the paper's size: pairs in chunks beside the formulas written down, n x n x d in full.

    python -m benchmarks.ng_t_speed [--batch 64] [--probes 64] [--steps 4] [--rounds 3]
                                    [--threads 2] [--dropout 0] [--device cpu]

The task is INR classification (networks 2-32-32-1, 67 neurons and 4,489 pairs each, 393,866
parameters with 64 probes): a training step is forward, backward and AdamW; evaluation is forward
alone. All hold the same weights, and their outputs are compared first. Each way runs in processes
of its own that take turns, for its peak memory; once with the C library's allocator as it is and
once told to keep large blocks.

chunked  ngc's default
bf16     the same under autocast
direct   ngc's reference: q_ij, k_ij and v_ij of every pair, by autograd
"""

from __future__ import annotations

import argparse

import torch

from ngc.backends.blocks import bind_blocks, structure_of
from ngc.backends.probes import Prober
from ngc.compiler import make_plan
from ngc.models import Facts
from ngc.models.ng_t import NgT
from ngc.options import Options
from ngc.passes.wire import wire

from benchmarks.bind_throughput import mlp  # isort: skip
from benchmarks.steps import Steps, compare  # isort: skip


def setting(way: str, args: argparse.Namespace) -> Steps:
    """A batch of sine networks, and the model in one of the ways."""
    program = mlp([2, 32, 32, 1])
    plan = make_plan(program, Options())
    torch.manual_seed(0)
    weights = torch.randn(args.batch, program.num_slots) * 0.1
    weights[:, 0], weights[:, 1] = 0, 1
    batch = bind_blocks(plan, weights.to(args.device), Prober(wire(program), plan))
    facts = Facts.of([(structure_of(plan), 1)], ((1, 2),))
    path = "direct" if way == "direct" else "chunked"
    model = NgT(facts, probes=args.probes, dropout=args.dropout, path=path)
    return Steps(model.to(args.device), batch, low=way == "bf16")


if __name__ == "__main__":
    assert __doc__ is not None
    compare(
        "benchmarks.ng_t_speed", __doc__.split("\n")[0], setting,
        ways=("chunked", "bf16", "direct"), exact=("chunked", "direct"),
    )  # fmt: skip
