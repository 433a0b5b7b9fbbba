"""Importance of single weights, for masks: `score_weights` calls a criterion's `element`.

No graph is needed, for no unit is. What a criterion looks at beside the weights is collected as for
units (`criteria.evidence`); averages over rounds are kept in float32, one number for each weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from secateur.core.errors import ScoreError
from secateur.core.fingerprint import named_tensors
from secateur.core.lookup import find
from secateur.criteria.evidence import evidence_kind, rounds
from secateur.criteria.gradients import LossFn, add_
from secateur.criteria.matrices import generator_of
from secateur.criteria.sound import check_sound


def score_weights(
    model: nn.Module,
    names: Iterable[str],
    *,
    criterion: str = "l1",
    data: Iterable[Any] | None = None,
    loss_fn: LossFn | None = None,
    seed: int = 0,
) -> Iterator[tuple[str, Tensor]]:
    """Name and importance of each named parameter, a tensor of its shape, one at a time.

    data, loss_fn, seed: as for `score`. A parameter that the criterion sees nothing of (it is
    frozen, or no matrix multiplication reads it) is an error.

    Raises: ScoreError for missing data, tensors that hold NaN or have no values, and a criterion
    that says nothing of single weights; ValueError for an unknown criterion or parameter.

    >>> model = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, -3)
    >>> [(name, values.tolist()) for name, values in score_weights(model, ["weight"])]
    [('weight', [[3.0, 3.0]])]
    """
    rule = find("secateur.criteria", criterion, kind="criterion")
    if not hasattr(rule, "element"):
        raise ScoreError(
            f"criterion {criterion!r} scores units and says nothing of single weights; use one "
            "such as 'l1', 'taylor_weight' or 'wanda'"
        )
    tensors = _named(model, names)
    if rule.NEEDS:
        for name, tensor in tensors.items():
            check_sound(name, tensor, criterion)
    kind = evidence_kind(rule)
    if kind is None:
        for name, tensor in tensors.items():
            yield name, _alone(rule, name, tensor, seed)
        return
    found = rounds(kind, model, criterion=criterion, data=data, loss_fn=loss_fn, seed=seed)
    yield from _averaged(rule, tensors, found, kind)


def _named(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    known = dict(named_tensors(model))
    first = {id(tensor): name for name, tensor in reversed(list(known.items()))}
    chosen = {}
    for name in names:
        if name not in known:
            raise ValueError(f"the model has no parameter {name!r}")
        # evidence has the first name of a tied parameter
        chosen[first[id(known[name])]] = known[name]
    return chosen


def _alone(rule: ModuleType, name: str, tensor: Tensor, seed: int) -> Tensor:
    weights = _wide(tensor)
    if rule.NEEDS:
        plain: Tensor = rule.element(weights)
        return plain
    drawn: Tensor = rule.element(weights, generator=generator_of(name, seed))
    return drawn


def _averaged(
    rule: ModuleType,
    tensors: Mapping[str, Tensor],
    found: Iterable[Mapping[str, Tensor]],
    kind: str,
) -> Iterator[tuple[str, Tensor]]:
    total: dict[str, Tensor] = {}
    count = 0
    for evidence in found:
        for name, tensor in tensors.items():
            if name in evidence:
                add_(total, {name: rule.element(_wide(tensor), evidence[name])})
        count += 1
    for name in tensors:
        if name not in total:
            raise ScoreError(
                f"there is no {kind.replace('_', ' ')} for {name}: it is frozen, or nothing that "
                "was run depends on it; leave it out, call requires_grad_(True) on it, or use a "
                "criterion such as 'l1'"
            )
    for name in tensors:
        yield name, total.pop(name).div_(count)


def _wide(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor
