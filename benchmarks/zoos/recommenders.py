"""Recommenders: factorisation, towers and interactions between embedded categories.

Each is written small after its paper. Tables are embeddings or embedding bags with offsets, sizes
differ by field, and widths are neither all equal nor all powers of two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIELDS = (11, 17, 30, 7)
DENSE = 5


class MatrixFactorisation(nn.Module):
    """Koren et al. 2009: a dot product of user and item, with biases."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(40, width), nn.Embedding(60, width)
        self.user_bias, self.item_bias = nn.Embedding(40, 1), nn.Embedding(60, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        dot = (self.users(user) * self.items(item)).sum(-1)
        return dot + self.user_bias(user).squeeze(-1) + self.item_bias(item).squeeze(-1)


class NeuMf(nn.Module):
    """He et al. 2017: a generalised factorisation beside a multilayer perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(40, 12), nn.Embedding(60, 12)
        self.deep_users, self.deep_items = nn.Embedding(40, 20), nn.Embedding(60, 28)
        self.deep = nn.Sequential(nn.Linear(48, 36), nn.ReLU(), nn.Linear(36, 10), nn.ReLU())
        self.head = nn.Linear(22, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        shallow = self.users(user) * self.items(item)
        deep = self.deep(torch.cat([self.deep_users(user), self.deep_items(item)], -1))
        return torch.sigmoid(self.head(torch.cat([shallow, deep], -1))).squeeze(-1)


class Dlrm(nn.Module):
    """Naumov et al. 2019: embedding bags and the dense features meet in pairwise dot products."""

    def __init__(self, width: int = 20, mode: str = "sum") -> None:
        super().__init__()
        self.bottom = nn.Sequential(
            nn.Linear(DENSE, 36), nn.ReLU(), nn.Linear(36, width), nn.ReLU()
        )
        self.tables = nn.ModuleList(nn.EmbeddingBag(n, width, mode=mode) for n in FIELDS)
        pairs = (len(FIELDS) + 1) * len(FIELDS) // 2
        self.top = nn.Sequential(nn.Linear(width + pairs, 28), nn.ReLU(), nn.Linear(28, 1))

    def forward(self, dense: Tensor, indices: list[Tensor], offsets: list[Tensor]) -> Tensor:
        x = self.bottom(dense)
        rows = [t(i, o) for t, i, o in zip(self.tables, indices, offsets, strict=True)]
        stack = torch.cat([x, *rows], 1).view(x.shape[0], -1, x.shape[1])
        dots = torch.bmm(stack, stack.transpose(1, 2))
        i, j = torch.tril_indices(dots.shape[1], dots.shape[2], offset=-1)
        return torch.sigmoid(self.top(torch.cat([x, dots[:, i, j]], 1)))


class WideAndDeep(nn.Module):
    """Cheng et al. 2016: a linear model on categories beside a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.ModuleList(nn.Embedding(n, 1) for n in FIELDS)
        self.tables = nn.ModuleList(nn.Embedding(n, 8 + 4 * k) for k, n in enumerate(FIELDS))
        inputs = DENSE + sum(8 + 4 * k for k in range(len(FIELDS)))
        self.deep = nn.Sequential(
            nn.Linear(inputs, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Dropout(0.1),
            nn.Linear(40, 20), nn.ReLU(), nn.Linear(20, 1),
        )  # fmt: skip

    def forward(self, dense: Tensor, categories: Tensor) -> Tensor:
        columns = categories.unbind(1)
        wide = sum(table(c) for table, c in zip(self.wide, columns, strict=True))
        rows = [table(c) for table, c in zip(self.tables, columns, strict=True)]
        return torch.sigmoid(wide + self.deep(torch.cat([dense, *rows], 1)))


class DeepFm(nn.Module):
    """Guo et al. 2017: a factorisation machine and a perceptron on one table with offsets."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.table = nn.Embedding(sum(FIELDS), width)
        self.linear = nn.Embedding(sum(FIELDS), 1)
        starts = torch.tensor([0, *FIELDS[:-1]]).cumsum(0)
        self.register_buffer("starts", starts)
        self.deep = nn.Sequential(nn.Linear(width * len(FIELDS), 36), nn.ReLU(), nn.Linear(36, 1))

    def forward(self, categories: Tensor) -> Tensor:
        rows = self.table(categories + self.starts)
        crossed = rows.sum(1).square() - rows.square().sum(1)
        first = self.linear(categories + self.starts).sum(1)
        return torch.sigmoid(
            first + 0.5 * crossed.sum(1, keepdim=True) + self.deep(rows.flatten(1))
        )


class DeepCross(nn.Module):
    """Wang et al. 2021 (DCN-V2): explicit crosses beside a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, 10) for n in FIELDS)
        width = DENSE + 10 * len(FIELDS)
        self.crosses = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 12, bias=False), nn.Linear(12, width)) for _ in range(2)
        )
        self.deep = nn.Sequential(nn.Linear(width, 36), nn.ReLU(), nn.Linear(36, 20), nn.ReLU())
        self.head = nn.Linear(width + 20, 1)

    def forward(self, dense: Tensor, categories: Tensor) -> Tensor:
        rows = [table(categories[:, k]) for k, table in enumerate(self.tables)]
        start = crossed = torch.cat([dense, *rows], 1)
        for cross in self.crosses:
            crossed = start * cross(crossed) + crossed
        return self.head(torch.cat([crossed, self.deep(start)], 1))


class TwoTower(nn.Module):
    """Yi et al. 2019: normalised towers of users and items, all pairs of a batch scored."""

    def __init__(self) -> None:
        super().__init__()
        self.user_table, self.item_table = nn.Embedding(40, 12), nn.Embedding(60, 20)
        self.user = nn.Sequential(nn.Linear(12 + DENSE, 36), nn.ReLU(), nn.Linear(36, 24))
        self.item = nn.Sequential(nn.Linear(20, 28), nn.GELU(), nn.Linear(28, 24))
        self.temperature = nn.Parameter(torch.tensor(0.1))

    def forward(self, user: Tensor, features: Tensor, item: Tensor) -> Tensor:
        u = F.normalize(self.user(torch.cat([self.user_table(user), features], -1)), dim=-1)
        i = F.normalize(self.item(self.item_table(item)), dim=-1)
        return u @ i.t() / self.temperature


class DeepInterest(nn.Module):
    """Zhou et al. 2018 (DIN): a history weighted by its relevance to the candidate."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.items = nn.Embedding(60, width, padding_idx=0)
        self.relevance = nn.Sequential(nn.Linear(4 * width, 20), nn.PReLU(20), nn.Linear(20, 1))
        self.top = nn.Sequential(nn.Linear(2 * width, 28), nn.PReLU(28), nn.Linear(28, 1))

    def forward(self, history: Tensor, candidate: Tensor) -> Tensor:
        past = self.items(history)
        now = self.items(candidate)[:, None].expand_as(past)
        pair = torch.cat([past, now, past - now, past * now], -1)
        flat = self.relevance[0](pair)
        hidden = self.relevance[1](flat.transpose(1, 2)).transpose(1, 2)
        weights = self.relevance[2](hidden).masked_fill((history == 0)[..., None], 0.0)
        interest = (weights * past).sum(1)
        return torch.sigmoid(self.top(torch.cat([interest, self.items(candidate)], -1)))


class SasRec(nn.Module):
    """Kang and McAuley 2018: causal self-attention over a history, scored against all items."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.items, self.positions = nn.Embedding(60, width), nn.Embedding(16, width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inner = nn.Sequential(nn.Linear(width, 28), nn.ReLU(), nn.Linear(28, width))

    def forward(self, history: Tensor) -> Tensor:
        steps = history.shape[1]
        x = self.items(history) + self.positions(torch.arange(steps, device=history.device))
        mask = torch.triu(torch.ones(steps, steps, dtype=torch.bool), 1)
        q = self.norm1(x)
        x = x + self.attention(q, q, q, attn_mask=mask, need_weights=False)[0]
        x = x + self.inner(self.norm2(x))
        return x[:, -1] @ self.items.weight.t()


class Gru4Rec(nn.Module):
    """Hidasi et al. 2015: a GRU over a session, tied item embeddings."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.items = nn.Embedding(60, width)
        self.gru = nn.GRU(width, 28, batch_first=True)
        self.back = nn.Linear(28, width)

    def forward(self, history: Tensor) -> Tensor:
        _, last = self.gru(self.items(history))
        return self.back(last[-1]) @ self.items.weight.t()


def _categories() -> Tensor:
    return torch.stack([torch.randint(0, n, (6,)) for n in FIELDS], 1)


def _bags() -> tuple[Tensor, list[Tensor], list[Tensor]]:
    indices = [torch.randint(0, n, (12,)) for n in FIELDS]
    offsets = [torch.tensor([0, 2, 3, 5, 9, 11]) for _ in FIELDS]
    return torch.randn(6, DENSE), indices, offsets


def _pairs() -> tuple[Tensor, Tensor]:
    return torch.randint(0, 40, (6,)), torch.randint(0, 60, (6,))


def _history() -> Tensor:
    return torch.randint(1, 60, (4, 7))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "matrix_factorisation": (MatrixFactorisation, _pairs),
    "neumf": (NeuMf, _pairs),
    "dlrm": (Dlrm, _bags),
    "dlrm_mean": (lambda: Dlrm(mode="mean"), _bags),
    "wide_and_deep": (WideAndDeep, lambda: (torch.randn(6, DENSE), _categories())),
    "deepfm": (DeepFm, _categories),
    "dcn_v2": (DeepCross, lambda: (torch.randn(6, DENSE), _categories())),
    "two_tower": (TwoTower, lambda: (_pairs()[0], torch.randn(6, DENSE), _pairs()[1])),
    "din": (DeepInterest, lambda: (_history(), torch.randint(1, 60, (4,)))),
    "sasrec": (SasRec, _history),
    "gru4rec": (Gru4Rec, _history),
}


def names() -> list[str]:
    return list(MODELS)


def build(name: str, seed: int) -> tuple[nn.Module, Any]:
    make, inputs = MODELS[name]
    torch.manual_seed(seed)
    return make().eval(), inputs()
