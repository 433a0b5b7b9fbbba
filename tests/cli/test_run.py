"""`secateur run`: everything is written, a stopped run goes on, and nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from secateur.train.run import Run

Type = Callable[..., Any]
RECIPE = """
model: my_models:cnn
data: digits
out: {out}
budget: params=60%
criterion: taylor
calibration: 64
select:
  selector: global
recover:
  epochs: 3
  steps_per_epoch: 4
  lr: 0.05
"""


@pytest.fixture(autouse=True)
def quick_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are not looked at here."""
    monkeypatch.setattr("secateur.cost.latency.ROUND_MS", 0.01)
    monkeypatch.setattr("secateur.cost.latency.SETTLE_MS", 0.0)


@pytest.fixture
def recipe(workplace: Path) -> Path:
    path = workplace / "recipe.yaml"
    path.write_text(RECIPE.format(out="run"), encoding="utf-8")
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_model(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_writes_everything(secateur: Type, recipe: Path) -> None:
    typed = secateur("run", recipe, "--json")
    assert typed.exit_code == 0, typed.stderr
    directory = Path("run")
    names = {each.name for each in directory.iterdir()}
    assert names >= {
        *("run.json", "graph.json", "scores.safetensors", "plan.json", "proof.json"),
        *("log.jsonl", "model", "result.json", "report.html"),
    }
    written = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    assert {key: typed.json[key] for key in written} == written
    for name in ("dense", "pruned", "random"):
        row = written[name]
        assert row["latency_ms"] > 0
        assert 0 <= row["accuracy"] <= 1
    assert written["pruned"]["params"] <= 0.6 * written["dense"]["params"]
    assert written["random"]["params"] <= 0.6 * written["dense"]["params"]
    assert written["proof"]["max_abs_error"] < 1e-5
    assert [curve["name"] for curve in written["curves"]] == ["pruned", "random"]
    assert len((directory / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_a_finished_run_is_only_told_again(
    secateur: Type, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = secateur("run", recipe, "--json")
    (Path("run") / "report.html").unlink()
    monkeypatch.setattr("secateur.graph.trace", lambda *_: pytest.fail("traced again"))
    again = secateur("run", recipe, "--json")
    assert again.json == first.json
    assert "finished already" in again.stderr
    assert (Path("run") / "report.html").is_file()
    told = secateur("report", "run", "--out", "elsewhere.html")
    assert told.exit_code == 0
    assert Path("elsewhere.html").read_bytes() == (Path("run") / "report.html").read_bytes()


def test_an_interrupted_recovery_goes_on_and_ends_the_same(
    secateur: Type, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = secateur("run", recipe, "--out", "undisturbed")
    assert undisturbed.exit_code == 0, undisturbed.stderr
    epoch = Run.train_epoch_

    def interrupted(self: Run, on_step: Callable[[int, float], None]) -> Any:
        if self.position.epoch == 2:
            raise KeyboardInterrupt
        return epoch(self, on_step)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "train_epoch_", interrupted)
        stopped = secateur("run", recipe)
    assert stopped.exit_code == 130
    assert "this goes on from there:\n  secateur" in stopped.stderr
    assert not (Path("run") / "model").exists()
    trained = []

    def counted(self: Run, on_step: Callable[[int, float], None]) -> Any:
        trained.append(self.position.epoch)
        return epoch(self, on_step)

    monkeypatch.setattr(Run, "train_epoch_", counted)
    assert secateur("run", recipe).exit_code == 0
    assert trained == [2, 0, 1, 2], "the last epoch of the pruned model, then the baseline's three"
    assert_same_model(Path("run/model"), Path("undisturbed/model"))
    assert_same_model(Path("run/random/model"), Path("undisturbed/random/model"))


def test_a_full_disk_loses_nothing(
    secateur: Type, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("secateur.storage.layout.save_file", full)
        stopped = secateur("run", recipe)
    assert stopped.exit_code == 1
    assert "No space left on device" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (Path("run") / "model").exists()
    assert not list(Path("run").glob(".model*"))
    finished = secateur("run", recipe)
    assert finished.exit_code == 0, finished.stderr
    assert (Path("run") / "result.json").is_file()


def test_an_impossible_budget_can_be_changed_in_place(secateur: Type, recipe: Path) -> None:
    refused = secateur("run", recipe, "--budget", "params=0.1%")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "params" in refused.stderr
    assert secateur("run", recipe).exit_code == 0


def test_a_planned_run_refuses_other_settings(secateur: Type, recipe: Path) -> None:
    assert secateur("run", recipe).exit_code == 0
    refused = secateur("run", recipe, "--budget", "params=50%")
    assert refused.exit_code == 1
    assert "budget was 'params=60%' and is now 'params=50%'" in refused.stderr


def test_a_misspelt_recipe_starts_nothing(secateur: Type, recipe: Path, workplace: Path) -> None:
    recipe.write_text(RECIPE.format(out="run").replace("epochs", "epocs"), encoding="utf-8")
    refused = secateur("run", recipe)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == f"{recipe}:11:3: unknown key 'epocs', did you mean 'epochs'?\n"
    assert not (workplace / "run").exists()


def test_a_dry_run_writes_nothing(secateur: Type, recipe: Path, workplace: Path) -> None:
    before = set(workplace.iterdir())
    typed = secateur("run", recipe, "--dry-run", "--json")
    assert typed.exit_code == 0
    after, dense = typed.json["after"]["params"], typed.json["before"]["params"]
    assert after <= 0.6 * dense
    assert {each for each in workplace.iterdir() if each.name != "__pycache__"} == before


LOOP = "loop:\n  steps: 2\n  max_drop: 0.5\n"


def test_the_loop_ends_in_one_plan(secateur: Type, recipe: Path) -> None:
    recipe.write_text(RECIPE.format(out="run") + LOOP, encoding="utf-8")
    typed = secateur("run", recipe, "--json")
    assert typed.exit_code == 0, typed.stderr
    steps = json.loads(Path("run/steps.json").read_text(encoding="utf-8"))
    accepted = [step for step in steps["history"] if step["accepted"]]
    assert steps["met"]
    assert len(accepted) >= 2
    body = typed.json
    assert body["pruned"]["params"] <= 0.6 * body["dense"]["params"]
    assert body["random"]["params"] <= body["pruned"]["params"]
    assert body["proof"]["groups_checked"] == 2
    assert len(Path("run/log.jsonl").read_text(encoding="utf-8").splitlines()) == 3 * len(accepted)
    again = secateur("inspect", "run/model", "--json").json
    assert again["cost"]["params"] == body["pruned"]["params"]


def test_an_interrupted_loop_goes_on_and_ends_the_same(
    secateur: Type, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.write_text(RECIPE.format(out="run") + "baseline: false\n" + LOOP, encoding="utf-8")
    assert secateur("run", recipe, "--out", "undisturbed").exit_code == 0
    epoch, count = Run.train_epoch_, 0

    def interrupted(self: Run, on_step: Callable[[int, float], None]) -> Any:
        nonlocal count
        count += 1
        if count == 5:  # in the second step's second epoch
            raise KeyboardInterrupt
        return epoch(self, on_step)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "train_epoch_", interrupted)
        assert secateur("run", recipe).exit_code == 130
    refused = secateur("run", recipe, "--batch-size", "32")
    assert refused.exit_code == 1
    assert "batch_size was 64 and is now 32" in refused.stderr
    assert secateur("run", recipe).exit_code == 0
    assert_same_model(Path("run/model"), Path("undisturbed/model"))
    assert Path("run/plan.json").read_text() == Path("undisturbed/plan.json").read_text()


def test_a_floor_in_the_way_is_an_error_and_the_best_model_is_kept(
    secateur: Type, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def share_of_parameters(model: torch.nn.Module, data: object) -> float:
        return sum(p.numel() for p in model.parameters()) / 1914

    monkeypatch.setattr("secateur.cli.sources.accuracy", share_of_parameters)
    text = RECIPE.format(out="run") + "baseline: false\nloop:\n  steps: 4\n  floor: 0.8\n"
    recipe.write_text(text.replace("60%", "40%"), encoding="utf-8")
    for _ in range(2):
        typed = secateur("run", recipe)
        assert (typed.exit_code, typed.stdout) == (1, "")
        assert "the budget was not reached" in typed.stderr
    result = json.loads(Path("run/result.json").read_text(encoding="utf-8"))
    assert 0.8 * 1914 <= result["pruned"]["params"] < 1914
    assert secateur("inspect", "run/model").exit_code == 0


def test_the_loop_needs_data_and_one_limit(secateur: Type) -> None:
    without = secateur("run", "--model", "my_models:mlp", "--budget", "macs=50%", "--steps", "2")
    assert without.exit_code == 1
    assert "name data" in without.stderr
    both = ("--budget", "macs=50%,params=50%", "--data", "digits", "--steps", "2")
    two = secateur("run", "--model", "my_models:cnn", *both)
    assert two.exit_code == 2
    assert "toward one limit" in two.stderr


def test_without_data_and_without_a_recipe(secateur: Type) -> None:
    typed = secateur("run", "--model", "my_models:mlp", "--sparsity", "0.5", "--out", "bare")
    assert typed.exit_code == 0, typed.stderr
    assert "no data was named" in typed.stderr
    assert "Accuracy was not measured" in typed.stdout
    body = json.loads(Path("bare/result.json").read_text(encoding="utf-8"))
    assert body["pruned"]["accuracy"] is None
    assert body["pruned"]["params"] < body["dense"]["params"]


def test_recover_with_nothing_after_it_leaves_recovery_out(secateur: Type, recipe: Path) -> None:
    text = RECIPE.format(out="run").split("recover:")[0] + "recover:\nbaseline: false\n"
    recipe.write_text(text, encoding="utf-8")
    assert secateur("run", recipe).exit_code == 0
    assert not (Path("run") / "log.jsonl").exists()
    body = json.loads(Path("run/result.json").read_text(encoding="utf-8"))
    assert body["random"] is None
    assert body["pruned"]["accuracy"] is not None


def _heed_interrupts() -> None:
    """What a shell starts in the background ignores them, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_in_another_process(recipe: Path) -> None:
    """A real interrupt while a real process recovers, and the same command again."""
    command = [sys.executable, "-m", "secateur.cli", "run", str(recipe), "--no-baseline"]
    many = [*command, "--epochs", "60", "--checkpoint-every", "1"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    with subprocess.Popen(
        many, env=env, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_interrupts
    ) as process:
        deadline = time.monotonic() + 120
        while not list(Path("run/checkpoints").glob("*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted. What is finished is kept" in said
    assert "Traceback" not in said
    assert not Path("run/model").exists()
    again = subprocess.run(many, env=env, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert Path("run/result.json").is_file()
