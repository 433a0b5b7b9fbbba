# ruff: noqa: E501 - tables with one line a model
"""torch.nn's own layers and the ways in which people write a forward: one small module each.

Recurrent layers, attention and transformers of torch.nn; parametrised, tied and shared weights;
nested inputs and outputs; forwards that branch on data or keep caches; half precision, training
mode and torch.compile. Widths are neither all equal nor all powers of two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

TOKENS, STEPS = 50, 6


class Recurrent(nn.Module):
    """Embedding, a recurrent layer of torch.nn, a classifier of the last step."""

    def __init__(self, kind: str, layers: int = 1, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 20)
        self.layer = getattr(nn, kind)(20, 24, layers, **options)
        width = options.get("proj_size") or 24
        self.head = nn.Linear(width * (1 + options.get("bidirectional", False)), 7)
        self.last = (slice(None), -1) if options.get("batch_first") else (-1,)

    def forward(self, tokens: Tensor) -> Tensor:
        out, _ = self.layer(self.embedding(tokens))
        return self.head(out[self.last])


class Packed(nn.Module):
    """Sequences of several lengths, packed; the classifier reads the last states."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 20)
        self.layer = getattr(nn, kind)(20, 24, batch_first=True, **options)
        self.head = nn.Linear(24 * (1 + options.get("bidirectional", False)), 7)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        x = pack_padded_sequence(
            self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        out, _ = pad_packed_sequence(self.layer(x)[0], batch_first=True)
        return self.head(out.sum(1))


class Cells(nn.Module):
    """A loop over a cell with its own initial state, as decoders are written."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 20)
        self.cell = getattr(nn, kind)(20, 24)
        self.head = nn.Linear(24, 7)
        self.two_states = kind == "LSTMCell"

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        h = x.new_zeros(x.size(0), self.cell.hidden_size)
        c = torch.zeros_like(h)
        for step in range(x.size(1)):
            if self.two_states:
                h, c = self.cell(x[:, step], (h, c))
            else:
                h = self.cell(x[:, step], h)
        return self.head(h)


class Seq2Seq(nn.Module):
    """An LSTM encoder whose states start an LSTM decoder, with dot-product attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 20)
        self.encoder = nn.LSTM(20, 24, 2, batch_first=True, dropout=0.1)
        self.decoder = nn.LSTM(20, 24, 2, batch_first=True)
        self.join = nn.Linear(48, 28)
        self.head = nn.Linear(28, TOKENS)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, states = self.encoder(self.embedding(source))
        out, _ = self.decoder(self.embedding(target), states)
        attended = torch.softmax(out @ memory.transpose(1, 2), -1) @ memory
        return self.head(torch.tanh(self.join(torch.cat([out, attended], -1))))


class Attention(nn.Module):
    """nn.MultiheadAttention between projections."""

    def __init__(self, *, weights: bool = False, **options: Any) -> None:
        super().__init__()
        self.query = nn.Linear(10, 36)
        self.key = nn.Linear(10, options.get("kdim", 36))
        self.value = nn.Linear(10, options.get("vdim", 36))
        self.attention = nn.MultiheadAttention(36, 6, batch_first=True, **options)
        self.head = nn.Linear(36, 5)
        self.weights = weights

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        q = self.query(x)
        out, weights = self.attention(q, self.key(x), self.value(x), need_weights=self.weights)
        return (self.head(q + out), weights) if self.weights else (self.head(q + out),)


class Encoder(nn.Module):
    """nn.TransformerEncoder between projections; in evaluation mode torch takes its fast path."""

    def __init__(self, *, nested: bool = False, padding: bool = False, **options: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(36, 6, 56, batch_first=True, **options)
        self.into = nn.Linear(10, 36)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
        self.head = nn.Linear(36, 5)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        mask = None
        if self.padding:
            mask = torch.zeros(x.shape[:2], dtype=torch.bool)
            mask[:, -2:] = True
        return self.head(self.encoder(self.into(x), src_key_padding_mask=mask).mean(1))


class Decoder(nn.Module):
    """nn.TransformerDecoder with a causal mask."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(36, 4, 56, **options)
        self.embedding = nn.Embedding(TOKENS, 36)
        self.memory = nn.Linear(10, 36)
        self.decoder = nn.TransformerDecoder(layer, 2, norm=nn.LayerNorm(36))
        self.head = nn.Linear(36, TOKENS)

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.size(0))
        out = self.decoder(self.embedding(tokens), self.memory(memory), tgt_mask=mask)
        return self.head(out)


class Translator(nn.Module):
    """nn.Transformer, encoder and decoder."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.source, self.target = nn.Linear(10, 36), nn.Linear(12, 36)
        self.transformer = nn.Transformer(36, 6, 1, 1, 56, batch_first=True, **options)
        self.head = nn.Linear(36, 5)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.head(self.transformer(self.source(source), self.target(target)))


class Parametrised(nn.Module):
    """Convolutions and a linear layer whose weights are computed from others."""

    def __init__(self, norm: Callable[..., nn.Module], kernel: int = 3) -> None:
        super().__init__()
        self.first = norm(nn.Conv1d(6, 20, kernel, padding=1))
        self.second = norm(nn.Conv1d(20, 28, kernel, padding=1))
        self.up = norm(nn.ConvTranspose1d(28, 12, 4, 2, 1))
        self.head = norm(nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.second(torch.tanh(self.first(x))), 0.2)
        return self.head(torch.relu(self.up(x)).mean(-1))


class Standardised(nn.Conv2d):
    """Weight standardisation inside the forward."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        std = self.weight.std((1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / (std + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Tied(nn.Module):
    """A language model whose output weights are its embedding, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, 24)
        self.up, self.down = nn.Linear(24, 40), nn.Linear(40, 24)
        self.again = nn.Linear(24, 40)
        self.again.weight = self.up.weight
        self.head = nn.Linear(24, TOKENS, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        x = x + self.down(F.gelu(self.up(x)))
        return self.head(x + self.again(x) @ self.again.weight)


class Autoencoder(nn.Module):
    """A decoder that is the encoder's weights transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.outer, self.inner = nn.Linear(30, 20), nn.Linear(20, 12)
        self.bias = nn.Parameter(torch.randn(20))

    def forward(self, x: Tensor) -> Tensor:
        code = torch.relu(self.inner(torch.relu(self.outer(x))))
        hidden = torch.relu(F.linear(code, self.inner.weight.t(), self.bias))
        return F.linear(hidden, self.outer.weight.t())


class Shared(nn.Module):
    """One block called many times, and one norm shared by blocks (ALBERT, universal transformers)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3, padding=1)
        self.block = nn.Sequential(
            nn.Conv2d(20, 28, 3, padding=1), nn.BatchNorm2d(28), nn.ReLU(), nn.Conv2d(28, 20, 1)
        )
        self.norm = nn.BatchNorm2d(20)
        self.blocks = nn.ModuleList([self.block, nn.Conv2d(20, 20, 1), self.block])
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in [*self.blocks, self.block]:
            x = x + self.norm(block(x))
        return self.head(x.mean((2, 3)))


@dataclass
class Record:
    """A dataclass of results."""

    logits: Tensor
    features: dict[str, Tensor]
    hidden: list[Tensor]
    steps: int = 2


class Nested(nn.Module):
    """A dict in, a dataclass of a dict and a list out."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"image": nn.Linear(12, 20), "text": nn.Linear(8, 20)})
        self.mix = nn.Linear(20, 28)
        self.head = nn.Linear(28, 5)

    def forward(self, batch: dict[str, Any]) -> Record:
        parts = {name: torch.relu(self.parts[name](batch[name])) for name in self.parts}
        hidden = torch.relu(self.mix(parts["image"] * batch["scale"] + parts["text"]))
        return Record(self.head(hidden), {"sum": hidden.sum(-1)}, [self.head(hidden * 2)])


class KeywordOnly(nn.Module):
    """Arguments by keyword alone, some of them optional, plain numbers among them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 24), nn.Linear(12, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, *, x: Tensor, y: Tensor | None = None, scale: float = 1.0) -> dict[str, Any]:
        hidden = torch.relu(self.first(x)) * scale
        if y is not None:
            hidden = hidden + torch.relu(self.second(y))
        return {"logits": self.head(hidden), "nothing": None}


class Branching(nn.Module):
    """The path depends on the sum of what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(10, 24)
        self.often, self.seldom = nn.Linear(24, 36), nn.Linear(24, 36)
        self.head = nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.stem(x))
        hidden = self.often(hidden) if x.sum() > 0 else self.seldom(hidden)
        return self.head(torch.relu(hidden))


class EarlyExit(nn.Module):
    """Blocks run until the features are confident."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(10, 24)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(24, 28 + 4 * k), nn.ReLU(), nn.Linear(28 + 4 * k, 24))
            for k in range(3)
        )
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.stem(x)
        for block in self.blocks:
            hidden = hidden + block(hidden)
            if self.head(hidden).softmax(-1).max().item() > 2.0:
                break
        return self.head(hidden)


class Routed(nn.Module):
    """Each token goes to the expert that a router on the raw input picks."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(10, 3)
        self.stem = nn.Linear(10, 24)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(24, 20 + 8 * k), nn.GELU(), nn.Linear(20 + 8 * k, 24))
            for k in range(3)
        )
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, 10)
        choice, hidden = self.router(flat).argmax(-1), self.stem(flat)
        out = torch.zeros_like(hidden)
        for k, expert in enumerate(self.experts):
            rows = (choice == k).nonzero().squeeze(-1)
            if rows.numel():
                out[rows] = expert(hidden[rows])
        return self.head(hidden + out).reshape(*x.shape[:-1], 5)


class Masked(nn.Module):
    """Positive inputs alone are processed, through a boolean mask."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(1, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        chosen = x[x > 0]
        return self.out(torch.relu(self.into(chosen[:, None]))).mean(0)


class Cached(nn.Module):
    """Positions computed in the first forward and kept on the module."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 24
        self.into = nn.Linear(10, self.width)
        self.frequency = nn.Parameter(torch.rand(self.width))
        self.position: Tensor | None = None
        self.cache: dict[int, Tensor] = {}
        self.qkv, self.head = nn.Linear(self.width, 3 * self.width), nn.Linear(self.width, 5)

    def _bias(self, steps: int) -> Tensor:
        if steps not in self.cache:
            distance = torch.arange(steps)[None] - torch.arange(steps)[:, None]
            self.cache[steps] = -0.1 * distance.abs().to(self.head.weight.dtype)
        return self.cache[steps]

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.into(x)
        if self.position is None or self.position.shape[0] != x.shape[1]:
            steps = torch.arange(x.shape[1], dtype=hidden.dtype)
            self.position = torch.sin(steps[:, None] * self.frequency)
        q, k, v = self.qkv(hidden + self.position).split(self.width, dim=-1)
        scores = q @ k.transpose(1, 2) / self.width**0.5 + self._bias(x.shape[1])
        return self.head(hidden + scores.softmax(-1) @ v)


class Convolutional(nn.Module):
    """A small residual network with squeeze-and-excite, for the ways to hold a model."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 20, 3, padding=1), nn.BatchNorm2d(20), nn.SiLU())
        self.body = nn.Sequential(
            nn.Conv2d(20, 36, 1), nn.BatchNorm2d(36), nn.ReLU(),
            nn.Conv2d(36, 36, 3, padding=1, groups=36), nn.Dropout(0.2), nn.Conv2d(36, 20, 1),
        )  # fmt: skip
        self.squeeze, self.excite = nn.Conv2d(20, 6, 1), nn.Conv2d(6, 20, 1)
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.body(x)
        x = x + y * torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return self.head(x.mean((2, 3)))


class FactorisedEmbedding(nn.Module):
    """`nn.ParameterList`, `nn.ParameterDict` and a bare tensor attribute beside einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ParameterList([nn.Parameter(torch.randn(n, 20)) for n in (11, 13)])
        self.weights = nn.ParameterDict({"mix": nn.Parameter(torch.randn(20, 4, 6))})
        self.scale = torch.tensor(0.5)
        self.head = nn.Linear(24, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tables[0][tokens % 11] + self.tables[1][tokens // 11]
        mixed = torch.einsum("btc,chd->bthd", x, self.weights["mix"]) * self.scale
        return self.head(mixed.flatten(2))


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
