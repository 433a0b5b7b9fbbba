"""`secateur auto` as it is typed: exit codes, what is told where, wrong usage in a paragraph."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Type = Callable[..., Any]
MODULE = """
import torch
from torch import nn


def clouds():
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(3, (240,), generator=draw)
    return 3 * torch.eye(3)[y] + torch.randn(240, 3, generator=draw), y


def trained():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 3))
    x, y = clouds()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, torch.zeros(4, 3)
"""
QUICK = (
    *("auto", "--model", "my_auto:trained", "--data", "my_auto:clouds", "--out", "run"),
    *("--steps", "1", "--long-epochs", "1", "--lr", "0.01", "--calibration", "64"),
)


@pytest.fixture
def auto(secateur: Type, workplace: Path) -> Type:
    (workplace / "my_auto.py").write_text(MODULE, encoding="utf-8")
    return lambda *more: secateur(*QUICK, *more)


def test_met_is_exit_code_0_and_not_met_3(auto: Type) -> None:
    met = auto("--target", "params=50%", "--max-drop", "10", "--json")
    assert met.exit_code == 0, met.stderr
    assert met.json["met"] and met.json["shares"]["params"] <= 0.5
    assert "best so far: params" in met.stderr
    told = json.loads(Path("run/result.json").read_text(encoding="utf-8"))
    assert met.json == {"out": "run", **told}
    again = auto("--target", "params=50%", "--max-drop", "10")
    assert again.exit_code == 0 and "accuracy, test" in again.stdout
    assert "met: params" in again.stdout and "step" not in again.stderr
    other = auto("--target", "params=40%", "--max-drop", "10")
    assert other.exit_code == 1 and "other settings (target)" in other.stderr

    missed = auto("--target", "params=3", "--max-drop", "0", "--out", "missed")
    assert missed.exit_code == 3, missed.stderr
    assert "not met (out of reach" in missed.stdout and "what would help: " in missed.stdout
    assert json.loads(Path("missed/result.json").read_text(encoding="utf-8"))["met"] is False


def test_what_it_saved_is_a_model_that_other_commands_take(auto: Type, secateur: Type) -> None:
    assert auto("--target", "macs=60%", "--floor", "50").exit_code == 0
    found = secateur("inspect", "run/model", "--json")
    assert found.exit_code == 0, found.stderr
    proved = secateur("verify", "my_auto:trained", "run/plan.json")
    assert proved.exit_code == 0, proved.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--max-drop", "1"), "'target' is missing"),
        (("--target", "macs=50%"), "--max-drop 0.5 for half a point"),
        (("--target", "macs=50%", "--floor", "0.9"), "in per cent; write for example 92.5"),
        (("--target", "macs=50%", "--max-drop", "-1"), "in points"),
        (("--target", "macs", "--max-drop", "1"), "not understood"),
        (("--target", "macs=50%", "--max-drop", "1", "--time-limit", "soon"), "20m or 1h30m"),
        (("--target", "macs=50%", "--max-drop", "1", "--criterion", "tayler"), "taylor"),
    ],
)
def test_wrong_usage_is_told_in_a_line(auto: Type, given: tuple[str, ...], told: str) -> None:
    done = auto(*given)
    assert done.exit_code == 2
    assert told in done.stderr and "Traceback" not in done.stderr
