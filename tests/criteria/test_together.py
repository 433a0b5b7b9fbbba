"""Ranks that score together: the bits of one process, and one error for all when one fails."""

from __future__ import annotations

import math
import threading

import pytest
import torch
from small_models import batches, made
from torch import nn
from worlds import on_ranks

from secateur import score, trace
from secateur.core.errors import EngineError, ScoreError
from secateur.core.lookup import find, names
from secateur.core.timing import Timed
from secateur.criteria import shares
from secateur.criteria.blocks import score_blocks
from secateur.criteria.divided import divided
from secateur.criteria.shares import Shares, shared, split
from secateur.criteria.together import together

LOSS = nn.functional.cross_entropy
CRITERIA = [
    name
    for name in names("secateur.criteria")
    if "stream" not in find("secateur.criteria", name, kind="criterion").NEEDS
]
# threads share the process's choice of attention kernels, so second derivatives of attention are
# left to real processes
TWICE = {"hessian_gradient", "hessian_diagonal"}


def data(
    count: int = 7, *, seed: int = 0, width: int = 4
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Labelled images in batches of 2 to 5; ranks are threads, so by a generator of their own."""
    own = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(2 + k % 4, 3, width, width, dtype=torch.float64, generator=own),
            torch.randint(5, (2 + k % 4,), generator=own),
        )
        for k in range(count)
    ]


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("name", ["conv", "attention"])
def test_scores_are_those_of_one_process(criterion, name) -> None:
    rule = find("secateur.criteria", criterion, kind="criterion")
    if name == "attention" and (rule.NEEDS & TWICE or criterion == "norm_scale"):
        pytest.skip("kernels are the process's; no group runs through a norm's scale alone")
    torch.set_num_threads(1)
    graph = trace(made(name), batches()[0][0])
    given, models = data(), [made(name) for _ in range(3)]
    alone = score(graph, made(name), criterion=criterion, data=given, loss_fn=LOSS)

    def work(world):
        return score(
            graph, models[world.rank], criterion=criterion, data=given, loss_fn=LOSS, world=world
        )

    for found in on_ranks(3, work):
        assert not isinstance(found, Exception), found
        assert list(found) == list(alone)
        for id, values in found.items():
            assert torch.equal(values.view(torch.int64), alone[id].view(torch.int64)), id


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return x + self.layer(x).relu()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Branch() for _ in range(4))
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


@pytest.mark.parametrize("greedy", [False, True])
def test_blocks_too(greedy) -> None:
    torch.manual_seed(5)
    model = Residual().eval()
    rows = [torch.randn(3 + k, 6) for k in range(5)]
    graph = trace(model, rows[0])
    assert [block for block in graph.blocks if block.pinned is None]
    alone = score_blocks(graph, model, data=rows, greedy=greedy)
    twins = [Residual().eval() for _ in range(3)]
    for twin in twins:
        twin.load_state_dict(model.state_dict())
    found = on_ranks(
        3,
        lambda world: score_blocks(
            graph, twins[world.rank], data=iter(rows), greedy=greedy, world=world
        ),
    )
    for one in found:
        assert not isinstance(one, Exception), one
        assert {k: v.tolist() for k, v in one.items()} == {k: v.tolist() for k, v in alone.items()}


@pytest.mark.parametrize("criterion", ["taylor", "snip", "wanda", "apoz", "reconstruction"])
def test_more_ranks_than_batches(criterion) -> None:
    graph = trace(made("conv"), batches()[0][0])
    models = [made("conv") for _ in range(4)]
    alone = score(graph, models[0], criterion=criterion, data=data(2), loss_fn=LOSS)
    found = on_ranks(
        4,
        lambda world: score(
            graph, models[world.rank], criterion=criterion, data=data(2), loss_fn=LOSS, world=world
        ),
    )
    for one in found:
        assert not isinstance(one, Exception), one
        assert all(torch.equal(one[id], alone[id]) for id in alone)


def failing(criterion: str, given, size: int = 3, change=None) -> list[str]:
    """What each rank raises; given: the data of a rank."""
    graph = trace(made("conv"), batches()[0][0])
    models = [made("conv") for _ in range(size)]
    if change is not None:
        change(models)

    own = [given(rank) for rank in range(size)]  # not by the threads: there is one random state

    def work(world):
        score(
            graph,
            models[world.rank],
            criterion=criterion,
            data=own[world.rank],
            loss_fn=LOSS,
            world=world,
        )

    found = on_ranks(size, work)
    assert all(isinstance(error, Exception) for error in found), found
    assert all(type(error) is type(found[0]) for error in found), found
    return [f"{type(error).__name__}: {error}" for error in found]


@pytest.mark.parametrize(
    "criterion", ["taylor", "fisher", "snip", "grasp", "obd", "wanda", "apoz", "reconstruction"]
)
def test_a_nan_on_one_rank_is_the_same_error_on_all(criterion) -> None:
    def spoilt(rank):
        found = data(12)  # enough for speeds to be measured on the way
        found[4][0][0, 0, 0, 0] = math.nan
        return found

    errors = failing(criterion, spoilt)
    assert len(set(errors)) == 1 and "ScoreError" in errors[0]
    if criterion in ("taylor", "fisher", "snip", "grasp", "obd"):
        assert "the loss of calibration batch 4 is nan" in errors[0]


def test_data_that_differ_are_told() -> None:
    assert len(set(errors := failing("taylor", lambda rank: data(7 - (rank == 2))))) == 1
    assert "rank 0 was given 7 calibration batches and rank 2 6; pass the same" in errors[0]
    errors = failing("taylor", lambda rank: data(7, width=4 + (rank == 1)))
    assert "batch 0 is (2x3x4x4, 2) and (2x3x5x5, 2) on ranks 0 and 1" in errors[0]
    errors = failing("taylor", lambda rank: data(7, seed=int(rank == 1)))
    assert "batch 0 is of other values on ranks 0 and 1" in errors[0]
    assert "holds no batch" in failing("taylor", lambda rank: [])[0]
    assert (
        "whether there is data is True on rank 0 and False on rank 1"
        in failing("taylor", lambda rank: None if rank == 1 else data())[0]
    )


def test_models_that_differ_are_told() -> None:
    def change(models):
        with torch.no_grad():
            models[2].conv2.weight[0] += 1

    (error,) = set(failing("l2", lambda rank: None, change=change))
    assert "EngineError" in error and "conv2.weight has other values on rank 2" in error


def test_an_error_of_python_stops_all_and_says_where() -> None:
    whole = data()

    def broken(rank):
        if rank == 1:
            raise OSError("the disk is gone")
        return whole

    graph, models = trace(made("conv"), batches()[0][0]), [made("conv") for _ in range(3)]

    def lazily(rank):
        yield from broken(rank)

    def work(world):
        return score(
            graph,
            models[world.rank],
            criterion="taylor",
            data=lazily(world.rank),
            loss_fn=LOSS,
            world=world,
        )

    found = on_ranks(3, work)
    assert isinstance(found[1], OSError)
    for error in (found[0], found[2]):
        assert isinstance(error, EngineError)
        assert "rank 1 of 3 failed, so all stop: OSError: the disk is gone" in str(error)


def test_a_wrong_argument_on_one_rank_stops_all() -> None:
    graph, models = trace(made("conv"), batches()[0][0]), [made("conv") for _ in range(2)]

    def work(world):
        criterion = "l2" if world.rank == 0 else "tailor"
        return score(graph, models[world.rank], criterion=criterion, world=world)

    for error in on_ranks(2, work):
        assert isinstance(error, ValueError) and "did you mean 'taylor'" in str(error)


def test_the_lowest_rank_that_fails_is_believed() -> None:
    def work(world):
        with together(world, what="a test") as ranks:
            if world.rank:
                raise ScoreError(f"by {world.rank}")
            ranks.sum_([torch.ones(1)], what="ones")

    assert [str(error) for error in on_ranks(4, work)] == ["by 1"] * 4


def test_a_failure_after_the_last_meeting_reaches_all() -> None:
    def work(world):
        with together(world, what="a test") as ranks:
            ranks.wait(what="all")
            with together(ranks, what="within") as inner:
                assert inner is ranks
            if world.rank == 2:
                raise ScoreError("late")

    assert [str(error) for error in on_ranks(3, work)] == ["late"] * 3


def test_the_costliest_goes_first() -> None:
    assert split([5.0, 1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0]) == [[0], [1, 2, 3, 4, 5]]
    assert split([1.0] * 6, [2.0, 1.0]) == [[0, 1, 3, 4], [2, 5]]
    assert split([1.0], [1.0, 1.0, 1.0]) == [[0], [], []]


def test_a_slow_rank_gets_less(monkeypatch) -> None:
    clock = {}
    monkeypatch.setattr(shares.time, "perf_counter", lambda: clock[threading_rank.rank])

    threading_rank = threading.local()

    def work(world):
        threading_rank.rank = world.rank
        clock[world.rank] = 0.0
        given = shared([torch.ones(1)] * 24, world)
        assert isinstance(given, Shares)
        own = []
        for number, _ in given.pairs():
            own.append(number)
            clock[world.rank] += 3.0 if world.rank else 1.0
        assert [number for number, _ in given.pairs()] == own
        return own

    fast, slow = on_ranks(2, work)
    assert sorted(fast + slow) == list(range(24))
    assert (len(fast), len(slow)) == (17, 7)  # 3 each, then 18 as 3 : 1


def test_results_are_sent_as_they_are() -> None:
    values = [torch.tensor([-0.0, math.nan]), torch.tensor([math.inf, 1e-320], dtype=torch.float64)]

    def work(world):
        return divided(
            lambda k: values[k], [[2], [2]], costs=[1.0, 2.0], world=world, what="a test"
        )

    for found in on_ranks(3, work):
        assert math.copysign(1, found[0][0]) == -1 and found[0][1].isnan()
        assert found[1].tolist() == [math.inf, 1e-320]


def test_waiting_is_measured() -> None:
    def work(world):
        timed = Timed(world)
        with together(timed, what="a test") as ranks:
            if world.rank == 0:
                threading.Event().wait(0.2)
            ranks.sum_([torch.ones(4)], what="ones")
        return timed.timings()

    for timings in on_ranks(2, work):
        assert [timing.rank for timing in timings] == [0, 1]
        # only which of the two waits is certain
        assert timings[1].waited_s["ones"] > timings[0].waited_s["ones"]
        assert timings[1].idle > timings[0].idle and timings[0].sent_bytes == 16
