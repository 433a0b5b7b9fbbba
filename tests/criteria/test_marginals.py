"""Marginals are the plain sums, for any layout, size and type; criteria with a term agree."""

from __future__ import annotations

import pytest
import torch

from secateur.core.lookup import find, names
from secateur.criteria import marginals as module
from secateur.criteria.marginals import Marginals
from secateur.criteria.matrices import Context, UnitMatrix

SEPARABLE = [
    name
    for name in names("secateur.criteria")
    if "TERM" in vars(find("secateur.criteria", name, kind="criterion"))
]


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16), ids=str)
@pytest.mark.parametrize("shape", [(), (7,), (5, 1), (1, 9), (6, 4), (5, 3, 2, 2), (2, 3, 1, 1)])
def test_sums_over_all_but_one_dimension(shape, dtype, monkeypatch) -> None:
    whole = torch.randn(shape, dtype=torch.float64).to(dtype)
    views = [whole]
    if len(shape) > 1:
        views.append(whole.transpose(0, 1).contiguous().transpose(0, 1))
    if len(shape) == 4:
        views.append(whole.to(memory_format=torch.channels_last))
    for block, widest in ((1 << 17, 1 << 20), (8, 1 << 20), (8, 4)):
        monkeypatch.setitem(module._BLOCK, "cpu", block)
        monkeypatch.setattr(module, "_WIDEST", widest)
        for tensor in views:
            squares = tensor.double().square()
            found = Marginals(torch.square)(tensor, range(len(shape)))
            assert list(found) == list(range(len(shape)))
            for k, sums in found.items():
                others = [d for d in range(len(shape)) if d != k]
                expected = squares.sum(others) if others else squares
                torch.testing.assert_close(sums, expected, rtol=1e-5, atol=1e-6)


def test_the_tensor_stays_as_it_is() -> None:
    tensor = torch.randn(6, 4)
    before = tensor.clone()
    Marginals(torch.abs)(tensor, (0, 1))
    assert torch.equal(tensor, before)


@pytest.mark.parametrize("criterion", SEPARABLE)
def test_terms_are_those_of_the_criterion(criterion) -> None:
    rule = find("secateur.criteria", criterion, kind="criterion")
    weights = torch.randn(6, 4, dtype=torch.float64)
    context = Context("group", 6, torch.Generator())
    expected = rule.importance(UnitMatrix(weights), context)
    summed = Marginals(rule.TERM)(weights, {0})[0] ** (1 / rule.POWER)
    torch.testing.assert_close(summed, expected)


def test_both_norms_are_sums_of_terms() -> None:
    assert {"l1", "l2"} <= set(SEPARABLE)
