"""The Attention operator (opset 23): the operations of attention that an exporter writes out."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir

from ngc.ir import program as ir
from ngc.passes.lower.base import Builder, Known, Operand, is_float, lowers
from ngc.passes.lower.linear import contract


@lowers("Attention", since=23)
def attention(
    b: Builder, node: onnx_ir.Node, query: Operand, key: Operand, value: Operand,
    mask: Operand | None = None, past_key: Operand | None = None,
    past_value: Operand | None = None, lengths: Operand | None = None,
) -> tuple[Operand, ...]:  # fmt: skip
    """softmax(softcap(scale Q K^T) + mask) V for each head; heads of queries share those of keys
    and values in groups."""
    if lengths is not None:
        raise b.refuse("nonpad_kv_seqlen, the lengths of padded sequences")
    windows = ("left_window_size", "right_window_size")
    if any((node.attributes.get_int(name, -1) or 0) >= 0 for name in windows):
        raise b.refuse("a window of keys", hint="the window as a mask")
    packed = len(query.shape) == 3
    if packed:
        heads = node.attributes.get_int("q_num_heads", 0) or 0
        groups = node.attributes.get_int("kv_num_heads", 0) or 0
        query, key, value = (
            _split(b, x, n) for x, n in ((query, heads), (key, groups), (value, groups))
        )
    if any(len(x.shape) != 4 for x in (query, key, value)):
        raise b.misshapen(f"queries {list(query.shape)}, keys {list(key.shape)}")
    offset = 0
    if past_key is not None and past_value is not None:
        offset = past_key.shape[2]
        key, value = b.concat([past_key, key], 2), b.concat([past_value, value], 2)
    batch, heads, count, size = query.shape
    groups, total = key.shape[1:3]
    if not groups or heads % groups:
        raise b.misshapen(f"{heads} heads of queries for {groups} of keys")
    scale = node.attributes.get_float("scale", 0.0) or 1 / math.sqrt(size)
    outputs = len(node.outputs)
    present = key, value
    wide = [_repeated(b, x, heads // groups) for x in (key, value)]
    root = math.sqrt(scale)
    scores: Operand = contract(
        b, b.activation(query, "affine", root, 0.0), b.activation(wide[0], "affine", root, 0.0),
        "bhqd,bhkd->bhqk",
    )  # fmt: skip
    shown = [scores]
    softcap = node.attributes.get_float("softcap", 0.0) or 0.0
    if softcap:
        scores = b.activation(scores, "affine", 1 / softcap, 0.0)
        scores = b.activation(b.activation(scores, "tanh"), "affine", softcap, 0.0)
    shown.append(scores)
    added = [] if mask is None else [_bias(b, mask, total, scores.dtype)]
    if node.attributes.get_int("is_causal", 0):
        later = np.arange(total) > np.arange(count)[:, None] + offset
        added.append(b.known(np.where(later, -np.inf, 0.0).astype(scores.dtype)))
    for term in added:
        scores = b.combine("add", scores, term)
    shown.append(scores)
    scores = b.value(scores)
    fields = {"x": scores.name, "fn": "softmax", "axis": 3}
    weights = b.emit(ir.Softmax, scores.shape, scores.dtype, **fields)
    if mask is not None and _hides_all(added):
        # A query that may attend to nothing gives zeros.
        none = b.activation(weights, "is_nan", dtype="bool")
        weights = b.combine("where", none, b.known(np.zeros((), weights.dtype)), weights)
    shown.append(weights)
    result: Operand = contract(b, weights, b.value(wide[1]), "bhqk,bhkd->bhqd")
    if packed:
        result = b.reshape(b.transpose(result, (0, 2, 1, 3)), (batch, count, -1))
    mode = node.attributes.get_int("qk_matmul_output_mode", 0) or 0
    if not 0 <= mode < len(shown):
        raise b.misshapen(f"qk_matmul_output_mode {mode}")
    return (result, *present, shown[mode])[:outputs]


def _split(b: Builder, x: Operand, heads: int) -> Operand:
    """[batch, positions, heads * size] -> [batch, heads, positions, size]."""
    batch, positions, width = x.shape
    if not heads or width % heads:
        raise b.misshapen(f"{width} features for {heads} heads")
    return b.transpose(b.reshape(x, (batch, positions, heads, width // heads)), (0, 2, 1, 3))


def _repeated(b: Builder, x: Operand, times: int) -> Operand:
    """Every head as often as there are queries for it, one after another."""
    batch, heads, positions, size = x.shape
    wide = b.expand(b.reshape(x, (batch, heads, 1, positions, size)),
                    (batch, heads, times, positions, size))  # fmt: skip
    return b.reshape(wide, (batch, heads * times, positions, size))


def _hides_all(terms: list[Operand]) -> bool:
    """Whether a query may have no key left: where masks are known, by looking."""
    known = [term.array for term in terms if isinstance(term, Known)]
    if len(known) < len(terms):
        return True
    total = known[0] if len(known) == 1 else known[0] + known[1]
    return bool(np.isneginf(total).all(axis=-1).any())


def _bias(b: Builder, mask: Operand, total: int, dtype: str) -> Operand:
    """What a mask adds to the scores; a shorter one hides the rest."""
    rank, short = len(mask.shape), total - mask.shape[-1]
    if not is_float(mask.dtype):
        hidden: Operand = b.known(np.array(-np.inf, dtype))
        if isinstance(mask, Known):
            mask = b.known(np.where(b.values_of(mask, "the mask"), 0.0, -np.inf).astype(dtype))
        else:
            mask = b.combine("where", mask, b.known(np.array(0.0, dtype)), hidden, dtype=dtype)
    if short > 0:
        mask = b.pad(mask, [0] * (2 * rank - 1) + [short], -math.inf)
    return mask
