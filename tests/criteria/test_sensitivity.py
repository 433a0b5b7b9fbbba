"""What outputs lose is measured on batches that the order was not made on; the model stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateur import ScoreError, plan, score, trace
from secateur.criteria import sensitivity
from secateur.criteria.output_error import rise


class Two(nn.Module):
    """Two hidden layers side by side, of which one hardly matters to the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.loud_in, self.loud = nn.Linear(6, 16), nn.Linear(16, 4)
        self.still_in, self.still = nn.Linear(6, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.loud(self.loud_in(x).relu()) + 0.01 * self.still(self.still_in(x).relu())


def batches(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(40, 6, generator=generator) for _ in range(count)]


def test_units_go_where_the_outputs_lose_least() -> None:
    torch.manual_seed(0)
    model = Two()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = trace(model, batches(1)[0])
    scores = score(graph, model, criterion="output_error", data=batches(8))
    made = plan(graph, scores, budget="macs=60%", selector="global", normalise="none")
    kept = {id.partition(".")[0]: len(units) for id, units in made.keep.items()}
    assert kept.get("loud_in", 16) == 16 and kept["still_in"] == 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_is_measured_on_was_held_back(monkeypatch) -> None:
    model, seen = Two(), []
    graph = trace(model, batches(1)[0])
    outputs = sensitivity.run_batch
    monkeypatch.setattr(sensitivity, "run_batch", lambda m, x: seen.append(x) or outputs(m, x))
    given = batches(9)
    monkeypatch.setattr(
        sensitivity, "readers_of", lambda g, m, data, **_: seen.append(list(data)) or {}
    )
    score(graph, model, criterion="output_error", data=given)
    learnt, looked_at = seen[0], seen[1:]
    assert [any(x is y for y in learnt) for x in given] == [k not in (3, 7) for k in range(9)]
    assert len(looked_at) == 2 and looked_at[0] is given[3] and looked_at[1] is given[7]


def test_a_grouped_convolution_is_made_up_group_by_group() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(32, 3)
    )
    x = torch.randn(6, 3, 4, 4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = trace(model, x)
    scores = score(graph, model, criterion="output_error", data=[x, x.flip(0)])
    assert scores and all(bool((values > 0).all()) for values in scores.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_scores_never_fall_in_the_order_of_going_and_never_tie() -> None:
    errors = torch.tensor([0.1, 0.5, 0.6, 0.7, 2.0]).double()
    found = rise(errors, torch.arange(1.0, 6.0).double())
    assert bool((found.diff() > 0).all())
    torch.testing.assert_close(found, torch.tensor([0.1, 0.2, 0.2, 0.2, 1.3]).double())


def test_wrong_inputs_are_told() -> None:
    class NoNumbers(Two):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).argmax(1)

    model = NoNumbers()
    graph = trace(model, batches(1)[0])
    with pytest.raises(ScoreError, match="no tensor of floating-point numbers"):
        score(graph, model, criterion="output_error", data=batches(1))
    with pytest.raises(ScoreError, match="needs data"):
        score(graph, model, criterion="output_error")
    with pytest.raises(ScoreError, match="no batch"):
        score(graph, model, criterion="output_error", data=[])
