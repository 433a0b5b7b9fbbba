"""Random networks: steps that each read two earlier tensors and write a new one.

A step is a small module with `fit(width, other, number)`, which builds it for these channel widths
or returns None, and a forward over two tensors. Token steps see ``[batch, tokens, channels]``, map
steps ``[batch, channels, height, width]``; a program converts between them as it goes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 4
TOKENS, MAPS = "tokens", "maps"


class Step(nn.Module):
    """width: channels of what it writes."""

    layout = TOKENS
    width: int

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        raise NotImplementedError


class Dense(Step):
    def __init__(self, width: int, out: int, bias: bool) -> None:
        super().__init__()
        self.width, self.linear = out, nn.Linear(width, out, bias=bias)

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        return cls(width, (4, 6, 8, 12)[number % 4], number % 3 > 0)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


class Pointwise(Step):
    def __init__(self, width: int, number: int) -> None:
        super().__init__()
        self.width = width
        self.act = (nn.ReLU(), nn.GELU(), nn.Tanh(), nn.Sigmoid(), nn.Softplus())[number % 5]

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        return cls(width, number)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        out: Tensor = self.act(x)
        return out


class Project(Step):
    """`x + linear(other)` or `x * linear(other)`: couples two widths."""

    def __init__(self, width: int, other: int, number: int) -> None:
        super().__init__()
        self.width, self.linear, self.times = width, nn.Linear(other, width), number % 3 == 0

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        return cls(width, other, number)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        y = self.linear(other)
        return x * y if self.times else x + y


class Cat(Step):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        return cls(width + other) if width + other <= 24 else None

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return torch.cat([x, other], -1)


class Norm(Step):
    def __init__(self, width: int, number: int) -> None:
        super().__init__()
        self.width, self.own = width, number % 2 == 0
        self.norm = nn.LayerNorm(width)

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        return cls(width, number)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        if self.own:  # a root mean square written out
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.norm.weight
        out: Tensor = self.norm(x)
        return out


class Split(Step):
    """Two uneven pieces, one of them changed, joined the other way round; or a gate of halves."""

    def __init__(self, width: int, at: int) -> None:
        super().__init__()
        self.at, self.gates = at, at * 2 == width
        self.width = at if self.gates else width

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        return cls(width, 1 + number % (width - 1)) if width > 2 else None

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        a, b = x.split([self.at, x.shape[-1] - self.at], -1)
        return a * b.sigmoid() if self.gates else torch.cat([b.relu(), a], -1)


class Shuffle(Step):
    """Channels as rows and columns, transposed."""

    def __init__(self, width: int, rows: int) -> None:
        super().__init__()
        self.width, self.rows = width, rows

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        rows = 2 + number % 3
        return cls(width, rows) if width % rows == 0 and width > rows else None

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        b, n, c = x.shape
        return x.reshape(b, n, self.rows, c // self.rows).transpose(2, 3).reshape(b, n, c)


class Roll(Step):
    """Along the tokens, and a part of the channels selected."""

    def __init__(self, width: int, start: int) -> None:
        super().__init__()
        self.width, self.start = width - start, start

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        return cls(width, number % (width // 2)) if width > 3 else None

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return x.roll(1, 1)[..., self.start :]


class Mean(Step):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        return cls(width)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True) * x.softmax(1)


class Attention(Step):
    """Fused or separate projections, grouped queries, four ways to scale."""

    def __init__(self, width: int, heads: int, groups: int, number: int) -> None:
        super().__init__()
        self.width, self.heads, self.kv, self.number = width, heads, groups, number
        self.fused = heads == groups and number % 2 == 0
        inner = heads * 4
        if self.fused:
            self.qkv = nn.Linear(width, 3 * inner)
        else:
            self.q = nn.Linear(width, inner)
            self.k, self.v = nn.Linear(width, groups * 4), nn.Linear(width, groups * 4)
        self.scale, self.out = 0.3, nn.Linear(inner, width)

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        heads, groups = ((4, 4), (4, 2), (3, 1), (6, 6))[number % 4]
        return cls(width, heads, groups, number // 4)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        b, n, _ = x.shape
        if self.fused:
            qkv = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.unbind(0)
        else:
            q = self.q(x).view(b, n, self.heads, -1).transpose(1, 2)
            k = self.k(x).view(b, n, self.kv, -1).transpose(1, 2)
            v = self.v(x).view(b, n, self.kv, -1).transpose(1, 2)
            k = k.repeat_interleave(self.heads // self.kv, 1)
            v = v.repeat_interleave(self.heads // self.kv, 1)
        y = self.attended(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(y)  # type: ignore[no-any-return]

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.number % 4 == 0:
            return F.scaled_dot_product_attention(q, k, v)
        if self.number % 4 == 1:
            return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
        if self.number % 4 == 2:
            return (q * self.scale @ k.transpose(-1, -2)).softmax(-1) @ v
        return torch.einsum("bhij,bhjd->bhid", torch.einsum("bhid,bhjd->bhij", q, k).sigmoid(), v)


class Convolution(Step):
    layout = MAPS

    def __init__(self, width: int, out: int, groups: int, kernel: int) -> None:
        super().__init__()
        self.width = out
        self.conv = nn.Conv2d(width, out, kernel, padding=kernel // 2, groups=groups)

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        groups = (1, 2, width, 1)[number % 4]
        out = width if groups == width else (4, 6, 8, 12)[number // 4 % 4]
        fits = width % groups == 0 and out % groups == 0
        return cls(width, out, groups, (1, 3)[number % 2]) if fits else None

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class MapNorm(Step):
    layout = MAPS

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.width = width
        self.norm = nn.GroupNorm(groups, width) if groups else nn.BatchNorm2d(width)

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        groups = (0, 1, 2, 0)[number % 4]
        return cls(width, groups) if not groups or width % groups == 0 else None

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        out: Tensor = self.norm(x)
        return out


class Pixels(Step):
    """Space to channels and back, a convolution between."""

    layout = MAPS

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.conv = width, nn.Conv2d(4 * width, 4 * width, 1)

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        return cls(width) if width <= 8 else None

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(F.pixel_unshuffle(x, 2)).relu(), 2)


class Excite(Step):
    layout = MAPS

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.down, self.up = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        return cls(width)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return x * self.up(self.down(F.adaptive_avg_pool2d(x, 1)).relu()).sigmoid()


class Scales(Step):
    """A smaller map made large again and added to the map's own maximum."""

    layout = MAPS

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    @classmethod
    def fit(cls, width: int, other: int, number: int) -> Step | None:
        return cls(width)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        small = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="nearest")
        return small + F.max_pool2d(x, 3, 1, 1)


STEPS: dict[str, type[Step]] = {kind.__name__: kind for kind in Step.__subclasses__()}


class Program(nn.Module):
    """A random network over `[batch, SIDE * SIDE, 5]` tokens.

    steps: kind, which two earlier tensors it reads, and a number that decides its form. A step
    that does not fit these widths is left out.
    """

    def __init__(self, steps: Sequence[tuple[str, int, int, int]]) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 8)
        self.steps = nn.ModuleList()
        self.reads: list[tuple[int, int]] = []
        widths = [8]
        for kind, first, second, number in steps:
            x, other = len(widths) - 1 - first % len(widths), second % len(widths)
            step = STEPS[kind].fit(widths[x], widths[other], number)
            if step is not None:
                self.steps.append(step)
                self.reads.append((x, other))
                widths.append(step.width)
        self.heads = nn.ModuleList(nn.Linear(width, 3) for width in widths[-2:])

    def forward(self, x: Tensor) -> Tensor:
        made = [self.stem(x)]
        for step, (first, second) in zip(self.steps, self.reads, strict=True):
            y, other = made[first], made[second]
            if step.layout == MAPS:
                made.append(as_tokens(step(as_maps(y), as_maps(other))))
            else:
                made.append(step(y, other))
        last = made[-len(self.heads) :]
        return sum(head(y.mean(1)) for head, y in zip(self.heads, last, strict=True))


def as_maps(tokens: Tensor) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, (SIDE, SIDE))


def as_tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)


@torch.no_grad()
def roughen_(model: nn.Module, generator: torch.Generator) -> None:
    """Random values for what is made constant, so that a wrong cut cannot hide behind it."""
    for module in model.modules():
        for name in ("running_mean", "running_var", "weight", "bias"):
            tensor = getattr(module, name, None)
            if isinstance(tensor, Tensor) and isinstance(
                module, (nn.LayerNorm, nn.BatchNorm2d, nn.GroupNorm)
            ):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
