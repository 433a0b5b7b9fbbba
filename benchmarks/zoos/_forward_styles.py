"""Ways to write a forward: parametrised and shared weights, nested values, branches, caches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoos._torch_layers import TOKENS


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
    """One block called many times, and one norm shared by blocks (as in ALBERT)."""

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
