"""Small models with residual blocks, one for each way in which a forward goes through them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

WIDTH, LAYERS = 8, 4


class Layer(nn.Module):
    """Pre-norm residual block that knows its number."""

    def __init__(self, number: int, hidden: int = 12) -> None:
        super().__init__()
        self.layer_idx = number
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, hidden), nn.Linear(hidden, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(self.norm(x)).relu())


class InPlace(Layer):
    def forward(self, x: Tensor) -> Tensor:
        x += self.down(self.up(self.norm(x)).relu())
        return x


class WithBias(Layer):
    """Takes a bias, and makes it where there is none, as T5's first block does."""

    def forward(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        if bias is None:
            bias = self.up(x).mean(-1, keepdim=True)
        return super().forward(x) + 0 * bias, bias


class Stack(nn.Module):
    """The usual loop. `kind` makes the layers, `walk` goes through them."""

    def __init__(self, kind: type[Layer] = Layer, layers: int = LAYERS) -> None:
        super().__init__()
        self.count = layers
        self.stem = nn.Linear(5, WIDTH)
        self.layers = nn.ModuleList(kind(k, 10 + 2 * k) for k in range(layers))
        self.scales = [1.0 + k for k in range(layers)]
        self.head = nn.Linear(WIDTH, 3)

    def walk(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.walk(self.stem(x)))


class Numbered(Stack):
    def walk(self, x: Tensor) -> Tensor:
        for k in range(self.count):
            x = self.layers[k](x)
        return x


class Paired(Stack):
    """Each layer has a scale at its position in a list of numbers."""

    def walk(self, x: Tensor) -> Tensor:
        for layer, scale in zip(self.layers, self.scales, strict=False):
            x = layer(x * scale)
        return x


class Collecting(Stack):
    """Every layer's output is read at the end."""

    def walk(self, x: Tensor) -> Tensor:
        seen = []
        for layer in self.layers:
            x = layer(x)
            seen.append(x)
        return torch.stack(seen).sum(0)


class Passing(Stack):
    """Blocks that hand on what they made besides the stream."""

    def __init__(self) -> None:
        super().__init__(WithBias)

    def walk(self, x: Tensor) -> Tensor:
        bias = None
        for layer in self.layers:
            x, bias = layer(x, bias=bias)
        return x


class Recurring(Stack):
    """One layer that runs several times."""

    def walk(self, x: Tensor) -> Tensor:
        return self.layers[0](self.layers[0](x))


class Deep(nn.Module):
    """Stages of blocks in Sequentials, with named children and a projection between."""

    def __init__(self) -> None:
        super().__init__()
        first: Any = {"one": Layer(0), "two": Layer(1)}
        self.stem = nn.Linear(5, WIDTH)
        self.stages = nn.Sequential(
            nn.Sequential(*(Layer(k) for k in range(3))),
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)),
            nn.Sequential(),
        )
        for name, layer in first.items():
            self.stages[2].add_module(name, layer)
        self.single = Layer(0)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.single(self.stages(self.stem(x))))


def rows() -> Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
