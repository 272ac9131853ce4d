"""Transformers and their kin from Hugging Face compile from dataflow, whole and proven."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

import ngc
from ngc.ir.graph import ACTIVATIONS, NODE_KINDS, NODE_ROLES
from ngc.ir.program import Combine
from tests.networks.hugging_face import MODELS, made

# Values that nothing computes: they are there from the start.
SOURCES = {"position", "constant", "parameter"}


def described(config: Any) -> tuple[Counter[int], list[int]]:
    """What a configuration says: how many residual additions of each width there are, and the heads
    of each attention."""
    match config.model_type:
        case "clip":
            towers = [described(tower) for tower in (config.text_config, config.vision_config)]
            return towers[0][0] + towers[1][0], towers[0][1] + towers[1][1]
        case "t5":
            encoder, decoder = config.num_layers, config.num_decoder_layers
            return Counter({config.d_model: 2 * encoder + 3 * decoder}), [config.num_heads] * (
                encoder + 2 * decoder
            )
        case "bart" | "whisper":
            encoder, decoder = config.encoder_layers, config.decoder_layers
            heads = [config.encoder_attention_heads] * encoder
            heads += [config.decoder_attention_heads] * 2 * decoder
            return Counter({config.d_model: 2 * encoder + 3 * decoder}), heads
        case "convnext":
            return Counter(dict(zip(config.hidden_sizes, config.depths))), []
        case "swin" | "segformer":
            swin = config.model_type == "swin"
            heads = config.num_heads if swin else config.num_attention_heads
            widths = [config.embed_dim * 2**k for k in range(len(heads))] if swin else None
            residual = {w: 2 * n for w, n in zip(widths or config.hidden_sizes, config.depths)}
            return Counter(residual), [h for h, n in zip(heads, config.depths) for _ in range(n)]
        case "mobilevit":
            residual = Counter()
            for width, layers in zip(config.hidden_sizes, (2, 4, 3)):  # as in its paper, table 4
                residual[width] += 2 * layers
            # Of its inverted residuals those that keep stride and width: two of the second stage,
            # and the first one where the widths are the same.
            stem, first, second, *_ = config.neck_hidden_sizes
            residual[second] += 2
            residual[first] += stem == first
            return residual, [config.num_attention_heads] * 9
        case _:
            # x + attention(x) + mlp(x) has one way around both.
            parallel = config.model_type == "phi" or getattr(config, "use_parallel_residual", False)
            layers = config.num_hidden_layers
            residual = Counter({config.hidden_size: (1 if parallel else 2) * layers})
            return residual, [config.num_attention_heads] * layers


def residual_additions(compiled: ngc.Compilation) -> Counter[int]:
    """How many blocks of identity edges, by their number of edges, come from an addition and are
    ways around something: a longer way leads from the same neuron to the same neuron."""
    graph = compiled.plan.graph
    pairs = np.concatenate([block.edge_index() for block in graph.blocks], axis=1)
    after = [np.unique(pairs[1, pairs[0] == node]) for node in range(graph.num_nodes)]
    reached = np.zeros((graph.num_nodes, graph.num_nodes), dtype=bool)
    for node in np.argsort(-graph.nodes.layer, kind="stable"):
        reached[node] = reached[after[node]].any(axis=0)
        reached[node, after[node]] = True
    found: Counter[int] = Counter()
    for block in graph.blocks:
        adds = block.kind == "identity" and isinstance(compiled.program.ops[block.op], Combine)
        if adds and all(reached[after[u], v].any() for u, v in block.edge_index().T):
            found[block.num_edges] += 1
    return found


def heads_told_apart(compiled: ngc.Compilation, config: Any, heads: list[int]) -> None:
    """Explicit, each head has a neuron of its own for its scores; fused, neurons of its own, and of
    grouped queries each group has keys of its own."""
    graph = compiled.plan.graph
    if compiled.plan.options.attention == "fused":
        assert sorted(len(one.query) for one in graph.fused) == sorted(heads)
        for one in graph.fused:
            assert len(np.unique(one.result)) == one.result.size
            groups = getattr(config, "num_key_value_heads", None) or len(one.key)
            assert len(np.unique(one.key, axis=0)) == groups
        return
    experts = getattr(config, "num_local_experts", 0)
    routers = experts and experts * config.num_hidden_layers
    scores = graph.nodes.activation == ACTIVATIONS.index("softmax")
    assert scores.sum() == sum(heads) + routers


@pytest.mark.parametrize("attention", ["explicit", "fused"])
@pytest.mark.parametrize("name", MODELS)
def test_the_four_checks_pass_and_weights_come_back(name: str, attention: str) -> None:
    model, inputs = made(name)
    compiled = ngc.compile(model, inputs, attention=attention)
    plan = compiled.plan.graph
    assert plan.unfused == ()
    verification = ngc.verify(compiled)
    assert verification.passed, verification.checks
    back = compiled.state_dict()
    own = model.state_dict()
    assert back.keys() == own.keys()
    for key, tensor in own.items():
        assert torch.equal(back[key], tensor), key
    model.load_state_dict(back, strict=True)

    graph = compiled.graph()
    into = torch.bincount(graph.edge_index[1], minlength=graph.num_nodes)
    out = torch.bincount(graph.edge_index[0], minlength=graph.num_nodes)
    unread = (out == 0) & (graph.node_role != NODE_ROLES.index("output"))
    assert not unread.any(), "neurons that nothing reads"
    unwritten = (into == 0) & (graph.node_role != NODE_ROLES.index("input"))
    assert {NODE_KINDS[k] for k in graph.node_kind[unwritten].tolist()} <= SOURCES
    residual, heads = described(model.model.config)
    found = residual_additions(compiled)
    assert {width: found[width] for width in residual} == residual
    heads_told_apart(compiled, model.model.config, heads)


def test_heads_are_told_apart() -> None:
    """Two and four heads on the same widths are different graphs."""
    import transformers

    from tests.networks.hugging_face import IDS, TEXT, Only

    counts = set()
    for heads in (2, 4):
        config = transformers.BertConfig(**{**TEXT, "num_attention_heads": heads})
        model = Only(transformers.BertForMaskedLM(config).eval(), ("logits",))
        graph = ngc.compile(model, {"input_ids": IDS}).graph()
        counts.add(graph.num_nodes)
    assert len(counts) == 2


def test_padded_sentences() -> None:
    """The mask of real tokens is an input: which keys are attended to depends on it."""
    model, inputs = made("bert")
    mask = torch.ones(1, 7, dtype=torch.int64)
    mask[:, 5:] = 0
    for attention in ("explicit", "fused"):
        compiled = ngc.compile(model, {**inputs, "attention_mask": mask}, attention=attention)
        verification = ngc.verify(compiled)
        assert verification.passed, verification.checks
        residual, _ = described(model.model.config)
        assert residual_additions(compiled)[16] == residual[16]


def test_a_tied_output_head_is_one_parameter() -> None:
    model, inputs = made("gpt2")
    compiled = ngc.compile(model, inputs)
    names = {param.name for param in compiled.program.params}
    assert len(names & {"model.transformer.wte.weight", "model.lm_head.weight"}) == 1
    back = compiled.state_dict(compiled.weights * 2)
    assert torch.equal(back["model.lm_head.weight"], back["model.transformer.wte.weight"])


@pytest.mark.parametrize("attention", ["explicit", "fused"])
def test_a_padding_mask_has_one_neuron_however_many_tokens(attention: str) -> None:
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    counts = set()
    for tokens in (5, 9):
        inputs = {
            "src": torch.linspace(-1, 1, tokens * 8).reshape(1, tokens, 8),
            "src_key_padding_mask": torch.zeros(1, tokens, dtype=torch.bool),
        }
        compiled = ngc.compile(layer, inputs, attention=attention)
        assert compiled.plan.graph.unfused == ()
        counts.add(compiled.plan.num_nodes)
    assert ngc.verify(compiled).passed
    assert len(counts) == 1


def test_a_language_model_is_compiled_as_it_is() -> None:
    """Its cache is no output; with a mixture of experts, those are run so that they export."""
    import transformers

    from tests.networks.hugging_face import GROUPED, IDS

    config = transformers.MixtralConfig(**GROUPED, num_local_experts=3, num_experts_per_tok=2)
    model = transformers.MixtralForCausalLM(config).eval()
    way = model.config._experts_implementation
    compiled = ngc.compile(model, {"input_ids": IDS})
    assert model.config._experts_implementation == way != "batched_mm"
    assert len(compiled.program.outputs) == 1
    assert compiled.notes == (
        "experts are exported as batched_mm, which computes the same",
        "answers that are no tensors are left out: DynamicCache",
    )
    assert ngc.verify(compiled).passed
