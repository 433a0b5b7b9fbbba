"""Random numbers: each rank its own for its units, the same ones everywhere else."""

from __future__ import annotations

import torch
from comparing import case_of
from torch import Tensor, nn

from secateur.engines.tensor_parallel.streams import Streams


class Inside(nn.Module):
    """Draws for units, and in a child for what is whole."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return torch.rand(3), self.child(x), torch.rand(3)


def _drawn(rank: int) -> tuple[list[Tensor], Tensor]:
    module, streams = Inside(), Streams(rank)
    module.register_forward_pre_hook(streams.own)
    module.register_forward_hook(streams.common_again)
    module.child.register_forward_pre_hook(streams.common)
    module.child.register_forward_hook(streams.own_again)
    torch.manual_seed(7)
    first, whole, second = module(torch.ones(64))
    assert not streams.waiting
    return [first, second], torch.cat([whole, torch.rand(2)])


def test_own_numbers_differ_and_common_ones_do_not() -> None:
    (one, whole), (other, same) = _drawn(0), _drawn(1)
    assert torch.equal(whole, same)
    assert not torch.equal(one[0], other[0]) and not torch.equal(one[1], other[1])
    assert not torch.equal(one[0], one[1])


class Dropping(nn.Module):
    """Dropout on a shared-out width, and on what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.inner, self.down = nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 4)
        self.outer = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.down(self.inner(self.up(x))))


def test_the_plan_says_who_draws_for_units() -> None:
    meetings = case_of((Dropping(), torch.randn(2, 4)), size=2).plan.meetings
    assert meetings.own_random == {"inner"}
    assert not meetings.common_random
