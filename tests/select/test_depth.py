"""Which blocks a plan removes: so many, the lowest scores, never a pinned one."""

from __future__ import annotations

import pytest
import torch
from stacks import Passing, Stack, rows
from torch import Tensor

from secateur import BudgetError, plan, score, trace


def ascending(count: int = 4) -> dict[str, Tensor]:
    return {f"layers.{k}": torch.tensor([float(k)]) for k in range(count)}


@pytest.mark.parametrize(("blocks", "gone"), [(0.25, 1), (0.5, 2), (0.374, 1), (0.376, 2), (3, 3)])
def test_a_share_or_a_number(blocks: float, gone: int) -> None:
    made = plan(trace(Stack().eval(), rows()), ascending(), blocks=blocks)
    assert made.removed == tuple(f"layers.{k}" for k in range(gone))
    assert made.settings["blocks"] == blocks
    assert not made.keep and not made.identity


def test_a_budget_is_met_with_as_few_blocks_as_it_needs() -> None:
    graph = trace(Stack().eval(), rows())
    made = plan(graph, ascending(), budget="macs=60%")
    assert made.after.macs <= 0.6 * made.before.macs
    fewer = plan(graph, ascending(), blocks=len(made.removed) - 1)
    assert fewer.after.macs > 0.6 * made.before.macs
    with pytest.raises(BudgetError, match="not met without any of the 4"):
        plan(graph, ascending(), budget="macs=1%")


def test_width_goes_on_where_depth_stops() -> None:
    model = Stack().eval()
    graph = trace(model, rows())
    made = plan(graph, {**ascending(), **score(graph, model)}, blocks=1, budget="params=40%")
    assert made.removed == ("layers.0",)
    assert made.keep and made.after.params <= 0.4 * made.before.params
    assert not any(name.startswith("layers.0.") for name in made.tensors)
    assert made.graph_hash == graph.hash


def test_kept_modules_and_pinned_blocks_stay() -> None:
    graph = trace(Stack().eval(), rows())
    made = plan(graph, ascending(), blocks=2, keep_modules=("layers.0", "layers.2.up"))
    assert made.removed == ("layers.1", "layers.3")
    passing = trace(Passing().eval(), rows())
    with pytest.raises(BudgetError, match=r"4 blocks should go and 3 of 4 may \(layers\.0: layers"):
        plan(passing, ascending(), blocks=4)


def test_wrong_demands() -> None:
    graph = trace(Stack().eval(), rows())
    with pytest.raises(ValueError, match="needs scores of blocks"):
        plan(graph, {}, blocks=0.5)
    with pytest.raises(ValueError, match="say how many go"):
        plan(graph, ascending())
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match="a share below 1, or a whole number"):
            plan(graph, ascending(), blocks=wrong)
    with pytest.raises(BudgetError, match="remove more blocks"):
        plan(graph, ascending(), blocks=1, budget="macs=10%")
