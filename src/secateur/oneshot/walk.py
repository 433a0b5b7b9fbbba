"""A forward that stops at every place until it is told to go on, so that weights can change on the
way: many batches and two models walk through their layers side by side, each layer once.

Each walk is a thread of its own, of which one runs at a time. What it holds while it waits are the
activations that its forward still needs.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.criteria.contractions import Scaling, Use
from secateur.criteria.running import run_batch
from secateur.oneshot.places import Place
from secateur.oneshot.streams import Beside, Step, Steps, results


class _Abandoned(BaseException):
    """Nobody waits for this walk any more; no handler of a model's own may catch it."""


class Walk:
    """One forward of a model on a batch, from place to place."""

    def __init__(
        self,
        model: nn.Module,
        batch: Any,
        stops: Collection[Place],
        besides: Mapping[Place, Beside],
    ) -> None:
        self._model, self._batch, self._stops = model, batch, stops
        self._besides = besides
        self._kept: dict[Step, Tensor] = {}
        self._wanted = Counter(beside.step for beside in besides.values())
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._now: tuple[Place, Use | Scaling] | None = None
        self._changed = self._over = self._abandoned = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def at(self, place: Place) -> Use | Scaling | None:
        """Go on until this place; None if the forward ends without it."""
        while not self._over:
            self._now = None
            self._go.release()
            self._stopped.acquire()
            if self._error is not None:
                raise self._error
            now = self._standing()
            if now is not None and now[0] == place:
                return now[1]
        return None

    def _standing(self) -> tuple[Place, Use | Scaling] | None:
        """Where the other thread has come to."""
        return self._now

    def beside(self, place: Place) -> Tensor | None:
        """What will be added to what this place makes, as the forward made it."""
        beside = self._besides.get(place)
        return None if beside is None else self._kept.get(beside.step)

    def change(self) -> None:
        """The weight of this place has changed: its operator runs again."""
        self._changed = True

    def abandon(self) -> None:
        """End the forward where it stands."""
        if not self._over:
            self._abandoned = True
            self._go.release()
            self._thread.join()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._abandoned:
                with torch.no_grad(), Steps(self._model, self._stop, self._ran):
                    run_batch(self._model, self._batch)
        except _Abandoned:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._over, self._now = True, None
            self._stopped.release()

    def _ran(self, step: Step, name: str, args: tuple[Any, ...], out: Any) -> None:
        for part, made in enumerate(results(out)):
            if (result := replace(step, part=part)) in self._wanted and isinstance(made, Tensor):
                self._kept[result] = made

    def _stop(self, place: Place, event: Use | Scaling) -> bool:
        if place not in self._stops:
            return False
        self._now = place, event
        self._stopped.release()
        self._go.acquire()
        if self._abandoned:
            raise _Abandoned
        changed, self._changed = self._changed, False
        if place in self._besides:
            self._let_go(self._besides[place].step)
        return changed

    def _let_go(self, step: Step) -> None:
        self._wanted[step] -= 1
        if not self._wanted[step]:
            self._kept.pop(step, None)


@contextmanager
def walks(
    model: nn.Module,
    batches: Collection[Any],
    stops: Collection[Place],
    besides: Mapping[Place, Beside],
) -> Iterator[list[Walk]]:
    """A walk for each batch; those that are still on their way in the end are abandoned."""
    found = [Walk(model, batch, stops, besides) for batch in batches]
    try:
        yield found
    finally:
        for walk in found:
            walk.abandon()
