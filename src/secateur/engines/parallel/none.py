"""`none`: every process trains by itself, as a single one does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from secateur.core.copies import copied
from secateur.core.world import ALONE, World
from secateur.engines.shares import Share, Weighing
from secateur.engines.training import Moment, Objective, Parallel


@dataclass(frozen=True, slots=True)
class Whole:
    """The model and every batch are this process's own."""

    world: World = ALONE
    files: None = None

    @property
    def rows(self) -> World:
        """This process alone."""
        return ALONE

    def lay_out(self, model: nn.Module) -> nn.Module:
        """The model."""
        return model

    def replicate(self, trained: nn.Module) -> nn.Module:
        """A copy."""
        return copied(trained)

    def bring_back_(self, model: nn.Module, trained: nn.Module) -> None:
        """It is the same."""

    def share(self, batch: Any, weighing: Weighing) -> Share:
        """All of it."""
        return Share(batch)

    @contextmanager
    def computing(self, objective: Objective, share: Share, moment: Moment) -> Iterator[Objective]:
        """The objective, as it is."""
        yield objective

    def after_backward_(
        self, trained: nn.Module, objective: Objective, learnt: Iterable[nn.Parameter]
    ) -> None:
        """The gradients are whole."""

    def total(self, loss: float, *, step: int) -> float:
        """The loss."""
        return loss

    def clip_(self, trained: nn.Module, parameters: Sequence[Tensor], *, max_norm: float) -> float:
        """By the gradients that are here."""
        return float(nn.utils.clip_grad_norm_(parameters, max_norm))

    def settle_(self, trained: nn.Module) -> None:
        """Nothing differs."""

    def after_cut_(self) -> None:
        """Nothing was prepared."""

    def end_(self) -> None:
        """Nothing was left."""


WHOLE: Parallel = Whole()


def make(
    world: World,
    *,
    model: nn.Module | None = None,
    example_inputs: Any = None,
    sync_batch_norm: bool = True,
) -> Parallel:
    """The kind in which no rank needs another."""
    return Whole(world)
