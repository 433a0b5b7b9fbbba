"""Pruning while the Hugging Face `Trainer` trains: a callback, and how its runs are resumed.

Three lines beside a training that is there already::

    pruning = huggingface_callback(model, inputs, settings=GradualSettings("macs=60%"))
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[pruning])
    trainer.train(resume_from_checkpoint=pruning.resume_(arguments.output_dir))

The model is cut in place, its optimizer with it. The Trainer loads weights before it asks any
callback, so what was cut stands beside its checkpoints, and `resume_` makes the dense model as
small as the newest whole one; it is None where there is none. transformers is imported when a
callback is made, and not before.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from secateur.core.errors import TrainError
from secateur.graph.trace import ExampleInputs
from secateur.train.checkpoint import numbered_checkpoint, save_checkpoint
from secateur.train.gradual import GradualPruner
from secateur.train.gradual_values import GradualSettings
from secateur.train.objective import LossFn

FOLDER = "secateur"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
LAST_WRITTEN = "trainer_state.json"  # a checkpoint without it was cut off while it was written


def huggingface_callback(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    settings: GradualSettings,
    calibration: Iterable[Any] | None = None,
    loss_fn: LossFn | None = None,
) -> Any:
    """A `TrainerCallback` that prunes `model` while a `Trainer` trains it, in one process.

    model: dense, as it is given to the Trainer. calibration, loss_fn: for criteria that look at
    data. Its `resume_(output_dir)` gives what `Trainer.train` takes as `resume_from_checkpoint`,
    and its `pruner` has the `log()` and the `plan()`.
    Raises: TrainError, during training, for several processes or another number of steps than at
    the checkpoint; ImportError without transformers.
    """
    from transformers import TrainerCallback

    class PruneCallback(_Steps, TrainerCallback):  # type: ignore[misc]
        """Passes the Trainer's events on."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            self.begin_(args, state)

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            self.pruner.observe_()

        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            samples = args.train_batch_size * args.gradient_accumulation_steps
            self.pruner.step_(others["optimizer"], samples=samples)
            self.save(args, state, control)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            self.save(args, state, control)

    dense = _Dense(model, example_inputs, settings, calibration, loss_fn)
    return PruneCallback(dense)


class _Dense:
    """What a pruner is made of."""

    def __init__(
        self,
        model: nn.Module,
        example_inputs: ExampleInputs,
        settings: GradualSettings,
        calibration: Iterable[Any] | None,
        loss_fn: LossFn | None,
    ) -> None:
        self.model, self.example_inputs, self.settings = model, example_inputs, settings
        self.calibration, self.loss_fn = calibration, loss_fn

    def pruner(self, total_steps: int) -> GradualPruner:
        """A pruner at the start of a training."""
        return GradualPruner(
            self.model,
            self.example_inputs,
            settings=self.settings,
            total_steps=total_steps,
            calibration=self.calibration,
            loss_fn=self.loss_fn,
        )


class _Steps:
    """The part that knows nothing of transformers: a pruner, and its state beside checkpoints."""

    def __init__(self, dense: _Dense) -> None:
        super().__init__()
        self.dense = dense
        self._pruner: GradualPruner | None = None

    @property
    def pruner(self) -> GradualPruner:
        """What decides and cuts. Raises: TrainError before the training began."""
        if self._pruner is None:
            raise TrainError("nothing was pruned yet: the callback begins with Trainer.train()")
        return self._pruner

    def resume_(self, output_dir: str | Path) -> str | None:
        """Cut the dense model as it was at the newest whole checkpoint; that checkpoint's path."""
        for step, path in reversed(_checkpoints(output_dir)):
            tree = numbered_checkpoint(Path(output_dir) / FOLDER, step)
            if tree is not None and (path / LAST_WRITTEN).exists():
                self._pruner = self.dense.pruner(tree["total_steps"])
                self._pruner.rebuild_(tree["pruner"])
                self._pruner.load_state_(tree["pruner"])
                return str(path)
        return None

    def begin_(self, args: Any, state: Any) -> None:
        """Start, or go on where `resume_` has put the pruner."""
        if args.world_size > 1:
            raise TrainError(
                f"the Trainer runs in {args.world_size} processes, and the callback cuts the model "
                "of one; train in one process, or prune first and train the small model"
            )
        if args.load_best_model_at_end:
            warnings.warn(
                "load_best_model_at_end may choose a checkpoint from before a cut, whose weights "
                "do not fit the model that is left; leave it off while pruning",
                stacklevel=2,
            )
        if self._pruner is None:
            self._pruner = self.dense.pruner(state.max_steps)
            self._pruner.steps = state.global_step
        if (self._pruner.total_steps, self._pruner.steps) != (state.max_steps, state.global_step):
            raise TrainError(
                f"the training stands at step {state.global_step} of {state.max_steps} and the "
                f"pruning at {self._pruner.steps} of {self._pruner.total_steps}; resume with the "
                "same number of epochs and batch size, and with resume_from_checkpoint="
                "callback.resume_(output_dir)"
            )

    def save(self, args: Any, state: Any, control: Any) -> None:
        """Before the Trainer writes a checkpoint, so that none is ever without its cuts."""
        if control.should_save:
            tree = {"total_steps": state.max_steps, "pruner": self.pruner.state()}
            save_checkpoint(Path(args.output_dir) / FOLDER, tree, number=state.global_step)


def _checkpoints(output_dir: str | Path) -> list[tuple[int, Path]]:
    """The Trainer's checkpoints by their step, oldest first."""
    found = [
        (int(match[1]), path)
        for path in Path(output_dir).glob("checkpoint-*")
        if (match := CHECKPOINT.fullmatch(path.name))
    ]
    return sorted(found)
