"""Small models of every family, with random weights, example inputs and calibration batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from secateur.train import reestimate_norms_

Subject = tuple[nn.Module, Any, list[Any]]
"""A model, its example inputs, and calibration batches of the same form."""


def images(model: nn.Module, size: int) -> Subject:
    """For a model of RGB images, its batch norms set by some: without that so little comes through
    a deep network of random weights that its outputs are its last bias."""
    batches = [(torch.randn(2, 3, size, size), torch.zeros(2)) for _ in range(2)]
    reestimate_norms_(model, [torch.randn(8, 3, size, size)])
    return model.eval(), torch.randn(1, 3, size, size), batches


def tokens(model: nn.Module, **more: Callable[[], Tensor]) -> Subject:
    """For a model of token numbers below 50."""

    def batch() -> dict[str, Tensor]:
        return {"input_ids": torch.randint(50, (2, 12)), **{k: make() for k, make in more.items()}}

    return model.eval(), batch(), [batch() for _ in range(2)]


def torchvision_model(name: str, size: int, **options: Any) -> Callable[[], Subject]:
    def make() -> Subject:
        import torchvision

        return images(torchvision.models.get_model(name, num_classes=10, **options), size)

    return make


def timm_model(name: str, size: int, **options: Any) -> Callable[[], Subject]:
    def make() -> Subject:
        import timm

        return images(timm.create_model(name, num_classes=10, **options), size)

    return make


def bert() -> Subject:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=16,
    )  # fmt: skip
    return tokens(BertForSequenceClassification(config))


def gpt2() -> Subject:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=2, n_head=4)
    return tokens(GPT2LMHeadModel(config))


def llama() -> Subject:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    return tokens(LlamaForCausalLM(config))


def t5() -> Subject:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
        decoder_start_token_id=0,
    )  # fmt: skip
    decoder = {"decoder_input_ids": lambda: torch.randint(50, (2, 5))}
    return tokens(T5ForConditionalGeneration(config), **decoder)


def whisper() -> Subject:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=50, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=20,
        max_source_positions=16, max_target_positions=16, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip

    def batch() -> dict[str, Tensor]:
        return {
            "input_features": torch.randn(2, 20, 32),
            "decoder_input_ids": torch.randint(50, (2, 5)),
        }

    return WhisperForConditionalGeneration(config).eval(), batch(), [batch(), batch()]


class Lstm(nn.Module):
    """Two recurrent layers behind an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 24)
        self.lstm = nn.LSTM(24, 32, num_layers=2, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(x).relu())[0].mean(1))


def lstm() -> Subject:
    batches = [(torch.randn(2, 7, 8), torch.zeros(2)) for _ in range(2)]
    return Lstm().eval(), torch.randn(1, 7, 8), batches


def mlp() -> Subject:
    model = nn.Sequential(
        nn.Linear(12, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(),
        nn.Linear(32, 3),
    )  # fmt: skip
    batches = [(torch.randn(8, 12), torch.zeros(8)) for _ in range(2)]
    return model.eval(), torch.randn(1, 12), batches


MODELS: dict[str, Callable[[], Subject]] = {
    "mlp": mlp,
    "lstm": lstm,
    "resnet18": timm_model("resnet18", 32, channels=(16, 32, 64, 128)),
    "mobilenet_v2": torchvision_model("mobilenet_v2", 32, width_mult=0.25),
    "shufflenet_v2": torchvision_model("shufflenet_v2_x0_5", 32),
    "squeezenet": torchvision_model("squeezenet1_1", 48),
    "convnext": timm_model("convnext_atto", 32, depths=(1, 1, 2, 1), dims=(16, 32, 48, 64)),
    "vit": timm_model(
        "vit_tiny_patch16_224", 32, img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3
    ),
    "bert": bert,
    "gpt2": gpt2,
    "llama": llama,
    "t5": t5,
    "whisper": whisper,
}
