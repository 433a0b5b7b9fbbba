# ruff: noqa: E501 - tables with one line a model
"""torch.nn's own layers and the ways in which people write a forward: one small module each.

Recurrent layers, attention and transformers of torch.nn; parametrised, tied and shared weights;
nested inputs and outputs; forwards that branch on data or keep caches; half precision, training
mode and torch.compile. Widths are neither all equal nor all powers of two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from zoos._forward_styles import (
    Autoencoder,
    Branching,
    Cached,
    Convolutional,
    EarlyExit,
    FactorisedEmbedding,
    KeywordOnly,
    Masked,
    Nested,
    Parametrised,
    Routed,
    Shared,
    Standardised,
    Tied,
)
from zoos._torch_layers import (
    STEPS,
    TOKENS,
    Attention,
    Cells,
    Decoder,
    Encoder,
    Packed,
    Recurrent,
    Seq2Seq,
    Translator,
)


def _train(model: nn.Module) -> nn.Module:
    return model.train()


def _tokens(steps: int = STEPS) -> Tensor:
    return torch.randint(0, TOKENS, (2, steps))


def _lengths() -> tuple[Tensor, Tensor]:
    return _tokens(), torch.tensor([STEPS - 2, STEPS])


def _features(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(*shape)


def _batch() -> tuple[dict[str, Any]]:
    return ({"image": torch.randn(2, 12), "text": torch.randn(2, 8), "scale": 0.5},)


def _recurrent(kind: str) -> dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]]:
    one: dict[str, Any] = {
        "": {},
        "_batch_first": {"batch_first": True},
        "_two_layers": {"layers": 2},
        "_bidirectional": {"bidirectional": True, "batch_first": True},
        "_two_layers_bidirectional": {"layers": 2, "bidirectional": True},
        "_without_bias": {"bias": False},
    }
    if kind == "LSTM":
        one["_projected"] = {"proj_size": 16, "layers": 2, "batch_first": True}
        one["_projected_bidirectional"] = {"proj_size": 16, "bidirectional": True}
    if kind == "RNN":
        one["_relu"] = {"nonlinearity": "relu"}
    return {
        f"{kind.lower()}{suffix}": (lambda options=options: Recurrent(kind, **options), _tokens)
        for suffix, options in one.items()
    }


_SIGNAL, _IMAGE, _SERIES = _features(2, 6, 16), _features(2, 3, 8, 8), _features(2, STEPS, 10)
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    **_recurrent("LSTM"),
    **_recurrent("GRU"),
    **_recurrent("RNN"),
    **{f"{kind.lower()}_packed": (lambda kind=kind: Packed(kind), _lengths)
       for kind in ("LSTM", "GRU", "RNN")},
    "lstm_packed_bidirectional": (lambda: Packed("LSTM", bidirectional=True), _lengths),
    **{f"{kind.lower()}": (lambda kind=kind: Cells(kind), _tokens)
       for kind in ("LSTMCell", "GRUCell", "RNNCell")},
    "seq2seq": (Seq2Seq, lambda: (_tokens(), _tokens(4))),
    "attention": (Attention, _SERIES),
    "attention_weights": (lambda: Attention(weights=True), _SERIES),
    "attention_kdim": (lambda: Attention(kdim=20, vdim=28), _SERIES),
    "attention_bias_kv": (lambda: Attention(add_bias_kv=True, bias=False), _SERIES),
    "attention_zero": (lambda: Attention(add_zero_attn=True), _SERIES),
    "encoder": (Encoder, _SERIES),
    "encoder_norm_first": (lambda: Encoder(norm_first=True, activation="gelu"), _SERIES),
    "encoder_nested": (lambda: Encoder(nested=True, padding=True), _SERIES),
    "encoder_padding": (lambda: Encoder(padding=True), _SERIES),
    "encoder_training": (lambda: _train(Encoder(dropout=0.0)), _SERIES),
    "decoder": (Decoder, lambda: (_tokens().t(), torch.randn(4, 2, 10))),
    "decoder_norm_first": (lambda: Decoder(norm_first=True), lambda: (_tokens().t(), torch.randn(4, 2, 10))),
    "transformer": (Translator, lambda: (torch.randn(2, 6, 10), torch.randn(2, 4, 12))),
    "transformer_norm_first": (lambda: Translator(norm_first=True), lambda: (torch.randn(2, 6, 10), torch.randn(2, 4, 12))),
    "weight_norm": (lambda: Parametrised(parametrizations.weight_norm), _SIGNAL),
    "weight_norm_old": (lambda: Parametrised(nn.utils.weight_norm), _SIGNAL),
    "weight_norm_last_dim": (lambda: Parametrised(lambda m: parametrizations.weight_norm(m, dim=1)), _SIGNAL),
    "spectral_norm": (lambda: Parametrised(parametrizations.spectral_norm), _SIGNAL),
    "spectral_norm_old": (lambda: Parametrised(nn.utils.spectral_norm), _SIGNAL),
    "orthogonal": (lambda: nn.Sequential(nn.Linear(10, 20), nn.ReLU(), parametrizations.orthogonal(nn.Linear(20, 20)), nn.ReLU(), nn.Linear(20, 5)), _features(2, 10)),
    "weight_standardised": (lambda: nn.Sequential(Standardised(3, 20, 3), nn.ReLU(), Standardised(20, 28, 3), nn.ReLU(), nn.Conv2d(28, 5, 1)), _IMAGE),
    "tied": (Tied, _tokens),
    "tied_transposed": (Autoencoder, _features(2, 30)),
    "shared": (Shared, _IMAGE),
    "nested": (Nested, _batch),
    "keyword_only": (KeywordOnly, lambda: {"x": torch.randn(2, 10), "y": torch.randn(2, 12), "scale": 0.7}),
    "branching": (Branching, _features(2, 10)),
    "early_exit": (EarlyExit, _features(2, 10)),
    "routed": (Routed, _SERIES),
    "masked": (Masked, _features(30)),
    "cached": (Cached, _SERIES),
    "factorised": (FactorisedEmbedding, _tokens),
    "training_mode": (lambda: _train(Convolutional()), _IMAGE),
    "bfloat16": (lambda: Convolutional().to(torch.bfloat16), lambda: torch.randn(2, 3, 8, 8).to(torch.bfloat16)),
    "float16": (lambda: Encoder().to(torch.float16), lambda: torch.randn(2, STEPS, 10).to(torch.float16)),
    "float64": (lambda: Convolutional().double(), lambda: torch.randn(2, 3, 8, 8).double()),
    "channels_last": (lambda: Convolutional().to(memory_format=torch.channels_last), lambda: torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)),
    "compiled": (lambda: torch.compile(Convolutional(), backend="eager"), _IMAGE),
    "compiled_in_place": (lambda: _compiled_(Encoder()), _SERIES),
    "frozen": (lambda: Convolutional().requires_grad_(False), _IMAGE),
}  # fmt: skip


def _compiled_(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def names() -> list[str]:
    return list(MODELS)


def build(name: str, seed: int) -> tuple[nn.Module, Any]:
    make, inputs = MODELS[name]
    torch.manual_seed(seed)
    model = make()
    # a model in training mode is one of the cases; the others come as zoos give them
    return (model if "training" in name else model.eval()), inputs()
