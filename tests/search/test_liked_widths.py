"""A device is asked once which widths it likes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.cost.latency import Latency
from secateur.search.liked_widths import ALIGNED, liked_width
from secateur.search.timing import Device


def subject() -> tuple[nn.Module, torch.Tensor, sc.Graph]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 4)).eval()
    x = torch.randn(2, 64)
    return model, x, sc.trace(model, x)


def device(step: int) -> Any:
    """A device on which a width takes as long as the next multiple of `step`."""

    def measure(models: Any, *args: Any, **how: Any) -> dict[str, Latency]:
        found = {}
        for name, ready in models.items():
            ms = float(-(-ready.model[0].out_features // step) * step)
            found[name] = Latency((ms,) * 5, 1, 2, 1, "cpu", "float32", "steps")
        return found

    return measure


@pytest.mark.parametrize(("step", "liked"), [(1, 1), (16, ALIGNED)])
def test_multiples_are_liked_where_the_device_has_steps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: int, liked: int
):
    model, x, graph = subject()
    monkeypatch.setattr("secateur.search.timing.measure_latency", device(step))
    assert liked_width(model, graph, x, device=Device(), cache=tmp_path) == liked
    monkeypatch.setattr("secateur.search.timing.measure_latency", None)  # would fail if it measured
    assert liked_width(model, graph, x, device=Device(), cache=tmp_path) == liked
    with pytest.raises(TypeError):  # other conditions are measured anew
        liked_width(model, graph, x, device=Device(batch_size=4), cache=tmp_path)


def test_where_multiples_change_nothing_any_width_is_taken():
    model, x = nn.Sequential(nn.Linear(8, 4)).eval(), torch.zeros(1, 8)
    graph = sc.trace(model, x)
    assert liked_width(model, graph, x, device=Device()) == 1
