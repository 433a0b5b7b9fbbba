"""A dimension that `squeeze` left in place must not become one of size 1, which it would drop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from secateur.criteria.score import score
from secateur.cut import cut, verify
from secateur.graph import trace
from secateur.select.plan import plan


class Squeezed(nn.Module):
    """Channels as the only dimension that is not of size 1."""

    def __init__(self, drop: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.drop, self.head = nn.Conv2d(3, 5, 4), drop, nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.conv(x)).reshape(len(x), -1))


@pytest.mark.parametrize(
    ("drop", "left"),
    [
        (lambda y: y.squeeze(), 2),
        (lambda y: torch.squeeze(y, 1), 2),
        (lambda y: y.squeeze((1, 2)), 2),
        (lambda y: y.squeeze(-1).squeeze(-1), 1),
    ],
)
def test_what_a_squeeze_kept_stays_more_than_one(
    drop: Callable[[Tensor], Tensor], left: int
) -> None:
    model, x = Squeezed(drop), torch.randn(2, 3, 4, 4)
    graph = trace(model, x)
    made = plan(graph, score(graph, model, criterion="random", seed=0), keep=0.2)
    (kept,) = made.keep.values()
    assert len(kept) == left
    small = cut(model, made)
    assert verify(model, small, made, x, dtype=torch.float64).max_rel_error < 1e-12
