"""How automatic pruning ended, in a sentence, and what would help where it did not reach all.

Every piece of advice comes from something that this run measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secateur.search.auto_strategy import ATTEMPTS, FLOOR, MET, best_of
from secateur.search.auto_values import AutoSettings, AutoStep
from secateur.search.reachable import Reachable

TIME, UNREACHABLE = "time", "unreachable"
"""Why a run ends besides the reasons of `auto_strategy`: the time is over; no cut gets there."""
LESS = 0.02
"""By how much of the dense latency another batch must do better to be worth a word."""


@dataclass(frozen=True)
class Ended:
    """How a run ended. ending: the word for why. dense, floor: metrics. fault: why the target is
    out of reach. reachable: None where the
    target does not speak of latency. at_batch: shares of latency of the best model at other
    batches."""

    ending: str
    settings: AutoSettings
    history: Sequence[AutoStep]
    dense: float
    floor: float
    fault: str | None = None
    reachable: Reachable | None = None
    at_batch: Mapping[int, float] | None = None

    def sentence(self) -> str:
        """What was reached, beside what was asked for."""
        best, asked = best_of(self.history), self.settings.target
        if best is None and self.ending == MET:
            return f"met: the dense model is within {asked} as it is"
        if self.ending == UNREACHABLE:
            return f"not met ({self._why()}): nothing was cut; asked for was {asked}"
        if best is None or best.metric is None:
            found = f"no smaller model held the floor of {self.floor:.4g}"
            return f"not met ({self._why()}): {found}; asked for was {asked}"
        word = "met" if best.met else f"not met ({self._why()})"
        return (
            f"{word}: {best.words()} remains at metric {best.metric:.4g} on validation; asked for "
            f"was {asked} at {self.floor:.4g} or more, the dense model has {self.dense:.4g}"
        )

    def advice(self) -> tuple[str, ...]:
        """What would help, most certain first; nothing where all was reached."""
        if self.ending == MET:
            return ()
        if self.ending == UNREACHABLE:
            return () if self.fault is None else (self.fault,)
        return (*self._about_time(), *self._about_limits(), *self._about_device())

    def _why(self) -> str:
        words = {
            TIME: "the time is over",
            FLOOR: "the floor breaks at any smaller size",
            ATTEMPTS: f"{self.settings.attempts} steps were taken",
            UNREACHABLE: "out of reach on this device",
        }
        return words[self.ending]

    def _about_time(self) -> list[str]:
        found, tried = [], [step for step in self.history if step.epochs]
        limit = self.settings.time_limit_s
        if self.ending == TIME and limit is not None:
            found.append(
                f"more time: the limit of {limit / 60:.3g} min ended it; the same command with a "
                "larger one goes on where it stopped"
            )
        if self.ending == ATTEMPTS:
            found.append(f"more attempts: attempts={2 * self.settings.attempts}")
        rising = [step for step in tried if not step.holds and (step.gain or 0.0) > 0.0]
        if rising:
            step = rising[-1]
            found.append(
                f"more epochs: in step {step.number} the metric still rose by {step.gain:.2g} in "
                f"the last of {step.epochs:g}; give long_epochs={2 * self.settings.long_epochs}"
            )
        return found

    def _about_limits(self) -> list[str]:
        best, found = best_of(self.history), []
        if best is not None and not best.met:
            shares = ",".join(f"{m}={100 * share:.0f}%" for m, share in best.shares.items())
            found.append(f"a lower target: {shares} holds the floor (step {best.number})")
        deepest = max(
            (step for step in self.history if step.metric is not None and not step.holds),
            key=lambda step: (step.reached, step.metric),
            default=None,
        )
        if deepest is not None and deepest.metric is not None:
            found.append(
                f"a lower floor: with {deepest.words()} the metric was {deepest.metric:.4g} (step "
                f"{deepest.number}), {self.floor - deepest.metric:.2g} below the floor"
            )
        return found

    def _about_device(self) -> list[str]:
        best, found = best_of(self.history), []
        share = None if best is None else best.shares.get("latency")
        for batch, other in (self.at_batch or {}).items():
            if share is not None and other < share - LESS:
                found.append(
                    f"a larger batch: at batch {batch} the same model takes {other:.1%} of the "
                    f"dense model's time, here {share:.1%}"
                )
        if self.reachable is not None and self.reachable.bound_by_calls:
            found.append(self.reachable.lines()[2])
        return found
