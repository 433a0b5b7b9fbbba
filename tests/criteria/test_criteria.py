"""Each criterion equals a naive loop written from its paper, unit by unit and member by member."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from secateur.core.lookup import find, names
from secateur.criteria.matrices import UnitMatrix
from secateur.criteria.score import score

CRITERIA = [
    name
    for name in names("secateur.criteria")
    if "stream" not in find("secateur.criteria", name, kind="criterion").NEEDS
]


def slices(model: nn.Module, id: str, unit: int) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
    """What is removed with one unit, spelled out by hand."""
    if id == "conv1":
        own = ("conv1.weight", "conv1.bias", "bn.weight", "bn.bias")
        return [
            *((name, lambda t: t[unit]) for name in own),
            ("conv2.weight", lambda t: t[:, unit]),
        ]
    return [
        ("conv2.weight", lambda t: t[unit]),
        ("conv2.bias", lambda t: t[unit]),
        ("fc.weight", lambda t: t[:, 4 * unit : 4 * unit + 4]),
    ]


def naive(criterion: str, model: nn.Module, batches: list, id: str, unit: int) -> float:
    parameters = dict(model.named_parameters())
    parts = slices(model, id, unit)
    if criterion == "l1":
        return sum(cut(parameters[n]).abs().sum().item() for n, cut in parts)
    if criterion == "l2":
        return math.sqrt(sum((cut(parameters[n]) ** 2).sum().item() for n, cut in parts))
    total = 0.0
    for x, y in batches:
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        if criterion == "gradient":
            total += math.sqrt(sum((cut(parameters[n].grad) ** 2).sum().item() for n, cut in parts))
        else:
            assert criterion == "taylor", "a new criterion needs its naive loop here"
            total += sum(
                abs((cut(parameters[n]) * cut(parameters[n].grad)).sum().item()) for n, cut in parts
            )
    model.zero_grad()
    return total / len(batches)


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name != "random"])
def test_criterion_equals_a_naive_loop(criterion, case) -> None:
    scores = score(
        case.graph,
        case.model,
        criterion=criterion,
        data=case.batches,
        loss_fn=nn.functional.cross_entropy,
    )
    assert list(scores) == ["conv1", "conv2"]
    for id, units in (("conv1", 8), ("conv2", 6)):
        expected = [naive(criterion, case.model, case.batches, id, unit) for unit in range(units)]
        torch.testing.assert_close(
            scores[id], torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("criterion", CRITERIA)
def test_criterion_says_what_it_needs(criterion) -> None:
    module = find("secateur.criteria", criterion, kind="criterion")
    assert not module.NEEDS - {"weights", "gradient"}
    assert module.POWER > 0
    assert module.__doc__ and ("Source:" in module.__doc__ or criterion in {"random", "gradient"})


def test_lookup_finds_exactly_the_criteria() -> None:
    assert {"random", "l1", "l2", "gradient", "taylor"} <= set(CRITERIA)
    assert not {"score", "matrices", "gradients"} & set(CRITERIA)
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


def test_shapes_in_annotations_are_checked_while_tests_run() -> None:
    with pytest.raises(TypeError, match="w_UR"):
        UnitMatrix(torch.zeros(3))
