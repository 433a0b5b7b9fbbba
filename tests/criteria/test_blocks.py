"""Scores of blocks against the papers' formulas written out."""

from __future__ import annotations

import pytest
import torch
from stacks import Passing, Stack, rows
from torch import nn

from secateur import ScoreError, score, trace
from secateur.criteria.blocks import score_blocks


def test_block_output_is_one_minus_the_mean_cosine() -> None:
    model = Stack().eval().requires_grad_(False)
    graph = trace(model, rows())
    found = score(graph, model, criterion="block_output", data=[rows(), (rows() + 1, None)])
    streams = [model.stem(batch) for batch in (rows(), rows() + 1)]
    for path, values in found.items():
        after = [model.get_submodule(path)(x) for x in streams]
        cosines = [
            float(a @ b / (a.norm() * b.norm()))
            for before, now in zip(streams, after, strict=True)
            for a, b in zip(before, now, strict=True)
        ]
        assert values.shape == (1,)
        assert float(values) == pytest.approx(1 - sum(cosines) / len(cosines), abs=1e-6)
        streams = after


def test_greedy_scores_are_the_order_of_removal() -> None:
    model = Stack().eval().requires_grad_(False)
    graph = trace(model, rows())
    order = score_blocks(graph, model, data=[rows()], greedy=True)
    assert sorted(float(v) for v in order.values()) == [0.0, 1.0, 2.0, 3.0]
    single = score_blocks(graph, model, data=[rows()])
    first = min(order, key=lambda path: float(order[path]))
    assert first == min(single, key=lambda path: float(single[path]))
    # the second is the lowest of what is left once the first is bypassed
    x = model.stem(rows())
    change = {}
    for path in order:
        if path != first:
            y = model.get_submodule(path)(x)
            change[path] = float(1 - nn.functional.cosine_similarity(x, y, dim=1).mean())
            x = y
    assert float(order[min(change, key=change.__getitem__)]) == 1.0


@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor"])
def test_unit_criteria_sum_over_the_weights(criterion: str) -> None:
    model = Stack().eval()
    graph = trace(model, rows())
    targets = torch.tensor([0, 1, 2, 0, 1, 2])
    loss = nn.functional.cross_entropy
    found = score_blocks(graph, model, criterion=criterion, data=[(rows(), targets)], loss_fn=loss)
    loss(model(rows()), targets).backward()
    for path, values in found.items():
        own = list(model.get_submodule(path).parameters())
        expected = {
            "l1": sum(p.abs().sum() for p in own),
            "l2": sum(p.square().sum() for p in own).sqrt(),
            "taylor": sum((p * p.grad).sum().abs() for p in own),
        }[criterion]
        torch.testing.assert_close(values, expected.detach().double().reshape(1), rtol=1e-5, atol=0)


def test_random_scores_depend_on_the_seed_and_work_on_meta() -> None:
    model = Stack().eval()
    graph = trace(model, rows())
    first, again = (score_blocks(graph, model, criterion="random", seed=s) for s in (1, 1))
    other = score_blocks(graph, model, criterion="random", seed=2)
    assert first == again != other


def test_pinned_blocks_get_no_score_and_demands_are_named() -> None:
    model = Passing().eval()
    graph = trace(model, rows())
    assert list(score_blocks(graph, model, data=[rows()])) == ["layers.1", "layers.2", "layers.3"]
    with pytest.raises(ScoreError, match="so it needs data"):
        score(graph, model, criterion="block_output")
    with pytest.raises(ScoreError, match="no calibration batch"):
        score(graph, model, criterion="block_output", data=[])
    with pytest.raises(ScoreError, match="NaN or infinite"):
        score(graph, model, criterion="block_output", data=[rows() * float("nan")])
    with pytest.raises(ValueError, match="does not change when a block goes"):
        score_blocks(graph, model, criterion="l2", greedy=True)
