"""torch.nn's recurrent layers, attention and transformers, one small module each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
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
