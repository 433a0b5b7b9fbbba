"""The loop around secateur's own plans and cuts, killed once and taken up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from secateur.core.plan import Plan
from secateur.criteria.score import score
from secateur.cut import cut
from secateur.graph import trace
from secateur.select.plan import plan as make_plan
from secateur.train import (
    Attempt,
    FinetuneSettings,
    IterativeSettings,
    PruneStep,
    TensorBatches,
    accuracy,
    finetune,
    prune_iteratively,
)

INPUTS = torch.zeros(1, 1, 8, 8)
LOSS = nn.CrossEntropyLoss()


class Killed(BaseException):
    """Stands for the end of the process."""


def prune(model: nn.Module, fraction: float) -> tuple[nn.Module, str]:
    graph = trace(model, INPUTS)
    scores = score(graph, model, criterion="l2")
    plan = make_plan(graph, scores, budget=f"params={fraction:.6%}", selector="global")
    return cut(model, plan), plan.to_json()


STEP = PruneStep(prune, rebuild=lambda model, text: cut(model, Plan.from_json(text)))


def test_a_network_to_a_quarter_of_its_parameters(digits: Any, tmp_path: Path) -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 10),
        )

    data = TensorBatches(digits.train_x, digits.train_y, batch_size=64)
    test = [(digits.test_x, digits.test_y)]
    dense = network()
    finetune(dense, data, settings=FinetuneSettings(epochs=4, lr=0.05), loss_fn=LOSS)

    def run(folder: Path | None, *, deadly: int | None = None) -> Any:
        def recover(model: nn.Module, attempt: Attempt) -> None:
            if attempt.number == deadly:
                raise Killed
            settings = FinetuneSettings(epochs=2, lr=attempt.lr)
            finetune(model, data, settings=settings, loss_fn=LOSS, checkpoint_dir=attempt.folder)

        return prune_iteratively(
            dense,
            step=STEP,
            recover=recover,
            validate=lambda model: accuracy(model, test),
            settings=IterativeSettings(target=0.25, steps=2, max_drop=0.03, lr=0.05),
            run_dir=folder,
        )

    expected = run(None)
    assert expected.met, expected.reason
    assert sum(p.numel() for p in expected.model.parameters()) <= 0.25 * sum(
        p.numel() for p in dense.parameters()
    )
    with pytest.raises(Killed):
        run(tmp_path, deadly=2)
    result = run(tmp_path)
    assert result.history == expected.history
    assert result.plans == expected.plans
    theirs = expected.model.state_dict()
    assert all(torch.equal(v, theirs[name]) for name, v in result.model.state_dict().items())
