"""Pruning while Lightning trains: a callback whose state is part of Lightning's own checkpoints.

Three lines beside a training that is there already::

    pruning = lightning_callback(inputs, settings=GradualSettings("macs=40%"))
    trainer = Trainer(max_epochs=10, callbacks=[pruning])
    trainer.fit(module, loader, ckpt_path=path_or_none)

The module is cut in place, its optimizer with it. Where training goes on from a checkpoint, the
module is made as small as it was before Lightning loads the weights. lightning (or
pytorch_lightning) is imported when a callback is made, and not before.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from typing import Any

from torch import nn

from secateur.core.errors import TrainError
from secateur.graph.trace import ExampleInputs
from secateur.train.batches import samples_in
from secateur.train.gradual import GradualPruner
from secateur.train.gradual_values import GradualSettings
from secateur.train.objective import LossFn


def lightning_callback(
    example_inputs: ExampleInputs,
    *,
    settings: GradualSettings,
    submodule: str = "",
    calibration: Iterable[Any] | None = None,
    loss_fn: LossFn | None = None,
) -> Any:
    """A Lightning `Callback` that prunes a module while a `Trainer` fits it, in one process.

    example_inputs: of the module's `forward`, or of that of its `submodule` (a path), which is then
    what is pruned. calibration, loss_fn: for criteria that look at data. Its `pruner` has the
    `log()` and the `plan()`.
    Raises: TrainError, during training, for several processes or optimizers, and for another
    number of steps than at the checkpoint; ImportError without Lightning.
    """
    base = _lightning().Callback

    class PruneCallback(_Steps, base):  # type: ignore[misc, valid-type]
        """Passes Lightning's events on."""

        state_key = "secateur"

        def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
            if stage == "fit":
                self.watch_loading_(pl_module, self.state_key)

        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            vars(pl_module).pop("on_load_checkpoint", None)

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.begin_(trainer, pl_module)

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            self.pruner.observe_(loss_scale=_scale(trainer))

        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            self.step_(trainer, batch)

        def state_dict(self) -> dict[str, Any]:
            return self.saved()

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.pruner.load_state_(state_dict["pruner"])

    return PruneCallback(example_inputs, settings, submodule, calibration, loss_fn)


class _Steps:
    """The part that knows nothing of Lightning's classes."""

    def __init__(
        self,
        example_inputs: ExampleInputs,
        settings: GradualSettings,
        submodule: str,
        calibration: Iterable[Any] | None,
        loss_fn: LossFn | None,
    ) -> None:
        super().__init__()
        self.example_inputs, self.settings, self.submodule = example_inputs, settings, submodule
        self.calibration, self.loss_fn = calibration, loss_fn
        self._pruner: GradualPruner | None = None
        self._samples = 0

    @property
    def pruner(self) -> GradualPruner:
        """What decides and cuts. Raises: TrainError before the training began."""
        if self._pruner is None:
            raise TrainError("nothing was pruned yet: the callback begins with Trainer.fit()")
        return self._pruner

    def watch_loading_(self, module: nn.Module, key: str) -> None:
        """Let the module be cut between the reading of a checkpoint and the loading of weights.

        Lightning asks callbacks after that, and the module's own hook just before it.
        """
        own: Any = module.on_load_checkpoint

        def on_load_checkpoint(checkpoint: dict[str, Any]) -> None:
            self.rebuild_(module, checkpoint.get("callbacks", {}).get(key))
            own(checkpoint)

        vars(module)["on_load_checkpoint"] = on_load_checkpoint

    def rebuild_(self, module: nn.Module, saved: dict[str, Any] | None) -> None:
        """Make the dense module as small as it was at a checkpoint."""
        if saved is None:
            raise TrainError(
                "the checkpoint was written without the pruning callback, so it is not known what "
                "was cut; resume without the callback, or from a checkpoint written with it"
            )
        self._pruner = self._new(module, saved["total_steps"])
        self._pruner.rebuild_(saved["pruner"])

    def begin_(self, trainer: Any, module: nn.Module) -> None:
        """Start, or go on where a checkpoint has put the pruner."""
        if trainer.world_size > 1 or len(trainer.optimizers) != 1:
            raise TrainError(
                f"Lightning runs {trainer.world_size} processes with {len(trainer.optimizers)} "
                "optimizers, and the callback cuts for one of each; train with devices=1 and one "
                "optimizer, or prune first and train the small model"
            )
        total = int(trainer.estimated_stepping_batches)
        if self._pruner is None:
            self._pruner = self._new(module, total)
        if (self._pruner.total_steps, self._pruner.steps) != (total, trainer.global_step):
            raise TrainError(
                f"the training stands at step {trainer.global_step} of {total} and the pruning at "
                f"{self._pruner.steps} of {self._pruner.total_steps}; resume with the same "
                "max_epochs and data"
            )

    def step_(self, trainer: Any, batch: Any) -> None:
        """After a batch, which need not have ended with an optimizer step."""
        self._samples += samples_in(batch)
        if trainer.global_step > self.pruner.steps:
            self.pruner.step_(trainer.optimizers[0], samples=self._samples)
            self._samples = 0

    def saved(self) -> dict[str, Any]:
        """For Lightning's checkpoint."""
        return {"total_steps": self.pruner.total_steps, "pruner": self.pruner.state()}

    def _new(self, module: nn.Module, total_steps: int) -> GradualPruner:
        return GradualPruner(
            module.get_submodule(self.submodule),
            self.example_inputs,
            settings=self.settings,
            total_steps=total_steps,
            calibration=self.calibration,
            loss_fn=self.loss_fn,
        )


def _lightning() -> Any:
    """Either of the names under which Lightning is installed."""
    for name in ("lightning", "pytorch_lightning"):
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module("lightning.pytorch" if name == "lightning" else name)
    raise ModuleNotFoundError("this callback needs Lightning: pip install lightning")


def _scale(trainer: Any) -> float:
    """What the gradients are multiplied by under float16."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return float(scaler.get_scale()) if scaler is not None else 1.0
