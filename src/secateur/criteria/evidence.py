"""What calibration tells a criterion of each weight: its gradient, its curvature, what it reads.

`NEEDS` of a criterion names at most one kind. A round is a mapping from parameter names to tensors
of the parameters' shapes; scores are averaged over the rounds. Kinds that are averaged before
they are scored come in one round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from secateur.core.errors import ScoreError
from secateur.criteria.curvature import hessian_diagonals, hessian_gradients
from secateur.criteria.gradients import (
    LossFn,
    batch_gradients,
    mean_gradients,
    samples_of,
)
from secateur.criteria.input_norms import input_norms
from secateur.criteria.sound import finite
from secateur.criteria.synaptic import synaptic_gradients

Round = Mapping[str, Tensor]


def evidence_kind(rule: ModuleType) -> str | None:
    """The kind of evidence about single weights that a criterion needs, or None."""
    return next((kind for kind in KINDS if kind in rule.NEEDS), None)


def rounds(
    kind: str,
    model: nn.Module,
    *,
    criterion: str,
    data: Iterable[Any] | None,
    loss_fn: LossFn | None,
    seed: int,
) -> Iterator[Round]:
    """The evidence, round by round. Raises: ScoreError for missing data, and evidence that is
    NaN or infinite."""
    if data is None:
        raise needs_data(criterion, with_loss=kind in _OF_A_LOSS)
    for found in KINDS[kind](model, data, loss_fn, seed):
        for name, tensor in found.items():
            if not finite(tensor):
                raise ScoreError(
                    f"the {kind.replace('_', ' ')} of {name} holds NaN or infinite values; "
                    "calibrate in float32 or with a smaller loss, or use a criterion such as 'l2'"
                )
        yield found


def needs_data(criterion: str, *, with_loss: bool) -> ScoreError:
    """The error for a criterion without its data."""
    what = "gradients" if with_loss else "activations"
    loss = ", loss_fn=torch.nn.functional.cross_entropy" if with_loss else ""
    return ScoreError(
        f"criterion {criterion!r} needs {what}, so it needs data: type score(graph, model, "
        f"criterion={criterion!r}, data=loader{loss})"
    )


def _of_batches(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, seed: int
) -> Iterator[Round]:
    return batch_gradients(model, data, loss_fn)


def _of_samples(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, seed: int
) -> Iterator[Round]:
    return batch_gradients(model, samples_of(data), loss_fn)


def _averaged(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, seed: int
) -> Iterator[Round]:
    yield mean_gradients(model, data, loss_fn)


def _hessian_times_gradient(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, seed: int
) -> Iterator[Round]:
    yield hessian_gradients(model, data, loss_fn)


def _hessian_diagonal(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, seed: int
) -> Iterator[Round]:
    yield hessian_diagonals(model, data, loss_fn, seed=seed)


def _synaptic(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, seed: int
) -> Iterator[Round]:
    yield synaptic_gradients(model, data)


def _input_norms(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, seed: int
) -> Iterator[Round]:
    yield input_norms(model, data)


KINDS: Mapping[str, Callable[..., Iterator[Round]]] = {
    "gradient": _of_batches,
    "sample_gradient": _of_samples,
    "mean_gradient": _averaged,
    "hessian_gradient": _hessian_times_gradient,
    "hessian_diagonal": _hessian_diagonal,
    "synaptic_gradient": _synaptic,
    "input_norm": _input_norms,
}
_OF_A_LOSS = frozenset(
    {"gradient", "sample_gradient", "mean_gradient", "hessian_gradient", "hessian_diagonal"}
)
