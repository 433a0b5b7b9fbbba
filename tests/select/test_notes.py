"""Notes are said once for what is alike, and nothing that differs is lost."""

from __future__ import annotations

from dataclasses import replace

from secateur.core.expressions import Binary, Relation, Size
from secateur.select.notes import summarised
from secateur.select.plan import plan


def test_layers_are_counted_with_their_place_and_units() -> None:
    notes = [
        f"layers.{n}.attn.q.weight[0].{part}: asked {3 + n} of 8 units, keeps {4 * part}: "
        f"layers.{n}.attn.heads == 4 (model.py:7)"
        for n in range(3)
        for part in (1, 2)
    ]
    assert summarised(notes) == (
        "layers.0.attn.q.weight[0].1: asked 3 of 8 units, keeps 4 (and 2 groups like it in "
        "layers.*: asked 4 to 5, keep 4): layers.0.attn.heads == 4 (model.py:7)",
        "layers.0.attn.q.weight[0].2: asked 3 of 8 units, keeps 8 (and 2 groups like it in "
        "layers.*: asked 4 to 5, keep 8): layers.0.attn.heads == 4 (model.py:7)",
    )


def test_parts_of_one_dimension_are_alike_where_no_other_layer_is() -> None:
    notes = [
        "stage.0.conv.weight[0].0: asked 2 of 3 units, keeps all: x",
        "stage.0.conv.weight[0].1: asked 2 of 6 units, keeps all: x",
        "stage.0.conv.weight[0].1: asked 2 of 6 units, keeps 4: another reason",
    ]
    assert summarised(notes) == (
        "stage.0.conv.weight[0].0: asked 2 of 3 units, keeps all (and a group like it in "
        "stage.0.conv.weight[0].*: asked 2, keep 6): x",
        notes[2],
    )


def test_what_differs_stays() -> None:
    notes = (
        "conv1.weight[0]: left whole, structural",
        "conv2.weight[0]: left whole, structural",
        "layers.0.fc.weight[0]: asked 2 of 3 units, keeps 3: a == b (model.py:7)",
        "layers.1.fc.weight[0]: asked 2 of 3 units, keeps 3: a == b (model.py:8)",
    )
    assert summarised(notes) == notes
    left = [f"layers.{n}.fc[0]: left whole, its {n + 2} units are needed" for n in range(2)]
    assert summarised(left) == (f"{left[0]} (and a group like it in layers.*)",)


def test_a_budget_that_is_not_used_up_says_so(make_chain, make_scores) -> None:
    graph = make_chain([4, 8, 8, 4])
    axes = {group.id: group.axis for group in graph.groups}
    # both layers as wide as the other, and one more than a multiple of seven: 8 units, or 1
    tied = Relation("eq", Size((axes["w1"],)), Size((axes["w2"],)))
    leap = Relation("eq", Binary("mod", Binary("sub", Size((axes["w1"],)), 1), 7), 0)
    graph = replace(graph, relations=(*graph.relations, tied, leap))
    found = plan(graph, make_scores(graph), budget="params=50%")
    assert {id: len(units) for id, units in found.keep.items()} == {"w1": 1, "w2": 1}
    # 4 * 1 + 1 * 1 + 1 * 4 of 128 parameters
    assert found.notes[0].startswith(
        "params=50% is met with 7.0% of the dense model, 43.0% less than it allows: no larger"
    )
