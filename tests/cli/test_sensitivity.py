"""`secateur sensitivity` as a person types it, and a plan made of what it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import secateur as sc
from secateur.core.sensitivities import Sensitivities

Type = Callable[..., Any]
MEASURE = ("sensitivity", "my_models:cnn", "--data", "digits", "--samples", "64")


def test_it_measures_draws_and_plans(secateur: Type) -> None:
    typed = secateur(*MEASURE, "--depths", "25%", "--depths", "50", "--svg", "curves.svg")
    assert typed.exit_code == 0, typed.stderr
    assert "0 channels" in typed.stdout and "-25 %" in typed.stdout and "-50 %" in typed.stdout
    assert "sensitivities of 2 groups in sensitivities.json, drawn in curves.svg" in typed.stdout
    assert "2 of 2" in typed.stderr
    assert Path("curves.svg").read_text("utf-8").startswith("<svg xmlns")
    found = Sensitivities.load("sensitivities.json")
    assert {id: curve.removed for id, curve in found.curves.items()} == {
        "0.weight[0]": (2, 4),
        "3.weight[0]": (4, 8),
    }
    budget = ("--budget", "macs=50%", "--selector", "knapsack")
    typed = secateur("plan", "my_models:cnn", *budget, "--sensitivities", "sensitivities.json")
    assert typed.exit_code == 0, typed.stderr
    plan = sc.Plan.load("plan.json")
    assert plan.settings["sensitivities"] == found.hash
    assert plan.after.macs <= 0.5 * plan.before.macs


def test_as_json_and_again(secateur: Type) -> None:
    first = secateur(*MEASURE, "-o", "s.json", "--json").json
    again = secateur(*MEASURE, "-o", "s.json", "--json").json
    assert first == again and first["path"] == "s.json" and first["svg"] is None
    assert set(first["names"]) == set(first["curves"]) == {"0.weight[0]", "3.weight[0]"}
    assert json.loads(Path("s.json").read_text("utf-8"))["curves"] == first["curves"]


def test_mistakes_are_told(secateur: Type) -> None:
    typed = secateur(*MEASURE, "--depths", "lots")
    assert typed.exit_code == 2 and "write percentages, such as 25%" in typed.stderr
    typed = secateur(*MEASURE, "--depths", "150%")
    assert typed.exit_code == 2 and "between 0 % and 100 %" in typed.stderr
    Path("wrong.json").write_text("{}", encoding="utf-8")
    typed = secateur(
        "plan", "my_models:cnn", "--budget", "macs=50%", "--sensitivities", "wrong.json"
    )
    assert typed.exit_code == 1 and "these are no sensitivities" in typed.stderr
