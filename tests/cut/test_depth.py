"""A model without some of its blocks equals the original in which they pass their stream on."""

from __future__ import annotations

import pytest
import torch
from stacks import Collecting, Deep, InPlace, Numbered, Paired, Passing, Stack, rows
from torch import Tensor, nn

import secateur as sc
from secateur.core.depth import without_blocks
from secateur.core.plan import Plan
from secateur.cost.counted import cost
from secateur.criteria.blocks import score_blocks
from secateur.cut.apply import apply_architecture_
from secateur.cut.depth import keeping_places


def chosen(model: nn.Module, *, seed: int = 0, budget: str | None = None) -> tuple[sc.Graph, Plan]:
    graph = sc.trace(model, rows())
    scores = dict(score_blocks(graph, model, criterion="random", seed=seed))
    if budget is not None:
        scores |= sc.score(graph, model)
    return graph, sc.plan(graph, scores, blocks=0.5, budget=budget)


@pytest.mark.parametrize("make", [Stack, Numbered, Collecting, Passing, Deep])
@pytest.mark.parametrize("budget", [None, "macs=40%"])
def test_cut_equals_bypass(make: type[nn.Module], budget: str | None) -> None:
    model = make().eval()
    graph, plan = chosen(model, budget=budget)
    small = sc.cut(model, plan)
    proof = sc.verify(model, small, plan, rows(), graph=graph, dtype=torch.float64)
    assert proof.max_rel_error <= 1e-12
    assert proof.blocks_removed == len(plan.removed) >= 2
    assert (proof.groups_checked > 0) == (budget is not None)


def test_the_bypass_is_the_computation_by_hand() -> None:
    model = Stack().eval()
    graph = sc.trace(model, rows())
    scores = {f"layers.{k}": torch.tensor([float(k != 1)]) for k in range(4)}
    plan = sc.plan(graph, scores, blocks=1)
    assert plan.removed == ("layers.1",)
    x = model.stem(rows())
    for k in (0, 2, 3):
        x = model.layers[k](x)
    small = sc.cut(model, plan)
    torch.testing.assert_close(small(rows()), model.head(x), rtol=0, atol=0)
    assert [layer.layer_idx for layer in small.layers] == [0, 1, 2]
    assert [layer.up.out_features for layer in small.layers] == [10, 14, 16]
    assert [layer.layer_idx for layer in model.layers] == [0, 1, 2, 3]


def test_a_block_that_writes_into_its_input() -> None:
    model = Stack(InPlace).eval()
    graph, plan = chosen(model)
    sc.verify(model, sc.cut(model, plan), plan, rows(), graph=graph, dtype=torch.float64)


@pytest.mark.parametrize("make", [Stack, Numbered, Passing, Deep])
@pytest.mark.parametrize("budget", [None, "macs=40%"])
def test_predicted_cost_is_counted_cost(make: type[nn.Module], budget: str | None) -> None:
    model = make().eval()
    _, plan = chosen(model, budget=budget)
    small = sc.cut(model, plan)
    again = cost(sc.trace(small, rows()))
    assert plan.after == again
    assert again.params == sum(p.numel() for p in small.parameters()) < plan.before.params


def test_a_list_that_is_paired_with_another_is_found_out() -> None:
    model = Paired().eval()
    graph, plan = chosen(model)
    assert plan.taken_out
    with pytest.raises(sc.ProofError, match="removed blocks"):
        sc.verify(model, sc.cut(model, plan), plan, rows(), graph=graph, dtype=torch.float64)
    instead = keeping_places(plan, graph)
    assert instead is not None
    sc.verify(model, sc.cut(model, instead), instead, rows(), graph=graph, dtype=torch.float64)


def test_prune_puts_identities_where_the_count_matters() -> None:
    result = sc.prune(Paired().eval(), rows(), blocks=0.5, criterion="random")
    assert len(result.plan.identity) == len(result.plan.removed) == 2
    assert "identities stand in" in result.plan.notes[-1]
    assert sum(isinstance(layer, nn.Identity) for layer in result.model.layers) == 2


def test_prune_removes_blocks_then_units() -> None:
    data = [rows()]
    result = sc.prune(Stack().eval(), rows(), blocks=1, budget="macs=50%", data=data)
    assert len(result.plan.removed) == 1 and result.plan.keep
    assert result.after.macs <= 0.5 * result.before.macs
    assert result.plan.settings["block_criterion"] == "block_output"
    assert len(result.model.layers) == 3


def test_plan_survives_json_and_rebuilds_the_model() -> None:
    model = Deep().eval()
    _, plan = chosen(model, budget="macs=40%")
    again = Plan.from_json(plan.to_json())
    assert again == plan
    small, rebuilt = sc.cut(model, plan), apply_architecture_(Deep().eval(), again)
    shapes = {name: t.shape for name, t in small.state_dict().items()}
    assert {name: t.shape for name, t in rebuilt.state_dict().items()} == shapes
    rebuilt.load_state_dict(small.state_dict())
    torch.testing.assert_close(rebuilt(rows()), small(rows()), rtol=0, atol=0)


def test_a_folder_is_loaded_again(tmp_path) -> None:
    model = Stack().eval()
    _, plan = chosen(model, budget="macs=40%")
    small = sc.cut(model, plan)
    sc.save(small, tmp_path / "out", plan=plan)
    again = sc.load(tmp_path / "out", lambda: Stack().eval())
    torch.testing.assert_close(again(rows()), small(rows()), rtol=0, atol=0)


def test_an_optimizer_is_carried_along() -> None:
    model = Stack()
    _, plan = chosen(model.eval(), budget="macs=40%")
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> Tensor:
        loss: Tensor = model(rows()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    step()
    sc.cut_(model, plan, optimizer=optimizer)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    assert {id(p) for p in optimizer.state} <= held
    assert step() > step()


def test_a_graph_without_blocks_is_that_of_the_cut_model() -> None:
    model = Stack().eval()
    graph, plan = chosen(model)
    left, found = without_blocks(graph, plan.removed), sc.trace(sc.cut(model, plan), rows())
    assert [op.name for op in left.ops] == [op.name for op in found.ops]
    assert sorted(g.size for g in left.free) == sorted(g.size for g in found.free)
    assert len(left.blocks) == len(found.blocks) == 2
