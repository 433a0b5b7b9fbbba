"""A search: reproducible, shared, resumed after a kill, honest about what failed."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_search import RECOVERY, SMALL, samples, searched, small_task, trained, wide
from torch import nn

from secateur.core.copies import copied
from secateur.core.errors import StorageError, TrainError
from secateur.core.plan import Plan
from secateur.graph import trace
from secateur.search.study import Limits, search_front
from secateur.search.study_folder import SearchFolder
from secateur.search.study_found import read_found
from secateur.search.study_space import Space
from secateur.search.timing import time_device
from secateur.search.trial import Trial
from secateur.search.trial_task import Early
from secateur.search.trial_watch import prospectless
from secateur.storage import load
from secateur.train.run import Run

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def with_optuna() -> None:
    pytest.importorskip("optuna")


def told(trials: tuple[Trial, ...]) -> list[Mapping[str, Any]]:
    """What trials came to, without the seconds that they took."""
    return [{**trial.to_json(), "seconds": None} for trial in trials]


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("optuna")
    folder = tmp_path_factory.mktemp("search") / "six"
    searched(folder, 6)
    return folder


def test_a_search_begins_with_the_line_and_keeps_every_plan(six: Path) -> None:
    found = read_found(six)
    assert [trial.number for trial in found.trials] == list(range(6))
    assert [trial.choice.share for trial in found.line] == [0.8, 0.133333]
    assert all(trial.choice.words == "l2, uniform, one shot, lr 0.05" for trial in found.line)
    graph = trace(trained(), torch.zeros(2, 6))
    for trial in found.trials:
        plan = Plan.load(found.plan(trial))
        assert plan.graph_hash == graph.hash
        assert plan.hash == trial.plan
        assert trial.costs["macs"] == plan.after.macs / plan.before.macs <= trial.choice.share
    assert {trial.choice.schedule for trial in found.trials} == {"one_shot", "iterative"}


def test_the_models_of_the_front_and_the_line_are_kept_and_measure_what_was_told(
    six: Path,
) -> None:
    found, task = read_found(six), small_task()
    kept = {path.name for path in (six / "models").iterdir()}
    assert kept == {f"{trial.number:04d}" for trial in (*found.front, *found.line)}
    for trial in found.front:
        path = found.model(trial)
        assert path is not None
        model = load(path, lambda: copied(trained()))
        assert task.validate(model) == trial.metric
    assert not list((six / "work").iterdir())


def test_the_same_seed_gives_the_same_trials_stopped_or_not(six: Path, tmp_path: Path) -> None:
    for trials in (2, 4):
        searched(tmp_path / "again", trials)
    assert told(read_found(tmp_path / "again").trials) == told(read_found(six).trials[:4])
    other = search_front(
        small_task(), tmp_path / "other", space=SMALL, limits=Limits(trials=3), seed=1
    )
    assert told(other.trials)[2:] != told(read_found(six).trials)[2:3]


def test_a_trial_left_behind_goes_on_from_its_checkpoint(
    six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, epochs = tmp_path / "left", []
    plain = Run.train_epoch_

    def dies(run: Run, on_step: Any) -> Any:
        epochs.append(run.position.epoch)
        if len(epochs) == 4:  # the second of the second trial
            raise SystemExit  # of which nobody is told
        return plain(run, on_step)

    monkeypatch.setattr(Run, "train_epoch_", dies)
    with pytest.raises(SystemExit):
        searched(folder, 3)
    assert len(read_found(folder).trials) == 1
    assert SearchFolder(folder).starts(1) == 1
    found = searched(folder, 3)
    assert epochs[:5] == [0, 1, 0, 1, 1]  # the second again, and not the first
    assert told(found.trials) == told(read_found(six).trials[:3])


def test_a_trial_whose_process_died_again_and_again_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(run: Run, on_step: Any) -> Any:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(Run, "train_epoch_", dies)
        for _ in range(4):
            with pytest.raises(SystemExit):
                searched(tmp_path, 1)
    found = searched(tmp_path, 2)
    assert [trial.state for trial in found.trials] == ["failed", "complete"]
    assert "without a word 3 times" in found.trials[0].reason


def test_a_torn_journal_is_mended(six: Path, tmp_path: Path) -> None:
    folder = tmp_path / "torn"
    searched(folder, 2)
    with (folder / "journal.log").open("a", encoding="utf-8") as file:
        file.write('{"op_code":4,"wor')
    assert told(searched(folder, 3).trials) == told(read_found(six).trials[:3])


def test_the_time_limit_stops_within_a_trial_which_goes_on_later(
    six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, clock = tmp_path / "limited", iter(range(10**6))
    with monkeypatch.context() as patched:
        patched.setattr("secateur.search.trial_watch.time.monotonic", lambda: float(next(clock)))
        limits = Limits(trials=4, time_limit_s=9.0)
        found = search_front(small_task(), folder, space=SMALL, limits=limits)
    assert len(found.trials) < 2
    number = len(found.trials)
    assert SearchFolder(folder).starts(number) == 0
    assert told(searched(folder, 2).trials) == told(read_found(six).trials[:2])


def test_what_fails_is_told_and_is_not_the_end(tmp_path: Path) -> None:
    calls = []

    def validate(model: nn.Module) -> float:
        calls.append(model)
        if len(calls) == 3:
            raise KeyError("a mistake in the metric")
        return 0.5

    space = replace(SMALL, shares=(1e-5, 0.8), line=3)
    found = searched(tmp_path, 3, space=space, validate=validate)
    assert [trial.state for trial in found.trials] == ["failed", "complete", "failed"]
    assert found.trials[0].reason == "KeyError: 'a mistake in the metric'"
    assert found.trials[2].reason.startswith("BudgetError: macs=0.0013% cannot be met")


def test_a_search_in_which_everything_fails_ends(tmp_path: Path) -> None:
    metrics = iter([0.5] + [float("nan")] * 99)  # the dense model's is a number
    with pytest.raises(TrainError, match=r"none of 5 trials came to an end.*the metric is nan"):
        searched(
            tmp_path,
            9,
            space=replace(SMALL, line=5, schedules=("one_shot",)),
            validate=lambda model: next(metrics),
            recovery=replace(RECOVERY, epochs=1),
        )


def test_a_folder_of_another_search_or_of_something_else_is_refused(
    six: Path, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match=r"'lr': 0\.05.*'lr': 0\.1"):
        searched(six, 9, recovery=replace(small_task().recovery, lr=0.1))
    other = nn.Sequential(*[type(m)(*_sizes(m)) for m in trained().children()])
    with pytest.raises(StorageError, match="weights was"):
        searched(six, 9, model=other)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(StorageError, match="holds something that is no search"):
        searched(tmp_path, 1)


def _sizes(module: nn.Module) -> tuple[int, ...]:
    return (module.in_features, module.out_features) if isinstance(module, nn.Linear) else ()


def test_what_was_found_can_be_read_as_json_csv_and_markdown(six: Path) -> None:
    found = read_found(six)
    body = json.loads(json.dumps(found.to_json()))
    assert [entry["number"] for entry in body["front"]] == [t.number for t in found.front]
    assert all((six / entry["plan_file"]).is_file() for entry in body["front"])
    assert all((six / entry["model"]).is_dir() for entry in body["front"])
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [row["number"] for row in rows] == [str(number) for number in range(6)]
    assert {row["number"] for row in rows if row["front"] == "1"} == {
        str(trial.number) for trial in found.front
    }
    assert found.to_markdown().count("\n") == 2 + len(found.front)
    assert found.volume(found.complete) == pytest.approx(found.volume(found.front))
    assert found.volume(found.front) >= found.volume(found.line)


def test_a_trial_is_given_up_beside_a_cheaper_one_that_was_better_by_then(six: Path) -> None:
    complete = replace(
        read_found(six).line[0], metric=0.9, early=0.8, costs={"macs": 0.5}, number=7
    )

    def asked(early: float, cost: float) -> Trial | None:
        return prospectless(early, {"macs": cost}, (complete,), margin=0.05)

    assert asked(0.7, 0.5) == complete
    assert asked(0.76, 0.5) is None  # within the margin
    assert asked(0.7, 0.4) is None  # it costs less
    worse = replace(complete, number=8, metric=0.8, early=0.95)
    assert prospectless(0.85, {"macs": 0.5}, (complete, worse), margin=0.05) is None


def test_trials_are_given_up_and_the_line_is_spared(tmp_path: Path) -> None:
    metrics = iter([0.9] * 9 + [0.8] * 99)  # of the dense model, and of two trials' four each

    def validate(model: nn.Module) -> float:
        return next(metrics)

    found = searched(tmp_path, 4, validate=validate, early=Early(part=0.5, margin=0.01))
    assert [trial.state for trial in found.line] == ["complete", "complete"]
    pruned = found.trials[2:]
    assert [trial.state for trial in pruned] == ["pruned", "pruned"]
    assert all(trial.early == 0.8 and not trial.line for trial in pruned)
    assert "which costs no more, had 0.9 by then" in pruned[0].reason
    assert all(Plan.load(found.plan(trial)) for trial in pruned)


def test_latency_is_measured_or_predicted_and_precisions_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secateur.cost.latency.ROUND_MS", 0.01)
    monkeypatch.setattr("secateur.cost.latency.SETTLE_MS", 0.0)
    quick = partial(time_device, widths=(0.8, 0.5))
    monkeypatch.setattr("secateur.search.trial_ground.time_device", quick)
    seen: list[nn.Module] = []

    def coarse(model: nn.Module) -> nn.Module:
        seen.append(model)
        return model

    space = Space(
        criteria=("l2",),
        selectors=("uniform",),
        schedules=("one_shot",),
        distil=(False,),
        reconstruct=(False,),
        precisions=("fp32", "coarse"),
        shares=(0.7, 0.9),
        line=1,
    )
    x, _ = samples()
    task = small_task(
        model=wide(),
        example_inputs=x[:64],
        costs=("latency", "params"),
        precisions={"fp32": lambda model: model, "coarse": coarse},
        recovery=replace(RECOVERY, epochs=1),
    )
    measured = search_front(task, tmp_path / "measured", space=space, limits=Limits(trials=2))
    first = measured.trials[0]
    assert first.amounts["latency"] > 0
    assert first.costs["params"] < 1
    assert list((tmp_path / "measured" / "timings").iterdir())
    predicted = search_front(
        replace(task, measured=False), tmp_path / "predicted", space=space, limits=Limits(trials=6)
    )
    assert seen
    assert {trial.choice.precision for trial in predicted.trials} == {"fp32", "coarse"}
    assert all(trial.costs["latency"] <= trial.choice.share for trial in predicted.complete)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="one or more, each once, of latency"):
        small_task(costs=("speed",))
    with pytest.raises(ValueError, match="unknown schedule 'gradual'"):
        Space(schedules=("gradual",))
    with pytest.raises(ValueError, match="unknown criterion 'l22'; did you mean 'l2'"):
        Space(criteria=("l22",))
    with pytest.raises(ValueError, match="list at least one option"):
        Space(selectors=())
    with pytest.raises(ValueError, match="precision 'int8' is none of the task's: fp32"):
        search_front(small_task(), "never", space=Space(precisions=("fp32", "int8")))
    with pytest.raises(ValueError, match="trials=0"):
        Limits(trials=0)


PROCESS = """
import sys, torch
torch.set_num_threads(1)
from small_search import searched
from pathlib import Path
searched(Path(sys.argv[1]), int(sys.argv[2]))
"""


def process(folder: Path, trials: int) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(ROOT / "src"), str(Path(__file__).parent)])
    command = [sys.executable, "-c", PROCESS, str(folder), str(trials)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_two_processes_share_a_search_and_one_may_be_killed(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    killed, other = process(folder, 24), process(folder, 24)
    while len(list(folder.glob("trials/*.json"))) < 4:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert other.wait() == 0
    found = searched(folder, 24)  # what the killed one left, if the other was over by then
    assert [trial.number for trial in found.trials] == list(range(24))
    assert all(trial.state != "failed" for trial in found.trials)
    assert not list((folder / "work").iterdir())
