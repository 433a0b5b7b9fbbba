"""What the zoo runner calls passed, and what it writes down of what did not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import zoo_cuts
import zoo_run
import zoo_table

ABOUT = dict.fromkeys(("cpu", "threads", "python", "torch", "torchvision", "timm", "date"), "-")
ABOUT |= {"transformers": "-", "seed": "0", "zoo": "small"}


@pytest.fixture(scope="module")
def line() -> dict[str, Any]:
    """A model with a layer norm, so that not every group is exact."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 12), nn.LayerNorm(12), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3)
    )
    inputs = torch.randn(2, 6)
    zoo_run.roughen_(model, 0)
    graph = zoo_run.trace(model, inputs)
    subject = zoo_cuts.Subject(model, inputs, graph, zoo_run.outputs_of(model, inputs), 0)
    cuts = {cut: zoo_cuts.measure_cut(subject, cut) for cut in zoo_cuts.CUTS}
    return {
        **{"name": "mlp", "key": "0", "seconds": {"trace": 0.0}, "peak_memory_bytes": 0},
        **zoo_run.described(graph, model),
        "cuts": cuts,
    }


def test_a_right_cut_passes(line: dict[str, Any]) -> None:
    assert zoo_table.failures(line) == {}
    half = line["cuts"]["half"]
    assert (half["groups_cut"], half["corrected"], half["shape_only"]) == (2, 1, 0)
    assert half["effect"] > 0.01 and half["exact_rel_error"] < 1e-12
    assert 0.4 < line["cuts"]["macs"]["macs_share"] <= 0.5


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"max_rel_error": 1e-6}, "error 1.0e-06"),
        ({"exact_rel_error": 1e-6}, "exact groups alone 1e-06"),
        ({"unsaid": ["0.weight[0]"]}, "kept whole and not said"),
        ({"params": [10, 11]}, "params predicted 10, counted 11"),
        ({"macs": [10, 11]}, "macs predicted 10, counted 11"),
        ({"error": "not cut: CutError: no"}, "not cut: CutError: no"),
    ],
)
def test_each_shortcoming_is_a_failure_with_its_cause(
    line: dict[str, Any], change: dict[str, Any], cause: str
) -> None:
    wrong = {**line, "cuts": {**line["cuts"], "half": {**line["cuts"]["half"], **change}}}
    assert cause in zoo_table.failures(wrong)["half"]


def test_tables_list_what_did_not_pass(line: dict[str, Any], tmp_path: Path) -> None:
    bad = {"name": "broken", "key": "0", "error": "not traced: no"}
    zoo_table.write_zoo(tmp_path, ABOUT, [line, bad])
    zoo_table.write_overview(tmp_path)
    body = json.loads((tmp_path / "zoo_small.json").read_text("utf-8"))
    assert [model["name"] for model in body["models"]] == ["mlp", "broken"]
    assert "**1 of 2 models pass" in (tmp_path / "zoo_small.md").read_text("utf-8")
    overview = (tmp_path / "zoo.md").read_text("utf-8")
    assert "| [small](zoo_small.md) | half | 2 | 1 |" in overview
    assert "- small: broken, model: not traced: no" in overview


def test_a_model_that_cannot_be_built_is_a_line() -> None:
    found = zoo_run.measure("generative", "no_such_model", seed=0, cuts=("half",))
    assert found["error"].startswith("not built: ")
