"""Where an iterative pruning stands, and that on disk: plans and weights of the last good model.

The architecture is not stored: it is rebuilt from the dense model by the plans in their order, and
then the weights are put in. A step that is pruned but not yet decided is stored as well, so that
its recovery can be taken up in the middle.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from secateur.core.atomic import write_text
from secateur.core.errors import TrainError
from secateur.core.fingerprint import fingerprint
from secateur.core.world import ALONE, World
from secateur.train.checkpoint import latest_checkpoint, save_checkpoint
from secateur.train.loop_values import (
    IterativeSettings,
    IterativeStep,
    PruneStep,
    history_to_jsonl,
)
from secateur.train.snapshot import restore_, tensors_of


@dataclass(slots=True)
class Pending:
    """A step that was pruned and waits for its recovery. progress: on the schedule, if accepted."""

    model: nn.Module
    plan: str
    asked: float
    progress: float
    metric_pruned: float


@dataclass(slots=True)
class LoopState:
    """model, remaining, metric: of the last good model. progress: on the schedule, in [0, 1].
    scale: of the step, halved by each failure. rejected: failures since the last accepted step.
    reason: why the loop ended, None while it runs."""

    model: nn.Module
    dense_cost: float
    dense_metric: float
    metric: float
    remaining: float = 1.0
    progress: float = 0.0
    scale: float = 1.0
    accepted: int = 0
    rejected: int = 0
    seconds: float = 0.0
    saved: int = 0
    reason: str | None = None
    plans: list[str] = field(default_factory=list)
    history: list[IterativeStep] = field(default_factory=list)
    pending: Pending | None = None


# Everything of the state that is plain: models and history are stored in forms of their own.
PLAIN = tuple(name for name in LoopState.__slots__ if name not in ("model", "history", "pending"))


def save_state(
    state: LoopState,
    folder: Path | None,
    *,
    dense: nn.Module,
    settings: IterativeSettings,
    world: World = ALONE,
) -> None:
    """Write the state as a checkpoint of `folder`, and the history as JSON lines for people; by
    rank 0 of a world, all of which call this."""
    if folder is None:
        return
    state.saved += 1
    if world.rank == 0:
        _write(state, folder, dense=dense, settings=settings)
    world.wait(what="the state of the loop")


def _write(
    state: LoopState, folder: Path, *, dense: nn.Module, settings: IterativeSettings
) -> None:
    tree = {
        "dense": fingerprint(dense),
        "settings": asdict(settings),
        **{name: getattr(state, name) for name in PLAIN},
        "history": [asdict(step) for step in state.history],
        "weights": tensors_of(state.model) if state.plans else {},
        "pending": None if state.pending is None else _pending_tree(state.pending),
    }
    save_checkpoint(folder / "checkpoints", tree, number=state.saved)
    write_text(folder / "history.jsonl", history_to_jsonl(state.history))


def load_state(
    folder: Path | None, *, dense: nn.Module, step: PruneStep, settings: IterativeSettings
) -> LoopState | None:
    """The newest whole state in `folder`, with its models rebuilt; None when there is none.

    Raises: TrainError when it belongs to another model or other settings.
    """
    tree = None if folder is None else latest_checkpoint(folder / "checkpoints")
    if tree is None:
        return None
    _check_same_run(tree, dense, settings, folder)
    model = dense
    for plan in tree["plans"]:
        model = _rebuilt(step, model, plan)
    if tree["plans"]:
        restore_(model, tree["weights"])
    state = LoopState(model=model, **{name: tree[name] for name in PLAIN})
    state.history = [IterativeStep(**row) for row in tree["history"]]
    if tree["pending"] is not None:
        saved = dict(tree["pending"])
        weights = saved.pop("weights")
        state.pending = Pending(model=_rebuilt(step, model, saved["plan"]), **saved)
        restore_(state.pending.model, weights)
    return state


def _pending_tree(pending: Pending) -> dict[str, Any]:
    plain = {name: getattr(pending, name) for name in Pending.__slots__ if name != "model"}
    return {**plain, "weights": tensors_of(pending.model)}


def _rebuilt(step: PruneStep, model: nn.Module, plan: str) -> nn.Module:
    if step.rebuild is None:
        raise ValueError("a run directory needs step.rebuild, to make the smaller models again")
    return step.rebuild(copy.deepcopy(model), plan)


def _check_same_run(
    tree: dict[str, Any], dense: nn.Module, settings: IterativeSettings, folder: Path | None
) -> None:
    where = f"choose another run_dir, or remove {folder} to start again"
    if tree["dense"] != fingerprint(dense):
        raise TrainError(f"the run in {folder} was started with another dense model; {where}")
    changed = [
        f"{key} was {tree['settings'].get(key)}, is {value}"
        for key, value in asdict(settings).items()
        if tree["settings"].get(key) != value
    ]
    if changed:
        raise TrainError(
            f"the run in {folder} was started with other settings ({'; '.join(changed)}); "
            f"resume with the same ones, {where}"
        )
