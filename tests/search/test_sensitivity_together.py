"""Ranks that measure sensitivities together, a group each."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "criteria"))

from worlds import on_ranks

import secateur as sc
from secateur.core.errors import ScoreError
from secateur.core.sensitivities import Sensitivities
from secateur.search.sensitivity import measure_sensitivities

LOSS = nn.functional.cross_entropy


def test_curves_are_those_of_one_process(tmp_path: Path) -> None:
    torch.manual_seed(2)
    layers = [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(8, 5)).eval()
    data = [(torch.randn(9, 6), torch.randint(5, (9,))) for _ in range(3)]
    graph = sc.trace(model, data[0][0])
    scores = sc.score(graph, model)
    how = {"loss_fn": LOSS, "depths": (0.25, 0.5)}
    alone = measure_sensitivities(model, graph, scores, data=data, **how)
    assert len(alone.curves) == 3
    twins = [copy.deepcopy(model) for _ in range(2)]
    told: list[tuple[str, int, int]] = []

    def work(world, data=data, path=tmp_path / "s.json"):
        def tell(*what):
            told.append(what)

        own = twins[world.rank]
        return measure_sensitivities(
            own, graph, scores, data=data, path=path, progress=tell, world=world, **how
        )

    assert on_ranks(2, work) == [alone, alone]
    assert [number for _, number, _ in told] == [1, 2, 3]  # by rank 0 alone
    assert Sensitivities.load(tmp_path / "s.json") == alone

    def other(world):
        return work(world, data=data[world.rank :], path=None)

    for error in on_ranks(2, other):
        assert isinstance(error, ScoreError) and "whole model" in str(error)
