"""The models of `tensor_parallel.py`: random weights, small inputs, nothing dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Made = tuple[nn.Module, Any]
IMAGE = 64


def fashion() -> Made:
    from fashion import FashionNet

    return FashionNet(32, 2), torch.randn(4, 1, 28, 28)


def of_timm(name: str, **options: Any) -> Callable[[], Made]:
    def make() -> Made:
        import timm

        return timm.create_model(name, **options), torch.randn(2, 3, IMAGE, IMAGE)

    return make


def _tokens(size: int) -> dict[str, Any]:
    return {"input_ids": torch.randint(3, size, (2, 16))}


def minilm() -> Made:
    """MiniLM-L6: 6 layers of width 384."""
    import transformers as tf

    config = tf.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        vocab_size=1000, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return tf.BertModel(config), _tokens(1000)


def smollm2() -> Made:
    """SmolLM2-135M's layers, 4 of its 30 and a vocabulary of 1,000."""
    import transformers as tf

    config = tf.LlamaConfig(
        hidden_size=576, num_hidden_layers=4, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, vocab_size=1000, use_cache=False,
    )  # fmt: skip
    return tf.LlamaForCausalLM(config), _tokens(1000)


def qwen3() -> Made:
    """Qwen3: a norm over each head's width."""
    import transformers as tf

    config = tf.Qwen3Config(
        hidden_size=256, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2,
        head_dim=32, intermediate_size=768, vocab_size=1000, use_cache=False,
    )  # fmt: skip
    return tf.Qwen3ForCausalLM(config), _tokens(1000)


def phi3() -> Made:
    """Phi-3: one projection for query, key and value, and one for both halves of the MLP."""
    import transformers as tf

    config = tf.Phi3Config(
        hidden_size=256, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=4,
        intermediate_size=768, vocab_size=1000, use_cache=False, pad_token_id=0,
    )  # fmt: skip
    return tf.Phi3ForCausalLM(config), _tokens(1000)


def gpt2() -> Made:
    import transformers as tf

    config = tf.GPT2Config(
        n_embd=256, n_layer=2, n_head=8, vocab_size=1000, n_positions=32, use_cache=False,
        attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return tf.GPT2LMHeadModel(config), _tokens(1000)


def t5() -> Made:
    import transformers as tf

    config = tf.T5Config(
        d_model=128, d_kv=16, d_ff=256, num_layers=2, num_heads=8, vocab_size=1000,
        dropout_rate=0.0, use_cache=False,
    )  # fmt: skip
    tokens = _tokens(1000)
    return tf.T5Model(config), {**tokens, "decoder_input_ids": tokens["input_ids"]}


def encoder() -> Made:
    layer = nn.TransformerEncoderLayer(128, 8, 512, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2), torch.randn(2, 10, 128)


MODELS: dict[str, Callable[[], Made]] = {
    "Fashion-MNIST CNN": fashion,
    "ResNet-18": of_timm("resnet18"),
    "ResNet-50": of_timm("resnet50"),
    "ResNeXt-50 32x4d": of_timm("resnext50_32x4d"),
    "DenseNet-121": of_timm("densenet121"),
    "RegNetY-002": of_timm("regnety_002"),
    "MobileNetV3 small": of_timm("mobilenetv3_small_100", drop_rate=0.0),
    "EfficientNet-B0": of_timm("efficientnet_b0", drop_rate=0.0),
    "ConvNeXt atto": of_timm("convnext_atto"),
    "ViT tiny": of_timm("vit_tiny_patch16_224", img_size=IMAGE),
    "Swin tiny": of_timm("swin_tiny_patch4_window7_224", img_size=IMAGE, window_size=2),
    "MLP-Mixer S/32": of_timm("mixer_s32_224", img_size=IMAGE),
    "torch's encoder": encoder,
    "MiniLM-L6 (BERT)": minilm,
    "GPT-2": gpt2,
    "SmolLM2 (Llama)": smollm2,
    "Qwen3": qwen3,
    "Phi-3": phi3,
    "T5": t5,
}


def settled(made: Made) -> Made:
    """In float64, vectors random so that a bias added twice shows, nothing zero or dropped."""
    model, inputs = made
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.copy_(0.5 + 0.3 * torch.randn(parameter.shape, generator=generator))
            elif not parameter.any():  # a head that starts at zero lets no gradient through
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    for module in model.modules():
        if type(module).__name__ == "DropPath":
            module.drop_prob = 0.0  # type: ignore[assignment]
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if isinstance(inputs, torch.Tensor):
        inputs = inputs.double()
    return model.double(), inputs
