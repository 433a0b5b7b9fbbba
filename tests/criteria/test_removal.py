"""The order, the errors and the weights of greedy removal equal those of least squares in loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateur.criteria.removal import Reader, greedy_removal, without


def reader(units: int, each: int, outputs: int, seed: int) -> tuple[Reader, Tensor]:
    """A matrix that reads units of so many features, which have much in common, and its inputs."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(80, units * each // 2, generator=generator, dtype=torch.float64)
    mixed = torch.randn(units * each // 2, units * each, generator=generator, dtype=torch.float64)
    x = common @ mixed
    x = x + 0.3 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    weight = torch.randn(units * each, outputs, generator=generator, dtype=torch.float64)
    indices = torch.arange(units * each).reshape(each, units).T  # a unit's features lie apart
    return Reader(x.T @ x, weight, indices, float((x @ weight).square().sum())), x


def left_over(one: Reader, x: Tensor, gone: list[int]) -> float:
    """The relative error that the best weights of the other features leave."""
    rest = [k for k in range(x.shape[1]) if k not in one.indices_UR[gone].flatten().tolist()]
    wanted = x @ one.weight_FM
    best = torch.linalg.lstsq(x[:, rest], wanted).solution if rest else torch.zeros(0, 1)
    made = x[:, rest] @ best if rest else torch.zeros_like(wanted)
    return float((wanted - made).square().sum()) / one.size


@pytest.mark.parametrize("each", [1, 2])
def test_each_step_takes_the_unit_that_costs_all_readers_least(each) -> None:
    readers = [reader(6, each, 3, seed) for seed in (0, 1)]
    found = greedy_removal([one for one, _ in readers])
    gone: list[int] = []
    for count in range(6):
        left = [unit for unit in range(6) if unit not in gone]
        costs = [sum(left_over(one, x, [*gone, unit]) for one, x in readers) for unit in left]
        gone.append(left[costs.index(min(costs))])
        assert found.order_U.tolist()[: count + 1] == gone
        assert float(found.errors_U[count]) == pytest.approx(min(costs), rel=1e-6)


def test_other_weights_make_up_for_what_is_gone() -> None:
    one, x = reader(6, 2, 3, 0)
    weight_FM = without(one, torch.tensor([1, 4]))
    own = one.indices_UR[[1, 4]].flatten().tolist()
    rest = [k for k in range(12) if k not in own]
    assert not weight_FM[own].any()
    best = torch.linalg.lstsq(x[:, rest], x @ one.weight_FM).solution
    torch.testing.assert_close(weight_FM[rest], best, rtol=1e-6, atol=1e-9)


def test_large_groups_go_a_few_at_a_time_and_errors_only_rise() -> None:
    one, x = reader(150, 1, 4, 0)
    one = Reader(one.square_FF + torch.eye(150), one.weight_FM, one.indices_UR, one.size)
    found = greedy_removal([one])
    assert sorted(found.order_U.tolist()) == list(range(150))
    assert bool((found.errors_U.diff() >= 0).all())
    # three at a time are judged together, so the first three are those that cost least alone
    damped = torch.cat([x, torch.eye(150)])
    alone = torch.tensor([left_over(one, damped, [unit]) for unit in range(150)])
    assert found.order_U[:3].tolist() == alone.argsort(stable=True)[:3].tolist()
    # what they cost is what they cost together
    together = left_over(one, damped, found.order_U[:3].tolist())
    assert float(found.errors_U[2]) == pytest.approx(together, rel=1e-6)
