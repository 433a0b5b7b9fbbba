"""`secateur search`: the front in files, one search for every command typed, clear refusals."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secateur.core.plan import Plan

Type = Callable[..., Any]
QUICK = (
    *("search", "--model", "my_models:cnn", "--data", "digits", "--out", "found"),
    *("--costs", "macs", "--line", "2", "--epochs", "1", "--steps-per-epoch", "3"),
    *("--calibration", "64", "--criteria", "l2", "--criteria", "taylor", "--lr", "0.05"),
)


def test_the_front_is_written_and_the_same_command_goes_on(secateur: Type) -> None:
    pytest.importorskip("optuna")
    first = secateur(*QUICK, "--trials", "2", "--json")
    assert first.exit_code == 0, first.stderr
    assert "trial 1 of 2: complete, accuracy" in first.stderr
    folder = Path("found")
    assert {each.name for each in folder.iterdir()} >= {
        *("front.json", "front.csv", "front.md", "front.svg", "plans", "models", "trials"),
    }
    assert first.json == json.loads((folder / "front.json").read_text(encoding="utf-8"))
    assert all(0 <= entry["test"] <= 1 for entry in first.json["front"])
    more = secateur(*QUICK, "--trials", "4")
    assert more.exit_code == 0, more.stderr
    assert "trial 1 of 4" not in more.stderr
    assert "trial 4 of 4" in more.stderr
    assert "4 trials" in more.stdout
    with (folder / "front.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["number"] for row in rows] == ["0", "1", "2", "3"]
    best = json.loads((folder / "front.json").read_text(encoding="utf-8"))["front"][0]
    assert Plan.load(folder / best["plan_file"]).hash == best["plan"]
    assert (folder / "front.svg").read_text(encoding="utf-8").count("<circle") >= 4

    other = secateur(*QUICK, "--trials", "4", "--lr-factor", "2")
    assert other.exit_code == 1
    assert "'lr_factor': 4.0" in other.stderr
    assert "choose another folder" in other.stderr


def test_a_recipe_says_what_is_searched(secateur: Type, workplace: Path) -> None:
    pytest.importorskip("optuna")
    recipe = workplace / "search.yaml"
    recipe.write_text(
        "model: my_models:cnn\ndata: digits\ncosts: [macs]\ntrials: 1\nline: 1\n"
        "recover: {epochs: 1, steps_per_epoch: 2}\nselect: {min_units: 4}\n",
        encoding="utf-8",
    )
    typed = secateur("search", recipe, "-o", "by-recipe", "--json")
    assert typed.exit_code == 0, typed.stderr
    settings = json.loads(Path("by-recipe/search.json").read_text(encoding="utf-8"))["settings"]
    assert settings["constraints"]["min_units"] == 4
    assert len(typed.json["front"]) == 1


def test_mistakes_are_told_in_a_line(secateur: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*more: str) -> str:
        typed = secateur(*QUICK, *more)
        assert typed.exit_code == 2
        assert "Traceback" not in typed.stderr
        return str(typed.stderr)

    assert "unknown criterion 'l22'; did you mean 'l2'" in refused("--criteria", "l22")
    assert "one or more, each once, of latency" in refused("--costs", "speed")
    assert "two shares in (0, 1)" in refused("--smallest", "0.9")
    typed = secateur("search", "--model", "my_models:cnn")
    assert typed.exit_code == 2
    assert "'data' is missing" in typed.stderr
    for name in [name for name in sys.modules if name.partition(".")[0] == "optuna"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "secateur.search.study_optuna", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'secateur[search]'" in refused()
