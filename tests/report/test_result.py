"""The result: its JSON keys, the way there and back, its verdict and warnings."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from secateur.core.errors import StorageError
from secateur.report.evaluate import count_tensors, evaluate
from secateur.report.record import load_result, save_result
from secateur.report.result import Result
from secateur.report.row import ModelRow
from secateur.report.sections import comparison
from secateur.report.table import print_result
from secateur.report.verdict import headline, warnings


def bare(row: ModelRow, **figures: float) -> ModelRow:
    return replace(row, latency=None, **figures)  # type: ignore[arg-type]


def test_the_promised_keys_and_the_way_back(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    save_result(result, path)
    body = json.loads(path.read_text(encoding="utf-8"))
    for name in ("dense", "pruned", "random"):
        assert {"params", "macs", "size_bytes", "latency_ms", "accuracy"} <= set(body[name])
    assert {"max_abs_error", "groups_checked", "groups_shape_only"} <= set(body["proof"])
    assert body["plan_hash"] == result.plan_hash
    assert body["verdict"] == headline(result)
    assert load_result(path) == result


def test_figures_are_those_of_the_models(result: Result) -> None:
    assert result.dense.params == 64 * 256 + 256 + 256 * 128 + 3 * 128 + 128 * 10 + 10
    assert result.dense.size_bytes == 4 * result.dense.params
    assert result.pruned.params < 0.2 * result.dense.params
    assert result.dense.accuracy is not None
    assert result.dense.accuracy > 0.95
    assert result.proof is not None
    assert result.proof.max_abs_error < 1e-4


def test_damaged_results_are_named(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for text in ("{", "[]", '{"format": 1}', '{"format": 99}'):
        path.write_text(text)
        with pytest.raises(StorageError, match=r"result\.json"):
            load_result(path)
    with pytest.raises(StorageError, match="secateur report runs/demo"):
        load_result(tmp_path / "absent.json")


def test_headline_by_hand(result: Result) -> None:
    plain = replace(
        result,
        dense=bare(result.dense, params=1000, accuracy=0.989),
        pruned=bare(result.pruned, params=189, accuracy=0.986),
    )
    assert headline(plain) == "5.3 times smaller, accuracy 98.6 % (dense 98.9 %)"


def test_no_speed_up_is_said_plainly(result: Result) -> None:
    same = replace(result, pruned=replace(result.pruned, latency=result.dense.latency))
    assert "no faster at batch 64" in headline(same)
    assert any("no speed-up beyond noise" in line for line in warnings(same))


def test_warnings_follow_from_the_figures(result: Result) -> None:
    assert result.random is not None
    lucky = replace(result, random=replace(result.random, accuracy=1.0))
    assert any("at random does as well" in line for line in warnings(lucky))
    unlucky = replace(result, random=replace(result.random, accuracy=0.0))
    assert not any("at random" in line for line in warnings(unlucky))
    worse = replace(result, pruned=replace(result.pruned, accuracy=0.5))
    assert any(line.startswith("Accuracy fell by") for line in warnings(worse))
    whole = replace(result, pruned=replace(result.pruned, params=result.dense.params))
    assert warnings(whole)[0].startswith("Nothing was removed")
    assert any("cannot be proved by numbers" in line for line in warnings(result))


def test_the_terminal_shows_the_same_figures(result: Result) -> None:
    stream = io.StringIO()
    print_result(result, console=Console(file=stream, width=80))
    printed = stream.getvalue()
    assert headline(result) in printed
    for name, _, cells in comparison(result):
        assert name in printed
        assert all(value in printed for value, _ in cells)
    assert " ".join(warnings(result)[-1].split()) in " ".join(printed.split())


def test_tied_tensors_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[1].weight = model[0].weight
    # 16 + 4 + 4 + 4 + 4 parameters; buffers: two means of four floats, one int64 counter
    assert count_tensors(model) == (32, 4 * 32 + 2 * 16 + 8)


def test_evaluate_restores_the_model_and_refuses_percentages() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    model[1].eval()
    seen: list[tuple[bool, bool]] = []

    def metric(each: nn.Module) -> float:
        seen.append((each.training, torch.is_grad_enabled()))
        return 0.75

    row = evaluate(model, "dense", macs=4, metric=metric)
    assert (row.params, row.size_bytes, row.accuracy, row.latency_ms) == (6, 24, 0.75, None)
    assert seen == [(False, False)]
    assert (model.training, model[1].training) == (True, False)
    for wrong in (98.6, float("nan")):
        with pytest.raises(ValueError, match="share in"):
            evaluate(model, "dense", macs=4, metric=lambda _, value=wrong: value)
