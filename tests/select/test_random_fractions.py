"""Random shares of every group, and budgets, on real models with hard size equations.

Run by `make zoo`. What is true is checked without the solver where that is possible: relations by
evaluating them, and that a group has to stay whole by asking for anything less.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Mapping
from functools import cache

import pytest
import torch

from secateur.core.errors import BudgetError
from secateur.core.expressions import COMPARISONS, Field, evaluate
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.graph.trace import trace
from secateur.select.counts import CountSolver
from secateur.select.plan import plan
from secateur.zoo.models import load_model

pytestmark = pytest.mark.zoo

MODELS = (
    "torchvision:swin_t",
    "torchvision:swin_v2_t",
    "torchvision:maxvit_t",
    "torchvision:shufflenet_v2_x0_5",
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:shufflenet_v2_x1_5",
    "torchvision:shufflenet_v2_x2_0",
    "timm:swin_tiny_patch4_window7_224",
    "timm:swinv2_tiny_window8_256",
    "timm:beit_base_patch16_224",
    "timm:cait_xxs24_224",
    "timm:xcit_tiny_12_p8_224",
    "timm:maxvit_tiny_tf_224",
)


@cache
def graph_of(name: str) -> Graph:
    importlib.import_module("torchvision_ops").define_torchvision_ops()
    pytest.importorskip("torchvision")
    pytest.importorskip("timm")
    loaded = load_model(name)
    return trace(loaded.model, loaded.example_inputs)


def scores_of(graph: Graph, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {g.id: torch.rand(g.size, generator=generator) for g in graph.free}


def check_relations(graph: Graph, found: Plan) -> None:
    fields: Mapping[Field, int] = {
        **graph.fields,
        **{change.field: change.after for change in found.changes},
    }
    counts = found.counts()
    for relation in graph.relations:
        sides = [evaluate(side, counts, fields) for side in (relation.left, relation.right)]
        if None not in sides:
            left, right = sides
            assert COMPARISONS[relation.op](left, right) is relation.holds, relation


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MODELS)
def test_no_group_stays_whole_unless_it_must(name: str, seed: int) -> None:
    graph = graph_of(name)
    rng = random.Random(seed)
    shares = {group.id: rng.uniform(0.1, 0.8) for group in graph.free}
    found = plan(graph, scores_of(graph, seed), keep=shares)
    check_relations(graph, found)
    every = [group.axis.index for group in graph.free]
    for group in graph.free:
        asked = -(-group.size * shares[group.id] // 1)
        if group.id in found.keep or asked == group.size:
            continue
        with pytest.raises(BudgetError, match="no unit counts satisfy these together"):
            fewer = {group.axis.index: range(1, group.size)}
            CountSolver(graph, every, allowed=fewer).solve({})


@pytest.mark.parametrize("selector", ["uniform", "global"])
@pytest.mark.parametrize("metric", ["macs", "params"])
@pytest.mark.parametrize("name", MODELS)
def test_half_the_cost_is_met_closely(name: str, metric: str, selector: str) -> None:
    graph = graph_of(name)
    found = plan(graph, scores_of(graph, 0), budget=f"{metric}=50%", selector=selector)
    check_relations(graph, found)
    assert 0.48 <= getattr(found.after, metric) / getattr(found.before, metric) <= 0.5
