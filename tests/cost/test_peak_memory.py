"""Peak memory: predicted from the graph against what the allocator gave, and budgets of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.cost.counted import CostModel
from secateur.cost.peak_memory import PeakMemory, measure_peak_memory, storage_bytes


class Block(nn.Module):
    """Holds its input while it runs, and a local name while its last layer runs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        changed = self.narrow(self.widen(x).relu())
        return self.norm(changed + x)


def tokens() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    body = [Block(64) for _ in range(3)]
    return nn.Sequential(nn.Linear(32, 64), *body, nn.Linear(64, 8)).eval(), torch.randn(32, 50, 32)


def images() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.Conv2d(32, 64, 1, stride=2),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    ]
    return nn.Sequential(*layers).eval(), torch.randn(4, 3, 32, 32)


SUBJECTS = {"tokens": tokens, "images": images}


def ratio(model: nn.Module, graph: sc.Graph, example: Any, counts: dict[int, int]) -> float:
    """Predicted over measured, of activations alone."""
    cost = CostModel(graph, threads=torch.get_num_threads()).cost(counts)
    found = measure_peak_memory(model, example)
    assert cost.peak_memory_bytes is not None
    assert cost.size_bytes == found.weights_bytes
    return (cost.peak_memory_bytes - cost.size_bytes) / found.activations_bytes


def test_two_layers_by_hand():
    model = nn.Sequential(nn.Linear(8, 256), nn.ReLU(), nn.Linear(256, 4)).eval()
    found = measure_peak_memory(model, torch.zeros(32, 8))
    # the input, and at the ReLU what goes in and what comes out
    assert found.activations_bytes == 4 * 32 * (8 + 2 * 256)
    assert found.weights_bytes == 4 * (8 * 256 + 256 + 256 * 4 + 4)
    assert found.total_bytes == found.activations_bytes + found.weights_bytes
    assert (found.batch, found.device) == (32, "cpu")
    assert found.to_json()["total_bytes"] == found.total_bytes


@pytest.mark.parametrize("name", SUBJECTS)
@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_predicted_is_measured(name: str, keep: float):
    model, example = SUBJECTS[name]()
    graph = sc.trace(model, example)
    assert ratio(model, graph, example, {}) == pytest.approx(1.0, abs=0.1)
    if keep < 1.0:
        plan = sc.plan(graph, sc.score(graph, model), keep=keep)
        small = sc.cut(model, plan)
        assert ratio(small, graph, example, plan.counts()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_budget_of_memory_is_met_when_measured(name: str):
    model, example = SUBJECTS[name]()
    result = sc.prune(model, example, budget="memory=60%", verify=False)
    dense, pruned = measure_peak_memory(model, example), measure_peak_memory(result.model, example)
    assert pruned.total_bytes <= 0.63 * dense.total_bytes
    assert pruned.total_bytes >= 0.4 * dense.total_bytes


def test_the_callers_input_and_a_local_name_stay():
    model, example = tokens()
    cost = CostModel(sc.trace(model, example)).cost({})
    token = 4 * 32 * 50
    # the model's input, the block's, and the widened one twice
    assert cost.peak_memory_bytes == cost.size_bytes + token * (32 + 64 + 2 * 256)


def test_batch_and_modes():
    model, example = images()
    model.train()
    one = measure_peak_memory(model, example, batch_size=2)
    two = measure_peak_memory(model, example, batch_size=8)
    assert (one.batch, two.batch) == (2, 8)
    assert 3.0 < two.activations_bytes / one.activations_bytes < 4.1
    assert model.training and "KINETO_LOG_LEVEL" not in os.environ


def test_shared_weights_are_counted_once():
    first, second = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
    second.weight = first.weight
    found = measure_peak_memory(nn.Sequential(first, second), torch.zeros(1, 16))
    assert found.weights_bytes == 4 * 16 * 16
    assert storage_bytes(iter((torch.zeros(4, dtype=torch.int64),))) == 32


def test_an_allocator_that_cannot_be_asked():
    with pytest.raises(ValueError, match=r"measured on meta; move the model with model.to"):
        measure_peak_memory(nn.Linear(2, 2, device="meta"), torch.zeros(1, 2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    model = nn.Sequential(nn.Linear(8, 4096), nn.ReLU(), nn.Linear(4096, 4)).eval().cuda()
    found = measure_peak_memory(model, torch.zeros(1024, 8))
    assert found.activations_bytes == pytest.approx(4 * 1024 * (8 + 2 * 4096), rel=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize(
    "name", ["resnet50", "mobilenet_v3_large", "efficientnet_lite0", "vit_b_16", "minilm"]
)
def test_of_the_five_models(name: str, batch: int, monkeypatch: pytest.MonkeyPatch):
    package = {"minilm": "transformers", "efficientnet_lite0": "timm"}.get(name, "torchvision")
    if package != "transformers":
        from torchvision_ops import define_torchvision_ops

        define_torchvision_ops()
    pytest.importorskip(package)
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2] / "benchmarks"), *sys.path])
    from latency_budgets import build

    from secateur.cost.batch import resize_batch

    model, inputs = build(name)
    inputs, _ = resize_batch(inputs, batch)
    graph = sc.trace(model, inputs)
    plan = sc.plan(graph, sc.score(graph, model), budget="macs=50%")
    for one, counts in ((model, {}), (sc.cut(model, plan), plan.counts())):
        assert ratio(one, graph, inputs, counts) == pytest.approx(1.0, abs=0.1)


def test_the_value_is_json():
    assert PeakMemory(1, 2, 3, "cpu").to_json() == {
        "weights_bytes": 1,
        "activations_bytes": 2,
        "batch": 3,
        "device": "cpu",
        "total_bytes": 3,
    }
