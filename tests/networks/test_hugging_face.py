"""Transformers and their kin from Hugging Face compile from dataflow, whole and proven."""

from __future__ import annotations

import pytest
import torch

import ngc
from ngc.ir.graph import EDGE_KINDS, NODE_KINDS, NODE_ROLES
from tests.networks.hugging_face import MODELS, made

# Values that nothing computes: they are there from the start.
SOURCES = {"position", "constant", "parameter"}

# Residual additions, two a block or more, of 16 features each, as identity edges.
RESIDUAL = dict.fromkeys(MODELS, 2 * 16) | {"swin": 32, "convnext": 60, "segformer": 48}


# Layers of attention, of the encoder, the decoder and between them.
ATTENTION = dict.fromkeys(MODELS, 2) | {
    "t5": 6, "bart": 6, "whisper": 6, "swin": 4, "clip": 4, "mobilevit": 9, "convnext": 0,
}  # fmt: skip


@pytest.mark.parametrize("attention", ["explicit", "fused"])
@pytest.mark.parametrize("name", MODELS)
def test_the_four_checks_pass_and_weights_come_back(name: str, attention: str) -> None:
    model, inputs = made(name)
    compiled = ngc.compile(model, inputs, attention=attention)
    assert len(compiled.plan.graph.fused) == (ATTENTION[name] if attention == "fused" else 0)
    assert compiled.plan.graph.unfused == ()
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
    identities = int((graph.edge_kind == EDGE_KINDS.index("identity")).sum())
    assert identities >= RESIDUAL[name]


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
