"""Schedules against torch's own, and by hand."""

from __future__ import annotations

import pytest
import torch

from secateur.train.schedules import SCHEDULES, learning_rate_factor

TOTAL = 20


def factors(name: str, *, warmup: float = 0.0) -> list[float]:
    return [learning_rate_factor(name, step=k, total=TOTAL, warmup=warmup) for k in range(TOTAL)]


def torch_rates(make: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = make(optimizer)  # type: ignore[operator]
    rates = []
    for _ in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_torchs() -> None:
    from torch.optim.lr_scheduler import CosineAnnealingLR

    assert factors("cosine") == pytest.approx(torch_rates(lambda o: CosineAnnealingLR(o, TOTAL)))


def test_one_cycle_is_torchs() -> None:
    from torch.optim.lr_scheduler import OneCycleLR

    ours = [learning_rate_factor("one_cycle", step=k, total=TOTAL + 1) for k in range(TOTAL)]
    # one step more in all, because torch refuses to step past its end
    theirs = torch_rates(lambda o: OneCycleLR(o, 1.0, total_steps=TOTAL + 1, pct_start=0.3))
    assert ours == pytest.approx(theirs)
    last = learning_rate_factor("one_cycle", step=TOTAL, total=TOTAL + 1)
    assert last == pytest.approx(1 / 25e4)


def test_linear_and_constant_by_hand() -> None:
    assert factors("linear") == pytest.approx([1 - k / TOTAL for k in range(TOTAL)])
    assert factors("constant") == [1.0] * TOTAL


@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_rises_to_the_full_rate_then_never_above(name: str) -> None:
    rates = factors(name, warmup=0.25)
    assert rates[:4] == sorted(rates[:4])
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert min(rates) > 0
    tail = rates[6:]
    assert tail == sorted(tail, reverse=True)
