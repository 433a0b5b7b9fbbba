"""What calibration tells a criterion of each weight: its gradient, its curvature, what it reads.

`NEEDS` of a criterion names at most one kind. A round is a mapping from parameter names to tensors
of the parameters' shapes; scores are averaged over the rounds. Kinds that are averaged before
they are scored come in one round, the same on every rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from secateur.core.errors import ScoreError
from secateur.core.graph import Graph
from secateur.core.world import ALONE, World
from secateur.criteria.curvature import hessian_diagonals, hessian_gradients
from secateur.criteria.exact_sums import ExactSums
from secateur.criteria.gradients import (
    LossFn,
    batch_gradients,
    mean_gradients,
    numbered_samples,
)
from secateur.criteria.input_norms import input_norms
from secateur.criteria.shares import shared
from secateur.criteria.sound import finite
from secateur.criteria.synaptic import synaptic_gradients
from secateur.criteria.together import check_alike

Round = Mapping[str, Tensor]


@dataclass(frozen=True)
class Calibration:
    """What a criterion is told of the model's use. data, loss_fn: see `criteria.gradients`. world:
    ranks that share the data."""

    criterion: str
    data: Iterable[Any] | None = None
    loss_fn: LossFn | None = None
    seed: int = 0
    world: World = ALONE

    def agreed(self, model: nn.Module, graph: Graph | None = None) -> Calibration:
        """With this rank's share of the data, once all ranks are known to have the same of it, the
        same model and the same graph. Raises: ScoreError, EngineError, on every rank."""
        if self.world.size == 1:
            return self
        about = {
            "the criterion": self.criterion,
            "the seed": self.seed,
            "whether there is data": self.data is not None,
            "the graph": "" if graph is None else graph.hash,
        }
        check_alike(self.world, model, about)
        return self if self.data is None else replace(self, data=shared(self.data, self.world))


def evidence_kind(rule: ModuleType) -> str | None:
    """The kind of evidence about single weights that a criterion needs, or None."""
    return next((kind for kind in KINDS if kind in rule.NEEDS), None)


def rounds(kind: str, model: nn.Module, told: Calibration) -> Iterator[Round]:
    """The evidence, round by round; of several rounds those of this rank's batches.

    Raises: ScoreError for missing data, and evidence that is NaN or infinite.
    """
    if told.data is None:
        raise needs_data(told.criterion, with_loss=kind in _OF_A_LOSS)
    for found in KINDS[kind](model, told.data, told.loss_fn, told.seed, told.world):
        for name, tensor in found.items():
            if not finite(tensor):
                raise ScoreError(
                    f"the {kind.replace('_', ' ')} of {name} holds NaN or infinite values; "
                    "calibrate in float32 or with a smaller loss, or use a criterion such as 'l2'"
                )
        yield found


def averaged(
    kind: str,
    found: Iterable[Round],
    score: Callable[[Round], Mapping[str, Tensor]],
    *,
    like: Mapping[str, Tensor] | None = None,
    world: World = ALONE,
) -> dict[str, Tensor]:
    """What `score` makes of a round, averaged over the rounds of all ranks.

    like: tensors by the scores' names that tell their layout.
    """
    if kind not in _OF_ROUNDS:
        (one,) = found
        return dict(score(one))
    sums = ExactSums(like)
    for evidence in found:
        sums.add_(score(evidence))
    sums.reduce_(world, what="mean scores")
    return sums.means()


def needs_data(criterion: str, *, with_loss: bool) -> ScoreError:
    """The error for a criterion without its data."""
    what = "gradients" if with_loss else "activations"
    loss = ", loss_fn=torch.nn.functional.cross_entropy" if with_loss else ""
    return ScoreError(
        f"criterion {criterion!r} needs {what}, so it needs data: type score(graph, model, "
        f"criterion={criterion!r}, data=loader{loss})"
    )


def _of_batches(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, seed: int, world: World
) -> Iterator[Round]:
    return batch_gradients(model, data, loss_fn)


def _of_samples(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, seed: int, world: World
) -> Iterator[Round]:
    return batch_gradients(model, numbered_samples(data), loss_fn)


def _averaged(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, seed: int, world: World
) -> Iterator[Round]:
    yield mean_gradients(model, data, loss_fn, world=world)


def _hessian_times_gradient(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, seed: int, world: World
) -> Iterator[Round]:
    yield hessian_gradients(model, data, loss_fn, world=world)


def _hessian_diagonal(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, seed: int, world: World
) -> Iterator[Round]:
    yield hessian_diagonals(model, data, loss_fn, seed=seed, world=world)


def _synaptic(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, seed: int, world: World
) -> Iterator[Round]:
    yield synaptic_gradients(model, data)


def _input_norms(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, seed: int, world: World
) -> Iterator[Round]:
    yield input_norms(model, data, world=world)


KINDS: Mapping[str, Callable[..., Iterator[Round]]] = {
    "gradient": _of_batches,
    "sample_gradient": _of_samples,
    "mean_gradient": _averaged,
    "hessian_gradient": _hessian_times_gradient,
    "hessian_diagonal": _hessian_diagonal,
    "synaptic_gradient": _synaptic,
    "input_norm": _input_norms,
}
_OF_ROUNDS = frozenset({"gradient", "sample_gradient"})
_OF_A_LOSS = frozenset(
    {"gradient", "sample_gradient", "mean_gradient", "hessian_gradient", "hessian_diagonal"}
)
