"""Small models, one for each way in which dimensions couple. Sizes are small enough to read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 6, 3, padding=1)
        self.outer = nn.Conv2d(6, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.norm(self.outer(self.inner(x).relu()))
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """Concatenation, then a layer that reads all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.b = nn.Conv2d(4, 6, 1)
        self.c = nn.Conv2d(10, 8, 1)
        self.head = nn.Linear(8 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        x = self.c(torch.cat([a, self.b(a)], 1))
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))


class Shuffle(nn.Module):
    """Two branches, shuffled, as in ShuffleNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 1)
        self.branch = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.head = nn.Conv2d(12, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], 1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, -1, h, w)
        return self.head(x).mean((2, 3))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 1)
        self.grouped = nn.Conv2d(12, 24, 3, groups=4)
        self.norm = nn.GroupNorm(4, 24)
        self.head = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.grouped(self.stem(x)))).mean((2, 3))


class Gated(nn.Module):
    """A gated unit, squeeze and excite, and a prelu."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Conv2d(3, 16, 1)
        self.act = nn.PReLU(8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(F.glu(self.up(x), 1))
        x = x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.head(x.sum((2, 3)))


class Attention(nn.Module):
    """Grouped-query attention with rotary halves, written out."""

    def __init__(self, width: int = 24, heads: int = 6, kv_heads: int = 2) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, width // heads
        self.repeat = heads // kv_heads
        self.embed = nn.Embedding(11, width)
        self.q = nn.Linear(width, heads * self.head_dim)
        self.k = nn.Linear(width, kv_heads * self.head_dim)
        self.v = nn.Linear(width, kv_heads * self.head_dim)
        self.out = nn.Linear(heads * self.head_dim, width)
        self.up, self.down = nn.Linear(width, 32), nn.Linear(32, width)
        self.head = nn.Linear(width, 11)

    def split(self, x: Tensor, heads: int) -> Tensor:
        return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k = self.split(self.q(x), self.heads), self.split(self.k(x), self.kv_heads)
        v = self.split(self.v(x), self.kv_heads)
        half = q.shape[-1] // 2
        q = torch.cat([-q[..., half:], q[..., :half]], -1)
        k, v = k.repeat_interleave(self.repeat, 1), v.repeat_interleave(self.repeat, 1)
        weights = (q @ k.transpose(-1, -2)).softmax(-1)
        y = (weights @ v).transpose(1, 2).flatten(2)
        x = x + self.out(y)
        return self.head(x + self.down(F.gelu(self.up(x))))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.rnn = nn.LSTM(6, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.rnn(self.embed(ids))[0][:, -1])


class Tied(nn.Module):
    """The embedding's matrix is the classifier's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.inner, self.outer = nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.head(x + self.outer(self.inner(x).tanh()))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.stem(x)).mean(1))


def image() -> Tensor:
    return torch.randn(2, 3, 6, 6)


def tokens() -> Tensor:
    return torch.randint(0, 11, (2, 5))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "residual": (Residual, image),
    "dense": (Dense, image),
    "shuffle": (Shuffle, image),
    "grouped": (Grouped, image),
    "gated": (Gated, image),
    "attention": (Attention, tokens),
    "recurrent": (Recurrent, tokens),
    "tied": (Tied, tokens),
    "encoder": (Encoder, lambda: torch.randn(2, 4, 6)),
}
