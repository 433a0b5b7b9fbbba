"""`prune_while_training`: `finetune` of a model that becomes smaller on the way."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from secateur.core.errors import CutError
from secateur.core.plan import Plan
from secateur.engines.training import Sharing
from secateur.graph.trace import ExampleInputs
from secateur.train.companion import Companion, Training
from secateur.train.finetune import finetune
from secateur.train.gradual import GradualPruner
from secateur.train.gradual_values import GradualLog, GradualSettings
from secateur.train.log import TrainLog
from secateur.train.objective import LossFn, Objective
from secateur.train.run import Validate
from secateur.train.settings import FinetuneSettings

CALIBRATION = 8  # batches, for criteria that look at data


class Shrinking(Companion):
    """Pruning while training as a companion of `finetune`; see `prune_while_training`.

    data: whose first batches criteria that look at data are given. Averaged weights and other
    companions follow the cuts.
    """

    def __init__(
        self,
        example_inputs: ExampleInputs,
        settings: GradualSettings,
        *,
        data: Iterable[Any] | None = None,
        loss_fn: LossFn | None = None,
    ) -> None:
        self.example_inputs, self.settings = example_inputs, settings
        self.data, self.loss_fn = data, loss_fn
        self._pruner: GradualPruner | None = None

    @property
    def pruner(self) -> GradualPruner:
        """What decides and cuts."""
        assert self._pruner is not None, "begin_ comes first"
        return self._pruner

    def begin_(self, training: Training) -> None:
        self._pruner = GradualPruner(
            training.model,
            self.example_inputs,
            settings=self.settings,
            total_steps=training.total_steps,
            calibration=_First(self.data) if self.data is not None else None,
            loss_fn=self.loss_fn,
        )
        self._pruner.steps = training.step

    def after_backward_(self, training: Training) -> None:
        self.pruner.observe_(loss_scale=training.loss_scale)

    def after_step_(self, training: Training) -> None:
        new = training.samples - self.pruner.samples
        self.pruner.step_(samples=new, cutter=training.cut_)

    def state(self) -> dict[str, Any]:
        return self.pruner.state()

    def rebuild_(self, state: dict[str, Any], training: Training) -> None:
        self.pruner.rebuild_(state, training.optimizer)

    def load_state_(self, state: dict[str, Any], training: Training) -> None:
        self.pruner.load_state_(state)


@dataclass(frozen=True, slots=True)
class Shrunk:
    """train: the log of the training. cuts: of the pruning, with the MACs that were spent. plan:
    all cuts as one of the dense model, which `save` takes; None, with a warning, where the cuts
    cannot be told as one."""

    train: TrainLog
    cuts: GradualLog
    plan: Plan | None


def prune_while_training(
    model: nn.Module,
    train_data: Iterable[Any],
    *,
    example_inputs: ExampleInputs,
    pruning: GradualSettings,
    settings: FinetuneSettings,
    loss_fn: LossFn | None = None,
    validate: Validate | None = None,
    checkpoint_dir: str | Path | None = None,
    objective: Objective | None = None,
    companions: Sequence[Companion] = (),
    **sharing: Unpack[Sharing],
) -> Shrunk:
    """The logs of training `model` in place while it is cut down to the budget of `pruning`.

    Optimizer state is carried through every cut, so training goes on as if the removed weights had
    never been there, and each step after a cut costs less. With `validate` the best epoch since
    the last cut is what it ends with. The rest is as in `finetune`; a run that is killed at any
    moment and called again with the same arguments ends with the same weights.
    Raises: TrainError, ScoreError, BudgetError when a cut's budget cannot be met.

    >>> import torch
    >>> from secateur.train import FinetuneSettings, TensorBatches
    >>> x, y = torch.randn(64, 4), torch.arange(64) % 2
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> shrunk = prune_while_training(
    ...     model,
    ...     TensorBatches(x, y, batch_size=16),
    ...     example_inputs=x[:1],
    ...     pruning=GradualSettings("macs=50%", cuts=2),
    ...     settings=FinetuneSettings(epochs=2),
    ...     loss_fn=nn.CrossEntropyLoss(),
    ... )
    >>> model[0].out_features, shrunk.cuts.macs_spent < shrunk.cuts.macs_dense
    (8, True)
    """
    shrinking = Shrinking(example_inputs, pruning, data=train_data, loss_fn=loss_fn)
    log = finetune(
        model,
        train_data,
        settings=settings,
        loss_fn=None if objective is not None else loss_fn,
        validate=validate,
        checkpoint_dir=checkpoint_dir,
        objective=objective,
        companions=(shrinking, *companions),
        **sharing,
    )
    return Shrunk(log, shrinking.pruner.log(), _one_plan(shrinking.pruner))


def _one_plan(pruner: GradualPruner) -> Plan | None:
    try:
        return pruner.plan()
    except CutError as error:  # the training is done, and must not be lost for it
        warnings.warn(f"the cuts have no common plan ({error})", stacklevel=3)
        return None


class _First:
    """The first batches of data, read anew each time."""

    def __init__(self, data: Iterable[Any]) -> None:
        self.data = data

    def __iter__(self) -> Any:
        return islice(self.data, CALIBRATION)
