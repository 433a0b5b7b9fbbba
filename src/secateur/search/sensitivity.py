"""How sensitive each group is: the loss when part of its units is gone, measured at a few depths.

The units that the scores rank lowest are set to zero everywhere, which is what a cut would do, in a
copy of the model; one group at a time, deeper and deeper. Where a layer norm runs over the axis it
still counts the zeros, so there the loss is a little off. Finished groups are kept on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from secateur.core.copies import copied
from secateur.core.dims import dim_size, unit_rows
from secateur.core.errors import ScoreError
from secateur.core.fingerprint import named_tensors
from secateur.core.graph import Graph, Group
from secateur.core.plan import Scores
from secateur.core.sensitivities import Curve, Sensitivities, units_at
from secateur.core.world import ALONE, Processes, World
from secateur.criteria.score import check_model
from secateur.criteria.together import check_alike, together
from secateur.train.evaluate import mean_loss
from secateur.train.objective import LossFn

DEPTHS = (0.125, 0.25, 0.5, 0.75, 0.9)
"""Shares of a group's units that are taken out."""
SAME = 1e-5
"""A dense loss that differs by less, relative, is that of the same model on the same data."""

Recover = Callable[[nn.Module], object]
Metric = Callable[[nn.Module], float]
Progress = Callable[[str, int, int], None]
"""Told the group that is finished, how many are, and of how many."""


def measure_sensitivities(
    model: nn.Module,
    graph: Graph,
    scores: Scores,
    *,
    data: Iterable[Any],
    loss_fn: LossFn | None = None,
    metric: Metric | None = None,
    depths: Sequence[float] = DEPTHS,
    recover: Recover | None = None,
    path: str | Path | None = None,
    progress: Progress | None = None,
    **processes: Unpack[Processes],
) -> Sensitivities:
    """The model's loss without part of each group's units, those of the lowest scores.

    Every free group that has scores is measured at every depth; the given model is unchanged.

    data: batches to take the mean loss over, best some that training did not see; read again for
    each depth, and held in memory unless they are a sequence or can be read again. loss_fn: of
    outputs and labels; the model's own loss where None. metric: measured beside the loss, for
    example ``lambda model: accuracy(model, batches)``. depths: shares in (0, 1). recover: run on
    the copy before each look at it, for example some steps of training, so that the loss is what
    cannot be won back; what it changes is taken back. path: a file that is written after each group
    and read first, so that a run that was stopped goes on. world: ranks that measure a group each,
    over all batches, which are given to every rank; rank 0 writes the file and tells `progress`.

    Raises: ValueError for wrong depths, ScoreError for a loss that is not a number, TrainError for
    data that is not understood, PlanMismatchError for another model's graph.
    """
    world = processes.get("world", ALONE)
    with together(world, what="sensitivities") as ranks:
        if not depths or not all(0 < depth < 1 for depth in depths):
            raise ValueError(f"depths={tuple(depths)}: shares of a group's units between 0 and 1")
        check_model(graph, model)
        if ranks.size > 1:
            check_alike(ranks, model, {"the graph": graph.hash, "the depths": list(depths)})
        asked = _Asked(data, loss_fn, metric, depths, recover)
        return _measured(model, graph, scores, asked, _Kept(path, progress, ranks))


@dataclass(frozen=True)
class _Asked:
    """What is measured, see `measure_sensitivities`."""

    data: Iterable[Any]
    loss_fn: LossFn | None
    metric: Metric | None
    depths: Sequence[float]
    recover: Recover | None


@dataclass(frozen=True)
class _Kept:
    """Who measures, and where what was found is kept and told."""

    path: str | Path | None
    progress: Progress | None
    world: World

    @property
    def file(self) -> Path | None:
        """Where this rank is to read and write, if it is."""
        return Path(self.path) if self.path is not None and self.world.rank == 0 else None

    def finished(self, ids: Sequence[str], number: int, all: int) -> None:
        """Tell what is finished, the first as the `number`-th."""
        if self.progress is not None and self.world.rank == 0:
            for k, id in enumerate(ids):
                self.progress(id, number + k, all)


def _measured(
    model: nn.Module, graph: Graph, scores: Scores, asked: _Asked, kept: _Kept
) -> Sensitivities:
    data, depths, recover, world = asked.data, asked.depths, asked.recover, kept.world
    batches = list(data) if isinstance(data, Iterator) else data
    subject = copied(model)
    removal = _Removal(subject, graph)

    def losses() -> tuple[float, float | None]:
        if recover is not None:
            recover(subject)
        loss = mean_loss(subject, batches, loss_fn=asked.loss_fn)
        return loss, None if asked.metric is None else asked.metric(subject)

    groups = [group for group in graph.free if group.id in scores and group.size > 1]
    settings = {"depths": list(depths), "by": _by(recover), "order": _order_hash(groups, scores)}
    dense = losses()
    _check_dense(world, [*dense, _order_hash(groups, scores)])
    begun = _begun(graph, dense, settings, kept.file)
    found = Sensitivities.from_json(world.first(begun.to_json(), what="what is measured already"))
    removal.put_back_()
    left = [group for group in groups if group.id not in found.curves]
    first, total = len(groups) - len(left) + 1, len(groups)
    kept.finished([group.id for group in groups if group not in left], 1, total)
    for start in range(0, len(left), world.size):
        now = left[start : start + world.size]
        own: Any = None
        if world.rank < len(now):
            group = now[world.rank]
            order = scores[group.id].argsort(stable=True)
            counts = _counts(group.size, depths)
            own = asdict(_curve(group, counts, order, removal, losses))
        curves = world.gather(own, what="groups' sensitivities")
        more = {group.id: _curve_of(one) for group, one in zip(now, curves, strict=False)}
        found = replace(found, curves={**found.curves, **more})
        if kept.file is not None:
            found.save(kept.file)
        kept.finished([group.id for group in now], first + start, total)
    return found


def _check_dense(world: World, own: list[Any]) -> None:
    """Raises: ScoreError, on every rank, when ranks do not measure the same."""
    for rank, other in enumerate(world.gather(own, what="the whole model's loss")):
        if str(other) != str(own) and world.size > 1:
            raise ScoreError(
                f"the loss of the whole model, its metric or the order of units differ between "
                f"rank {world.rank} and rank {rank}: {own[:2]}, {other[:2]}; pass the same scores "
                "and the same batches in the same order on every rank"
            )


def _curve_of(told: Mapping[str, Any]) -> Curve:
    metric = told["metric"]
    return Curve(
        told["size"],
        tuple(told["removed"]),
        tuple(told["loss"]),
        None if metric is None else tuple(metric),
    )


def estimate_sensitivities(
    graph: Graph, scores: Scores, *, loss: float = 0.0, depths: Sequence[float] = DEPTHS
) -> Sensitivities:
    """What scores alone say, where nothing is to be measured: the loss rises by the scores of what
    goes. For scores that are changes of the loss, as "taylor" gives. loss: of the whole model."""
    curves = {}
    for group in graph.free:
        if group.id in scores and group.size > 1:
            total_U = scores[group.id].double().sort().values.cumsum(0)
            counts = _counts(group.size, depths)
            rises = tuple(loss + float(total_U[count - 1]) for count in counts)
            curves[group.id] = Curve(group.size, counts, rises)
    return Sensitivities(graph.hash, loss, curves, None, {"depths": list(depths), "by": "scores"})


def _begun(
    graph: Graph,
    dense: tuple[float, float | None],
    settings: Mapping[str, Any],
    path: Path | None,
) -> Sensitivities:
    """What is on disk of the same model, data, depths and order; otherwise nothing yet."""
    loss, metric = dense
    _check(loss, "the whole model")
    fresh = Sensitivities(graph.hash, loss, {}, metric, settings)
    if path is None or not path.is_file():
        return fresh
    kept = Sensitivities.load(path)
    same = (
        kept.graph_hash == graph.hash
        and kept.settings == settings
        and (kept.metric is None) == (metric is None)
        and abs(kept.loss - loss) <= SAME * max(abs(loss), 1e-9)
    )
    return kept if same else fresh


def _order_hash(groups: Sequence[Group], scores: Scores) -> str:
    """Of the order in which the groups' units go."""
    found = hashlib.sha256()
    for group in groups:
        found.update(f"{group.id} {scores[group.id].argsort(stable=True).tolist()}".encode())
    return found.hexdigest()


def _counts(size: int, depths: Sequence[float]) -> tuple[int, ...]:
    """How many of a group's units go, ascending.

    >>> _counts(64, (0.125, 0.5)), _counts(3, (0.125, 0.25, 0.9))
    ((8, 32), (1, 2))
    """
    return tuple(sorted({units_at(size, depth) for depth in depths}))


def _curve(
    group: Group,
    counts: Sequence[int],
    order_U: Tensor,
    removal: _Removal,
    losses: Callable[[], tuple[float, float | None]],
) -> Curve:
    found = []
    for count in counts:
        with removal.without_(group, order_U[:count]):
            found.append(losses())
        _check(found[-1][0], f"{group.id} without {count} of its {group.size} units")
    metrics = tuple(metric for _, metric in found if metric is not None)
    return Curve(group.size, tuple(counts), tuple(loss for loss, _ in found), metrics or None)


class _Removal:
    """Units set to zero in every parameter and buffer of their group, and all put back."""

    def __init__(self, model: nn.Module, graph: Graph) -> None:
        self._graph = graph
        self._tensors = dict(named_tensors(model))
        self._before = {name: tensor.clone() for name, tensor in self._tensors.items()}

    @contextmanager
    def without_(self, group: Group, units: Tensor) -> Iterator[None]:
        """The model without some units inside the block."""
        with torch.no_grad():
            for member in group.members:
                tensor = self._tensors[member.tensor]
                if tensor.is_floating_point() or tensor.is_complex():
                    dim = self._graph.tensors[member.tensor].dims[member.dim]
                    index = torch.arange(dim_size(dim))
                    rows = [own[units].flatten() for own in unit_rows(index, 0, dim, group.axis)]
                    tensor.index_fill_(member.dim, torch.cat(rows).to(tensor.device), 0)
        try:
            yield
        finally:
            self.put_back_()

    def put_back_(self) -> None:
        """Every tensor as it was."""
        with torch.no_grad():
            for name, values in self._before.items():
                if not torch.equal(self._tensors[name], values):
                    self._tensors[name].copy_(values)


def _by(recover: Recover | None) -> str:
    return "loss" if recover is None else "loss after recovery"


def _check(loss: float, of: str) -> None:
    if loss != loss:
        raise ScoreError(
            f"the loss of {of} is not a number; measure sensitivities in float32, or of a model "
            "whose outputs are finite"
        )
