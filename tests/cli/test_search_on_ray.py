"""`secateur search --engine ray`: what is handed to workers, and what comes back from them."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secateur.cli import search_worker
from secateur.engines.crews import ray as crew

Type = Callable[..., Any]
QUICK = (
    *("search", "--model", "my_models:cnn", "--data", "digits", "--out", "found"),
    *("--costs", "macs", "--line", "2", "--epochs", "1", "--steps-per-epoch", "2"),
    *("--calibration", "64", "--criteria", "l2", "--engine", "ray"),
)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Lets workers run here, one after another, and notes what they were to be."""
    calls: list[dict[str, Any]] = []

    def share(module: str, folder: str, **more: Any) -> None:
        calls.append({"module": module, "folder": Path(folder), **more})
        for _ in range(more["workers"]):
            assert search_worker.main(Path(folder)) == 0

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # as it was, at the end
    monkeypatch.setattr(crew, "share", share)
    return calls


def test_workers_share_the_trials(secateur: Type, called: list[dict[str, Any]]) -> None:
    pytest.importorskip("optuna")
    first = secateur(*QUICK, "--workers", "2", "--trials", "2", "--json")
    assert first.exit_code == 0, first.stderr
    assert [trial["number"] for trial in first.json["trials"]] == [0, 1]
    assert all(0 <= entry["test"] <= 1 for entry in first.json["front"])
    written = json.loads(Path("found/front.json").read_text(encoding="utf-8"))
    assert written == first.json
    more = secateur(*QUICK, "--workers", "1", "--trials", "3", "--address", "10.0.0.1:6379")
    assert more.exit_code == 0, more.stderr
    assert "3 trials" in more.stdout
    here, there = called
    assert here["module"] == "secateur.cli.search_worker"
    assert (here["workers"], here["address"], here["gpu"]) == (2, None, False)
    assert there["address"] == "10.0.0.1:6379"
    assert there["folder"].parent == Path.cwd()  # other machines see it there


def test_what_a_worker_could_not_do_is_told_as_one_message(
    secateur: Type, called: list[dict[str, Any]]
) -> None:
    pytest.importorskip("optuna")
    Path("found").mkdir()
    Path("found/thesis.txt").write_text("mine", encoding="utf-8")
    typed = secateur(*QUICK, "--workers", "2")
    assert typed.exit_code == 1
    assert typed.stderr.count("error:") == 1
    assert "found holds something that is no search; choose another folder" in typed.stderr
    assert "Traceback" not in typed.stderr


def test_mistakes_are_told_before_anything_starts(
    secateur: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*more: str, code: int = 2) -> str:
        typed = secateur(*QUICK, *more)
        assert typed.exit_code == code, typed.stderr
        return str(typed.stderr)

    assert "unknown engine 'torchrun'; there are: single, ray" in said("--engine", "torchrun")
    assert "workers is at least 1, not 0" in said("--workers", "0")
    assert "add engine: ray" in said("--engine", "single", "--workers", "2")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert said("--workers", "2", code=1).startswith("error: the engine ray needs Ray: pip install")
    run = ("run", "--model", "my_models:cnn", "--out", "run", "--budget", "macs=50%")
    typed = secateur(*run, "--engine", "ray", "--nproc", "2")
    assert typed.exit_code == 1
    assert typed.stderr.startswith("error: the engine ray needs Ray: pip install")
    typed = secateur(*run, "--engine", "torchrun", "--address", "10.0.0.1:6379")
    assert typed.exit_code == 2
    assert "add engine: ray" in typed.stderr
