"""When ranks fail, one of them speaks, and says who waits for whom."""

from __future__ import annotations

import json
import threading
import time

import pytest

from secateur.core.errors import EngineError, TrainError
from secateur.core.plan import Plan
from secateur.core.world import Alone
from secateur.engines import failures
from secateur.engines.agreement import agree_on
from secateur.engines.failures import Hushed, LostError, one_speaks
from secateur.engines.joining import ranks_of
from secateur.engines.waiting import SILENT_S, Watch


class Memory:
    """A store in this process."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self.kept[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.kept[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.kept for key in keys)


LOST = "[gloo/transport/tcp/pair.cc] Connection closed by peer"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "GRACE_S", 0.3)
    monkeypatch.setattr(failures, "_linger", lambda watch: None)


def ended(errors: list[Exception | None]) -> list[BaseException | None]:
    """How each rank ends that fails by its error, None for one that just goes."""
    store, found = Memory(), list[BaseException | None]([None] * len(errors))

    def work(rank: int) -> None:
        error = errors[rank]
        if error is None:
            return
        watch = Watch(store, rank, len(errors))
        watch.waits_(f"meeting {rank}")
        try:
            with one_speaks(watch):
                raise error
        except BaseException as caught:
            found[rank] = caught

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(errors))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_the_lowest_rank_that_failed_by_itself_speaks() -> None:
    first, second, third = ended([RuntimeError(LOST), TrainError("mine"), TrainError("mine")])
    assert isinstance(second, TrainError) and str(second) == "mine"
    assert isinstance(first, Hushed) and isinstance(third, Hushed)
    assert not first.again  # it would fail again


def test_where_nobody_failed_by_itself_the_lowest_says_who_waits_for_whom() -> None:
    first, second, third = ended([RuntimeError(LOST), None, RuntimeError(LOST)])
    assert isinstance(first, LostError)
    assert "rank 0 is waiting for the others in meeting 0" in str(first)
    assert "rank 1 has not begun" in str(first) and "Connection closed by peer" in str(first)
    assert second is None and isinstance(third, Hushed) and third.again


def test_errors_of_a_model_are_its_own() -> None:
    (error,) = ended([RuntimeError("mat1 and mat2 shapes cannot be multiplied")])
    assert type(error) is RuntimeError


def test_a_rank_that_tells_no_more_is_silent() -> None:
    store = Memory()
    gone = time.time() - SILENT_S - 10
    store.set("at/1", json.dumps(["step 7 of the training", False, gone, gone]))
    report = Watch(store, 0, 2).report()
    assert "rank 1 has been silent for" in report and "step 7 of the training" in report


class Two(Alone):
    """A world in which another rank says something else."""

    def __init__(self, others: list[object]) -> None:
        object.__setattr__(self, "others", others)
        object.__setattr__(self, "rank", 0)
        object.__setattr__(self, "size", 2)

    def gather(self, value, *, what):  # type: ignore[no-untyped-def]
        return [value, self.others.pop(0)]  # type: ignore[attr-defined]


def test_plans_that_differ_are_an_error_that_says_where(plan: Plan) -> None:
    group, kept = next(iter(plan.keep.items()))
    others = [list(units) for units in plan.keep.values()]
    others[0] = [*kept[:-1], kept[-1] + 1]
    theirs = dict(zip(plan.keep, others, strict=True))
    with pytest.raises(EngineError, match="that of rank 1 is not") as caught:
        agree_on(plan, Two(["another hash", theirs]))
    assert f"of group {group} rank 0 keeps units" in str(caught.value)
    assert agree_on(plan, Two([plan.hash])) is plan


@pytest.fixture
def plan() -> Plan:
    import torch
    from torch import nn

    import secateur

    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    graph = secateur.trace(model, torch.zeros(1, 4))
    return secateur.plan(graph, secateur.score(graph, model), budget="macs=50%")


def test_slurm_says_who_a_process_is() -> None:
    environment = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
    found = ranks_of(environment)
    assert found is not None and (found.rank, found.size, found.local) == (3, 8, 1)
    assert ranks_of({}) is None
