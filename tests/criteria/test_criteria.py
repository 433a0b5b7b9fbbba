"""Each criterion equals a naive loop written from its paper, unit by unit and member by member."""

from __future__ import annotations

import math

import pytest
import torch
from references import LOSS, REFERENCES
from small_models import batches, made

from secateur import trace
from secateur.core.graph import Graph
from secateur.core.lookup import find, names
from secateur.criteria.evidence import KINDS, evidence_kind
from secateur.criteria.matrices import UnitMatrix, context_of
from secateur.criteria.score import score

UNITS = [
    name
    for name in names("secateur.criteria")
    if "stream" not in find("secateur.criteria", name, kind="criterion").NEEDS
]
DRAWN = {"random"}


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    return {name: trace(made(name), batches()[0][0]) for name in ("conv", "attention")}


@pytest.mark.parametrize("model_name", ["conv", "attention"])
@pytest.mark.parametrize("criterion", [name for name in UNITS if name not in DRAWN])
def test_criterion_equals_its_paper(criterion, model_name, graphs) -> None:
    graph = graphs[model_name]
    reference = REFERENCES[criterion]  # a new criterion needs its naive loop there
    model = made(model_name)
    scores = score(graph, model, criterion=criterion, data=batches(), loss_fn=LOSS)
    for group in graph.free:
        expected = [reference(model_name, graph, group, unit) for unit in range(group.size)]
        if None in expected:
            assert group.id not in scores
            continue
        torch.testing.assert_close(
            scores[group.id],
            torch.tensor(expected, dtype=torch.float64),
            rtol=1e-5,
            atol=1e-7 * max(map(abs, expected)),
            msg=lambda text, id=group.id: f"{id}: {text}",
        )


def test_the_groups_have_every_kind_of_member(graphs) -> None:
    conv, attention = graphs["conv"], graphs["attention"]
    first, second = conv.free[0], conv.free[1]
    assert {"conv1.weight", "bn.weight", "conv2.weight", "depthwise.weight", "fc.weight"} <= {
        member.tensor for member in first.members
    }
    assert second.members[0].tensor == "conv2.weight" and len(second.members) == 4
    heads = [g for g in attention.free if g.size == 4 and g.members[0].tensor.startswith("qkv")]
    assert heads, "a group of heads whose members are rows of the fused projection"


@pytest.mark.parametrize("criterion", UNITS)
def test_criterion_says_what_it_needs(criterion) -> None:
    module = find("secateur.criteria", criterion, kind="criterion")
    others = {"weights", "norm_scale", "activations", "input_moments", "outputs"}
    assert not module.NEEDS - others - set(KINDS)
    if hasattr(module, "importance"):
        assert module.POWER > 0
    else:
        assert any(hasattr(module, name) for name in ("of_group", "error", "rise"))
    assert module.__doc__
    if criterion not in {"random", "gradient"}:
        assert "Source:" in module.__doc__ and ("arXiv" in module.__doc__)


ELEMENTS = [
    name for name in UNITS if hasattr(find("secateur.criteria", name, kind="criterion"), "element")
]


@pytest.mark.parametrize("criterion", [n for n in ELEMENTS if n not in {"random", "lamp"}])
def test_units_follow_from_elements(criterion) -> None:
    """Where a unit's importance is made of its weights', the two agree."""
    rule = find("secateur.criteria", criterion, kind="criterion")
    w, e = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    evidence = (e,) if evidence_kind(rule) else ()
    terms = rule.element(w, *evidence)
    assert terms.shape == w.shape
    found = rule.importance(UnitMatrix(w, e), context_of("group", 5, 0))
    if math.isinf(rule.POWER):
        expected = terms.amax(1)
    else:
        power = rule.POWER if criterion == "gradient" else 1
        expected = (terms**power).sum(1) ** (1 / rule.POWER)
    torch.testing.assert_close(found, expected)
    if vars(rule).get("POINTWISE", True):
        half = rule.element(w[:, 3], *(x[:, 3] for x in evidence))
        assert torch.equal(half, terms[:, 3])


def test_what_masks_are_made_of() -> None:
    assert set(ELEMENTS) >= {
        *("l1", "l2", "linf", "lamp", "random", "gradient", "taylor_weight", "fisher", "obd"),
        *("snip", "grasp", "synflow", "movement"),
    }


def test_lookup_finds_exactly_the_criteria() -> None:
    assert set(UNITS) == set(REFERENCES) | DRAWN
    with pytest.raises(ValueError, match="did you mean 'taylor'"):
        find("secateur.criteria", "tailor", kind="criterion")


def test_random_depends_on_seed_and_group_only(case) -> None:
    first = score(case.graph, case.model, criterion="random", seed=1)
    again = score(case.graph, case.model, criterion="random", seed=1)
    other = score(case.graph, case.model, criterion="random", seed=2)
    assert all(torch.equal(first[id], again[id]) for id in first)
    assert not torch.equal(first["conv1"], other["conv1"])
    assert not torch.equal(first["conv1"][:6], first["conv2"])
    assert all(values.dtype == torch.float64 for values in first.values())


def test_random_elements_follow_their_generator() -> None:
    rule = find("secateur.criteria", "random", kind="criterion")
    first, again = (
        rule.element(torch.zeros(2, 3), generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert torch.equal(first, again) and first.unique().numel() == 6


def test_lamp_of_single_weights_by_hand() -> None:
    rule = find("secateur.criteria", "lamp", kind="criterion")
    found = rule.element(torch.tensor([[3.0, 1.0], [-2.0, 0.0]]))
    expected = torch.tensor([[1.0, 1 / 14], [4 / 13, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    assert rule.element(torch.zeros(3)).tolist() == [0, 0, 0]


def test_shapes_in_annotations_are_checked_while_tests_run() -> None:
    with pytest.raises(TypeError, match="w_UR"):
        UnitMatrix(torch.zeros(3))
