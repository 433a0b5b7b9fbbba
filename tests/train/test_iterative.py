"""The loop reaches its target or says how close it came, holds the floor, and resumes anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from secateur.core.errors import BudgetError, TrainError
from secateur.train import (
    Attempt,
    Callbacks,
    DivergedError,
    FinetuneSettings,
    IterativeSettings,
    PruneStep,
    TensorBatches,
    accuracy,
    finetune,
    prune_iteratively,
)


def mlp(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def rebuild(model: nn.Module, plan: str) -> nn.Module:
    keep = torch.tensor(json.loads(plan))
    small = mlp(len(keep))
    with torch.no_grad():
        small[1].weight.copy_(model[1].weight[keep])
        small[1].bias.copy_(model[1].bias[keep])
        small[3].weight.copy_(model[3].weight[:, keep])
        small[3].bias.copy_(model[3].bias)
    return small


def prune(model: nn.Module, fraction: float) -> tuple[nn.Module, str]:
    """Keep the neurons of largest norm; 75 parameters a neuron and 10 besides."""
    params = sum(p.numel() for p in model.parameters())
    count = int((fraction * params + 1e-6 - 10) // 75)
    if count < 1:
        raise BudgetError("no neuron would be left")
    norms = model[1].weight.detach().norm(dim=1)
    plan = json.dumps(sorted(norms.topk(count).indices.tolist()))
    return rebuild(model, plan), plan


STEP = PruneStep(prune=prune, rebuild=rebuild)


def nothing(model: nn.Module, attempt: Attempt) -> None:
    """A recovery that changes nothing."""


def width_metric(limit: float) -> Callable[[nn.Module], float]:
    """1 minus a little while at least `limit` of 100 neurons remain, 0.5 below."""
    return lambda model: 1.0 if model[1].out_features >= limit * 100 else 0.5


SETTINGS = IterativeSettings(target=0.2, steps=4, lr=0.1)


def test_digits_to_a_fifth_with_at_most_two_points_lost(digits: Any) -> None:
    torch.manual_seed(0)
    dense = mlp(100)
    data = TensorBatches(digits.train_x, digits.train_y, batch_size=64)
    test = [(digits.test_x, digits.test_y)]

    def recover(model: nn.Module, attempt: Attempt) -> None:
        settings = FinetuneSettings(epochs=4, lr=attempt.lr)
        finetune(model, data, settings=settings, loss_fn=nn.CrossEntropyLoss())

    recover(dense, Attempt(0, 0.1, 1.0, None))
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    result = prune_iteratively(
        dense,
        step=STEP,
        recover=recover,
        validate=lambda m: accuracy(m, test),
        settings=replace(SETTINGS, max_drop=0.02),
    )
    assert result.met
    assert "the target was reached: 19." in result.reason
    params = sum(p.numel() for p in result.model.parameters())
    assert params <= 0.2 * 7510
    assert result.remaining == params / 7510
    assert result.metric == accuracy(result.model, test) >= result.dense_metric - 0.02
    assert len(result.plans) == len(result.history) == 4
    assert [step.accepted for step in result.history] == [True] * 4
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())


def test_plans_rebuild_the_architecture_in_order() -> None:
    dense = mlp(100)
    result = prune_iteratively(
        dense, step=STEP, recover=nothing, validate=lambda m: 1.0, settings=SETTINGS
    )
    model: nn.Module = dense
    for plan in result.plans:
        model = rebuild(model, plan)
    theirs = model.state_dict()
    assert all(torch.equal(v, theirs[name]) for name, v in result.model.state_dict().items())
    rows = [json.loads(line) for line in result.to_jsonl().splitlines()]
    asked = [0.2 ** (k / 4) for k in (1, 2, 3, 4)]
    assert [row["asked"] for row in rows] == pytest.approx(asked)
    assert all(row["remaining"] <= row["asked"] for row in rows)
    assert rows[0]["cost"] == 75 * 66 + 10
    assert json.dumps(result.to_json())


def test_a_step_below_the_floor_is_undone_halved_and_the_best_is_kept() -> None:
    rates: list[float] = []
    result = prune_iteratively(
        mlp(100),
        step=STEP,
        recover=lambda model, attempt: rates.append(attempt.lr),
        validate=width_metric(0.4),
        settings=replace(SETTINGS, floor=0.9, lr_decay=0.8, retries=9),
    )
    assert not result.met
    assert 40 <= result.model[1].out_features <= 42
    assert result.metric == 1.0
    widths = [(int((step.cost - 10) // 75), step.accepted) for step in result.history if step.cost]
    # 0.2^(1/4), 0.2^(2/4), then 0.2^(3/4) fails and the steps are halved
    assert widths[:5] == [(66, True), (44, True), (29, False), (36, False), (40, True)]
    assert rates[:5] == pytest.approx([0.1, 0.08, 0.064, 0.032, 0.016])
    assert rates[5] == pytest.approx(0.1 * 0.8**3)  # one accepted: no retry any more
    assert "metric 0.5 is below the floor 0.9" in result.history[2].note
    assert "less than minimum_step" in result.reason
    assert "40.1% of the cost remains (target 20.0%) at metric 1" in result.reason


def test_retries_end_the_loop() -> None:
    result = prune_iteratively(
        mlp(100),
        step=STEP,
        recover=nothing,
        validate=width_metric(1.0),
        settings=replace(SETTINGS, floor=0.9, retries=2),
    )
    assert (result.met, result.remaining, result.plans) == (False, 1.0, ())
    assert [step.accepted for step in result.history] == [False] * 3
    assert result.reason.startswith("3 attempts in a row failed (the last one: metric 0.5")


def test_a_step_that_cannot_be_made_or_diverges_is_halved_too() -> None:
    def stubborn(model: nn.Module, fraction: float) -> tuple[nn.Module, str]:
        if fraction < 0.75:
            raise BudgetError("group fc1 may not lose so many units")
        return prune(model, fraction)

    result = prune_iteratively(
        mlp(100),
        step=PruneStep(prune=stubborn),
        recover=nothing,
        validate=lambda m: 1.0,
        settings=SETTINGS,
    )
    assert result.met
    assert result.history[0].note == "group fc1 may not lose so many units"
    assert (result.history[0].remaining, result.history[0].accepted) == (None, False)

    def diverge(model: nn.Module, attempt: Attempt) -> None:
        if attempt.lr > 0.06:
            raise DivergedError("the loss became nan")

    result = prune_iteratively(
        mlp(100), step=STEP, recover=diverge, validate=lambda m: 1.0, settings=SETTINGS
    )
    assert [step.lr for step in result.history[:2]] == [0.1, 0.05]
    assert result.history[0].note == "the loss became nan"
    assert result.history[0].metric is None
    assert not result.met  # from 0.045 on, every accepted step starts above 0.06 again


def test_nan_is_never_accepted() -> None:
    metric = iter([1.0] + [float("nan")] * 20)
    result = prune_iteratively(
        mlp(100), step=STEP, recover=nothing, validate=lambda m: next(metric), settings=SETTINGS
    )
    assert "the metric is nan" in result.reason
    assert result.remaining == 1.0


def test_a_step_that_removes_nothing_ends_the_loop() -> None:
    result = prune_iteratively(
        mlp(100),
        step=PruneStep(prune=lambda model, fraction: (model, "{}")),
        recover=nothing,
        validate=lambda m: 1.0,
        settings=SETTINGS,
    )
    assert not result.met
    assert "removed nothing; 100.0% of the cost remains (target 20.0%)" in result.reason


def test_a_step_that_removes_more_than_asked_passes_over_the_next() -> None:
    result = prune_iteratively(
        mlp(100),
        step=PruneStep(prune=lambda model, fraction: prune(model, min(fraction, 0.35))),
        recover=nothing,
        validate=lambda m: 1.0,
        settings=SETTINGS,
    )
    assert result.met
    assert [round(step.asked, 3) for step in result.history] == [0.669, 0.299]


def test_max_steps_and_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(**changes: Any) -> Any:
        return prune_iteratively(
            mlp(100),
            step=STEP,
            recover=nothing,
            validate=lambda m: 1.0,
            settings=replace(SETTINGS, **changes),
        )

    result = run(max_steps=2)
    assert (result.met, len(result.history)) == (False, 2)
    assert result.reason.startswith("max_steps 2 attempts were made; 44.1% of the cost remains")
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("secateur.train.iterative.time.monotonic", lambda: float(next(clock)))
    result = run(time_limit_s=25.0)
    assert not result.met
    assert result.reason.startswith("the time limit of 25 s is over")


def test_a_floor_above_the_dense_model_is_a_conflict() -> None:
    with pytest.raises(BudgetError, match=r"floor 0.99 is above the dense model's own metric of"):
        prune_iteratively(
            mlp(10),
            step=STEP,
            recover=nothing,
            validate=lambda m: 0.95,
            settings=replace(SETTINGS, floor=0.99),
        )


def test_zero_is_a_floor_like_any_other() -> None:
    """A metric that is a negative loss has floors at or below zero."""
    result = prune_iteratively(
        mlp(100),
        step=STEP,
        recover=nothing,
        validate=lambda m: 0.0 if m[1].out_features >= 50 else -1.0,
        settings=replace(SETTINGS, floor=0.0),
    )
    assert (result.met, result.metric) == (False, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 1.0}, "fraction that remains"),
        ({"schedule": "linear"}, "unknown schedule 'linear'; there are: geometric, cubic"),
        ({"steps": 0}, "must be at least 1"),
        ({"lr": 0.0}, "must be positive"),
        ({"max_drop": -0.1}, "must not be negative"),
        ({"minimum_step": 0.9}, "at most the 0.8 that shall be removed"),
    ],
)
def test_wrong_settings(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **change)


class Killed(BaseException):
    """Stands for the end of the process."""


class Countdown:
    """Ends the process at the n-th event."""

    def __init__(self, events: int | None) -> None:
        self.left = events

    def __call__(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


def digits_loop(digits: Any, folder: Path | None, events: int | None) -> Any:
    """A loop with failures and retries whose pruning, steps and validations are the events."""
    tick = Countdown(events)
    torch.manual_seed(0)
    dense = mlp(40)
    data = TensorBatches(digits.train_x[:64], digits.train_y[:64], batch_size=32)
    limit = 22

    def step(model: nn.Module, fraction: float) -> tuple[nn.Module, str]:
        tick()
        small, plan = prune(model, fraction)
        with torch.no_grad():  # as methods do that make up for what they remove
            small[3].bias[0] += 0.1
        return small, plan

    def recover(model: nn.Module, attempt: Attempt) -> None:
        finetune(
            model,
            data,
            settings=FinetuneSettings(epochs=2, lr=attempt.lr, seed=attempt.number),
            loss_fn=nn.CrossEntropyLoss(),
            checkpoint_dir=attempt.folder,
            callbacks=Callbacks(on_step=lambda s, loss: tick()),
        )

    def validate(model: nn.Module) -> float:
        tick()
        return 1.0 if model[1].out_features >= limit else 0.0

    settings = IterativeSettings(target=0.3, steps=3, lr=0.05, floor=0.5, retries=2)
    return prune_iteratively(
        dense,
        step=PruneStep(step, rebuild),
        recover=recover,
        validate=validate,
        settings=settings,
        run_dir=folder,
    )


def test_killed_anywhere_the_loop_ends_the_same(digits: Any, tmp_path: Path) -> None:
    expected = digits_loop(digits, None, None)
    assert {step.accepted for step in expected.history} == {True, False}
    for events in (1, 2, 3, 5, 8, 11, 14):
        folder = tmp_path / str(events)
        with pytest.raises(Killed):
            digits_loop(digits, folder, events)
        result = digits_loop(digits, folder, None)
        assert result.history == expected.history
        assert (result.reason, result.plans) == (expected.reason, expected.plans)
        theirs = expected.model.state_dict()
        assert all(torch.equal(v, theirs[name]) for name, v in result.model.state_dict().items())
        assert not list(folder.glob("recovery-*"))


def test_killed_again_and_again_it_still_gets_on(digits: Any, tmp_path: Path) -> None:
    """Each life is short; what is finished in one is never done again in the next."""
    expected = digits_loop(digits, None, None)
    for _ in range(30):
        try:
            result = digits_loop(digits, tmp_path, 5)
            break
        except Killed:
            continue
    assert result.history == expected.history
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert len(lines) == len(expected.history)
    again = digits_loop(digits, tmp_path, 0)  # finished: nothing is called any more
    assert again.reason == expected.reason


def test_a_damaged_newest_state_falls_back(digits: Any, tmp_path: Path) -> None:
    expected = digits_loop(digits, None, None)
    with pytest.raises(Killed):
        digits_loop(digits, tmp_path, 12)
    newest = max((tmp_path / "checkpoints").glob("checkpoint-*"))
    (newest / "state.json").write_text("{}")
    with pytest.warns(UserWarning, match="is damaged"):
        result = digits_loop(digits, tmp_path, None)
    assert result.history == expected.history


def test_another_run_in_the_directory_is_refused(tmp_path: Path) -> None:
    def run(model: nn.Module, **changes: Any) -> None:
        prune_iteratively(
            model,
            step=STEP,
            recover=nothing,
            validate=lambda m: 1.0,
            settings=replace(SETTINGS, **changes),
            run_dir=tmp_path,
        )

    run(mlp(100))
    with pytest.raises(TrainError, match="another dense model; choose another run_dir"):
        run(mlp(99))
    with pytest.raises(TrainError, match=r"other settings \(target was 0.2, is 0.4\)"):
        run(mlp(100), target=0.4)


def test_a_run_directory_needs_rebuild(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs step\.rebuild"):
        prune_iteratively(
            mlp(10),
            step=PruneStep(prune),
            recover=nothing,
            validate=lambda m: 1.0,
            settings=SETTINGS,
            run_dir=tmp_path,
        )
