"""Tiny networks of Hugging Face's architectures with random weights, made from configurations:
nothing is downloaded.

All parameters are moved away from their initial values, since a scale of ones or a bias of zeros
that is lost would not show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

IDS = torch.arange(7).reshape(1, 7) % 30
PIXELS = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
SIZE = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
TEXT = SIZE | {"vocab_size": 30, "max_position_embeddings": 16}
GROUPED = TEXT | {"num_key_value_heads": 2}

Made = tuple[nn.Module, dict[str, Any]]


class Only(nn.Module):
    """The named outputs of a model, as a tuple of tensors; no key/value cache among them."""

    def __init__(self, model: nn.Module, outputs: tuple[str, ...], **fixed: Any) -> None:
        super().__init__()
        self.model, self.outputs, self.fixed = model, outputs, fixed

    def forward(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        found = self.model(**inputs, **self.fixed)
        return tuple(found[name] for name in self.outputs)


def text(config: Any, name: str, **changes: Any) -> Callable[[], Made]:
    """A decoder or encoder with a head of tokens."""

    def make() -> Made:
        import transformers

        made = getattr(transformers, config)(**changes)
        model = getattr(transformers, name)(made)
        fixed = {"use_cache": False} if "CausalLM" in name or "LMHead" in name else {}
        return Only(model, ("logits",), **fixed), {"input_ids": IDS}

    return make


def image(config: Any, name: str, output: str = "logits", **changes: Any) -> Any:
    def make() -> Made:
        import transformers

        made = getattr(transformers, config)(**changes)
        return Only(getattr(transformers, name)(made), (output,)), {"pixel_values": PIXELS}

    return make


def seq2seq(config: Any, name: str, **changes: Any) -> Any:
    def make() -> Made:
        import transformers

        model = getattr(transformers, name)(getattr(transformers, config)(**changes))
        inputs = {"input_ids": IDS, "decoder_input_ids": IDS[:, :5]}
        return Only(model, ("logits",), use_cache=False), inputs

    return make


class Decoding(nn.Module):
    """A step of decoding: keys and values of the tokens before, layer by layer, as inputs, those of
    all tokens as outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, past: list[Tensor]) -> tuple[Tensor, ...]:
        from transformers.cache_utils import DynamicCache

        cache = DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        found = self.model(input_ids=input_ids, past_key_values=cache, use_cache=True)
        kept = [(layer.keys, layer.values) for layer in found.past_key_values.layers]
        return (found.logits, *(tensor for pair in kept for tensor in pair))


def decoding(config: Any, name: str, groups: int, **changes: Any) -> Callable[[], Made]:
    """A language model of two layers, with groups of heads of 4, after 5 tokens."""

    def make() -> Made:
        import transformers

        model = getattr(transformers, name)(getattr(transformers, config)(**changes))
        past = list(torch.linspace(-1, 1, 4 * groups * 5 * 4).reshape(4, 1, groups, 5, 4))
        return Decoding(model), {"input_ids": IDS[:, :2], "past": past}

    return make


def clip() -> Made:
    import transformers

    config = transformers.CLIPConfig(
        text_config=TEXT | {"eos_token_id": 6},
        vision_config=SIZE | {"image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    model = Only(
        transformers.CLIPModel(config), ("logits_per_image", "text_embeds", "image_embeds")
    )
    return model, {"input_ids": IDS, "pixel_values": PIXELS}


def whisper() -> Made:
    import transformers

    config = transformers.WhisperConfig(
        vocab_size=30, num_mel_bins=8, encoder_layers=2, encoder_attention_heads=4,
        decoder_layers=2, decoder_attention_heads=4, encoder_ffn_dim=24, decoder_ffn_dim=24,
        d_model=16, max_source_positions=20, max_target_positions=16, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None,
        begin_suppress_tokens=None,
    )  # fmt: skip
    model = Only(transformers.WhisperForConditionalGeneration(config), ("logits",), use_cache=False)
    sound = torch.linspace(-1, 1, 8 * 40).reshape(1, 8, 40)
    return model, {"input_features": sound, "decoder_input_ids": IDS[:, :5]}


MODELS: dict[str, Callable[[], Made]] = {
    "bert": text("BertConfig", "BertForMaskedLM", **TEXT),
    "roberta": text("RobertaConfig", "RobertaForMaskedLM", **TEXT),
    "gpt2": text(
        "GPT2Config", "GPT2LMHeadModel", vocab_size=30, n_positions=16, n_embd=16, n_layer=2,
        n_head=4,
    ),
    "gpt2_decoding": decoding(
        "GPT2Config", "GPT2LMHeadModel", 4, vocab_size=30, n_positions=16, n_embd=16, n_layer=2,
        n_head=4,
    ),
    "llama": text("LlamaConfig", "LlamaForCausalLM", **GROUPED),
    "llama_decoding": decoding("LlamaConfig", "LlamaForCausalLM", 2, **GROUPED),
    "qwen3": text("Qwen3Config", "Qwen3ForCausalLM", **GROUPED, head_dim=4),
    "gemma": text("GemmaConfig", "GemmaForCausalLM", **GROUPED, head_dim=4, pad_token_id=0),
    "phi": text("PhiConfig", "PhiForCausalLM", **TEXT),
    "opt": text(
        "OPTConfig", "OPTForCausalLM", vocab_size=30, hidden_size=16, num_hidden_layers=2,
        ffn_dim=24, max_position_embeddings=16, num_attention_heads=4, word_embed_proj_dim=16,
    ),
    "gpt_neox": text("GPTNeoXConfig", "GPTNeoXForCausalLM", **TEXT),
    "mixtral": text(
        "MixtralConfig", "MixtralForCausalLM", **GROUPED, num_local_experts=3,
        num_experts_per_tok=2, experts_implementation="batched_mm",
    ),
    "t5": seq2seq(
        "T5Config", "T5ForConditionalGeneration", vocab_size=30, d_model=16, d_kv=4, d_ff=24,
        num_layers=2, num_heads=4, decoder_start_token_id=0, relative_attention_num_buckets=8,
    ),
    "bart": seq2seq(
        "BartConfig", "BartForConditionalGeneration", vocab_size=30, d_model=16, encoder_layers=2,
        decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=24,
        decoder_ffn_dim=24, max_position_embeddings=16,
    ),
    "vit": image(
        "ViTConfig", "ViTForImageClassification", hidden_size=16, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=24, image_size=32, patch_size=8,
    ),
    "swin": image(
        "SwinConfig", "SwinForImageClassification", image_size=32, patch_size=2, embed_dim=8,
        depths=[2, 2], num_heads=[2, 4], window_size=4,
    ),
    "convnext": image(
        "ConvNextConfig", "ConvNextForImageClassification", hidden_sizes=[8, 12, 16, 24],
        depths=[1, 1, 1, 1],
    ),
    "clip": clip,
    "whisper": whisper,
    "mobilevit": image(
        "MobileViTConfig", "MobileViTForImageClassification", image_size=32,
        hidden_sizes=[16, 20, 24], neck_hidden_sizes=[8, 8, 12, 16, 20, 24, 32],
        num_attention_heads=4,
    ),
    "segformer": image(
        "SegformerConfig", "SegformerForSemanticSegmentation", num_encoder_blocks=2, depths=[1, 1],
        sr_ratios=[2, 1], hidden_sizes=[8, 16], num_attention_heads=[1, 2], patch_sizes=[3, 3],
        strides=[2, 2], mlp_ratios=[2, 2], decoder_hidden_size=16,
    ),
}  # fmt: skip


def made(name: str) -> Made:
    """A model in evaluation mode, every parameter moved away from its initial value."""
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point() and tensor.ndim >= 1:
                noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.add_(0.1 * noise.abs())
    return model.eval(), inputs
