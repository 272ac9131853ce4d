"""Learned models on neural graphs, installed as ``ngc.models``."""

if __name__ != "ngc.models":
    raise ImportError(f"import ngc.models, not {__name__}: a second copy would be loaded")

from ngc.models import architecture, dws, mlp, nfn, ng_gnn, ng_t, probing, query, set_nn, stat_nn
from ngc.models.facts import Facts
from ngc.models.registry import MODELS, build

__all__ = [
    "MODELS", "Facts", "build",
    "architecture", "dws", "mlp", "nfn", "ng_gnn", "ng_t", "probing", "query", "set_nn", "stat_nn",
]  # fmt: skip
