"""The walk of automatic pruning: one step after another, each on disk before the next begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from secateur.core.atomic import write_text
from secateur.core.errors import BudgetError, DivergedError
from secateur.search.auto_advice import TIME, UNREACHABLE
from secateur.search.auto_clock import Clock, TimeIsOver
from secateur.search.auto_cut import cut_to
from secateur.search.auto_folder import AutoFolder, Cut
from secateur.search.auto_recover import Recovered, Recovery, Task
from secateur.search.auto_strategy import MET, Move, Rules, best_of, next_move
from secateur.search.auto_subject import Start, Subject
from secateur.search.auto_values import AutoStep

Tell = Callable[[str], None]
BACK_OFF = 5.0
"""What the learning rate is divided by after a recovery diverged."""
ADAPTING = 0.15
"""Of the time that is left, what one cut may take to try out which groups give way."""
CHECKS_AT_END = 6
"""Validations that the end of a run takes as long as: the test data, the proof, a measurement."""


@dataclass(frozen=True)
class Walk:
    """One run. floor: the lowest metric. tell: called with a line for each step."""

    start: Start
    folder: AutoFolder
    clock: Clock
    floor: float
    tell: Tell

    @property
    def subject(self) -> Subject:
        return self.start.subject

    @property
    def recovery(self) -> Recovery:
        limit = self.subject.settings.time_limit_s or 0.0
        reserve = min(0.2 * limit, CHECKS_AT_END * self.start.check_s + 5.0)
        return Recovery(self.subject, self.clock, self.start.check_s, reserve)

    def go(self) -> str:
        """Take steps until there is a reason to end, and return it."""
        self._tell_start()
        if self.start.fault is not None:
            return UNREACHABLE
        if all(share >= 1.0 for share in self.subject.target.values()):
            return MET
        rules, history = self._rules(), self.folder.history()
        while True:
            move = next_move(history, rules)
            if isinstance(move, str):
                return move
            if self.clock.left_s <= self.recovery.reserve_s:
                return TIME
            step, stopped = self._take(len(history) + 1, move, history)
            history.append(step)
            self._tell_step(step, history)
            if stopped and next_move(history, rules) != MET:
                return TIME

    def _take(self, number: int, move: Move, history: list[AutoStep]) -> tuple[AutoStep, bool]:
        """One step from its cut to its place on disk, and whether the time was over in it."""
        began = self.clock.spent_s
        self._tell_move(number, move)
        try:
            made = self._made(number, move, history)
        except BudgetError as error:
            step = _impossible(number, move, str(error))
            self.folder.write_step(step, None, None)
            return step, False
        done, note, lr = self._recovered(number, move, made, history)
        metric = None if done is None else done.metric
        step = AutoStep(
            number=number,
            kind=move.kind,
            base=move.base,
            asked=move.asked,
            way=move.way,
            long=move.long,
            **dict(made.row),
            metric=metric,
            epochs=0.0 if done is None else done.epochs,
            lr=lr,
            gain=None if done is None else done.gain,
            holds=metric is not None and metric >= self.floor,
            note=note,
            doubled=move.doubled,
            seconds=round(self.clock.spent_s - began, 1),
        )
        self.folder.write_step(step, made.model, made.plan)
        if step.holds:
            best = {"step": number, "metric": metric, "shares": step.shares, "met": step.met}
            write_text(self.folder.best, json.dumps(best, indent=1) + "\n")
        self.clock.save()
        return step, done is not None and done.stopped

    def _made(self, number: int, move: Move, history: list[AutoStep]) -> Cut:
        """The model to recover: cut now, or by an earlier step. Raises: BudgetError."""
        if move.kind == "longer":
            step = history[move.base - 1]
            model, plan = self.folder.read_step(move.base)
            assert plan is not None
            row = {"reached": step.reached, "shares": step.shares, "metric_cut": step.metric}
            return Cut(model, plan, row)
        shares = {} if not move.base else history[move.base - 1].shares
        return self.folder.cut(
            number,
            lambda: cut_to(
                self.subject,
                self.folder.read_step(move.base),
                shares,
                move,
                allowance_s=ADAPTING * self.clock.left_s,
            ),
        )

    def _recovered(
        self, number: int, move: Move, made: Cut, history: list[AutoStep]
    ) -> tuple[Recovered | None, str, float]:
        """What a recovery came to, None where it diverged; what to note of it; its rate."""
        before, lr = made.row["metric_cut"], 0.0
        task = Task(number, move.long, before, move.doubled)
        folder = self.folder.under_way(number)
        try:
            rate = self.folder.once(
                f"{folder.relative_to(self.folder.path)}/rate.json",
                lambda: self.recovery.probe(made.model),
            )
            diverged = sum(step.metric is None and step.lr is not None for step in history)
            lr = float(rate["lr"]) / BACK_OFF**diverged
            told = {**rate, "lr": lr}
            done = self.recovery.recover_(made.model, task, rate=told, folder=folder)
        except DivergedError as error:
            return None, str(error), lr
        except TimeIsOver:
            done = Recovered(before, 0.0, None, 0.0, stopped=True)
        return done, "the time was over" if done.stopped else "", lr

    def _rules(self) -> Rules:
        settings = self.subject.settings
        return Rules(
            target=self.subject.target,
            dense=self.start.metric,
            floor=self.floor,
            steps=settings.steps,
            attempts=settings.attempts,
            ways=len(settings.ways),
        )

    def _tell_start(self) -> None:
        target = self.subject.settings.target
        self.tell(
            f"dense model: metric {self.start.metric:.4g} on validation; asked for is {target} at "
            f"{self.floor:.4g} or more"
        )
        for line in self.start.reachable.lines() if self.start.reachable else ():
            self.tell(line)

    def _tell_move(self, number: int, move: Move) -> None:
        way = self.subject.settings.ways[move.way]
        long = "long" if move.long else "short"
        if move.kind == "longer":
            self.tell(f"step {number}: the model of step {move.base} is trained on")
        else:
            after = f"step {move.base}" if move.base else "dense"
            part = f"{move.asked:.0%} of the way" if move.asked < 1.0 else "the target"
            self.tell(f"step {number}: from {after} to {part} ({way}), {long} recovery")

    def _tell_step(self, step: AutoStep, history: list[AutoStep]) -> None:
        best = best_of(history)
        if step.metric is None:
            said = step.note
        else:
            verb = "holds" if step.holds else "is below"
            before = "" if step.metric_cut is None else f" (cut: {step.metric_cut:.4g})"
            said = f"{step.words()}, metric {step.metric:.4g}{before} {verb} {self.floor:.4g}"
        kept = f"{best.words()} at {best.metric:.4g} (step {best.number})" if best else "dense"
        self.tell(f"step {step.number}: {said}; best so far: {kept}; {self.clock.words()}")


def _impossible(number: int, move: Move, note: str) -> AutoStep:
    return AutoStep(
        number=number,
        kind=move.kind,
        base=move.base,
        asked=move.asked,
        reached=0.0,
        way=move.way,
        long=move.long,
        shares={},
        metric_cut=None,
        metric=None,
        note=note,
    )
