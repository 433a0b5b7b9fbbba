"""The end of automatic pruning: the last model proved, measured on test data and written, with the
verdict beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from secateur.core.atomic import write_text
from secateur.core.plan import Plan
from secateur.cut import cut, verify
from secateur.search.auto_advice import Ended
from secateur.search.auto_result import AutoResult
from secateur.search.auto_strategy import MET, best_of
from secateur.search.auto_subject import LATENCY, SECONDS, Start, Subject
from secateur.search.auto_walk import Walk
from secateur.search.where_time_goes import WhereTimeGoes, where_time_goes

LARGER = 8
"""Times the batch, at which the best model is measured too where the target was not reached."""
ROUNDS = 9


def finish(walk: Walk, ending: str) -> AutoResult:
    """Prove, measure and write what a walk ended with. Raises: ProofError."""
    start, folder, subject = walk.start, walk.folder, walk.subject
    history = tuple(folder.history())
    best = best_of(history)
    number = 0 if best is None else best.number
    model, plan = folder.read_step(number)
    ended = Ended(
        ending,
        subject.settings,
        history,
        start.metric,
        walk.floor,
        start.fault,
        start.reachable,
        _at_larger_batch(start, model) if number and ending != MET else None,
    )
    test = folder.once(f"test-{number}.json", _tester(subject, model))
    if plan is not None:
        dense = subject.dense
        proof = verify(dense, cut(dense, plan), plan, subject.example, graph=subject.graph)
        write_text(folder.path / "proof.json", json.dumps(proof.to_json(), indent=1) + "\n")
    result = AutoResult(
        model=model,
        plan=plan,
        met=ending == MET,
        ending=ending,
        verdict=ended.sentence(),
        advice=ended.advice(),
        history=history,
        target=subject.settings.target,
        floor=walk.floor,
        metric=start.metric if best is None or best.metric is None else best.metric,
        dense_metric=start.metric,
        test=test["model"],
        dense_test=test["dense"],
        seconds=walk.clock.spent_s,
        reachable=start.reachable,
        where=_where(subject, model, plan),
    )
    folder.finish(model, plan)
    write_text(folder.result, json.dumps(result.to_json(), indent=1) + "\n")
    return result


def _tester(subject: Subject, model: nn.Module) -> Callable[[], dict[str, Any]]:
    test, dense = subject.data.test, subject.dense
    return lambda: {
        name: None if test is None else float(test(each))
        for name, each in (("dense", dense), ("model", model))
    }


def _at_larger_batch(start: Start, model: nn.Module) -> dict[int, float] | None:
    """The share of latency at a larger batch, where latency is what is asked for."""
    subject, can = start.subject, start.reachable
    if can is None:
        return None
    batch, device = LARGER * int(can.conditions["batch"]), subject.settings.device
    larger = replace(device, batch_size=batch)
    both = larger.measure(
        {
            name: larger.prepare(each, subject.example)
            for name, each in (("dense", subject.dense), ("pruned", model))
        },
        subject.example,
        rounds=ROUNDS,
        seconds=SECONDS,
    )
    return {batch: both["pruned"].median_ms / both["dense"].median_ms}


def _where(subject: Subject, model: nn.Module, plan: Plan | None) -> WhereTimeGoes | None:
    if plan is None or LATENCY not in subject.target:
        return None
    before, after = plan.before.latency_ms, plan.after.latency_ms
    assert before is not None and after is not None
    device = subject.settings.device
    return where_time_goes(
        subject.dense, model, subject.example, device=device, whole_ms=(before, after)
    )
