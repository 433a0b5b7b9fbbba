"""The five cuts of a zoo run, and what is recorded about each.

"half" removes half of every free group; "random0" to "random2" remove an independent share between
10 and 80 % of each; "macs" keeps half of the multiply-accumulates, by L2 norms over all groups.
A line is small: counts and largest errors, no lists of groups.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from secateur.core.errors import BudgetError
from secateur.core.graph import Graph, Group
from secateur.core.plan import Plan
from secateur.core.proof import Proof
from secateur.cost.counted import CostModel
from secateur.criteria.score import score
from secateur.cut import cut, masked, verify
from secateur.cut.part import part_of
from secateur.graph import call_arguments, tensors_in, trace
from secateur.select.plan import plan as make_plan
from secateur.select.shares import count_of

CUTS = ("half", "random0", "random1", "random2", "macs")
REMOVED = (0.1, 0.8)
TOLERANCE = 1e-9
SEEN = 1e-7
"""Outputs that a cut moves by less compare nothing."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Subject:
    """A traced model with its dense outputs."""

    model: nn.Module
    inputs: Any
    graph: Graph
    outputs: list[Tensor]
    seed: int

    @property
    def candidates(self) -> list[Group]:
        """Groups that the cuts are asked to shrink."""
        return [group for group in self.graph.free if not group.structural]


def measure_cut(subject: Subject, name: str) -> dict[str, Any]:
    """One cut; an error of any stage is the line's `error`, a budget that cannot be met is
    `refused`."""
    if not subject.candidates:
        return {"nothing": True}
    seconds: dict[str, float] = {}
    stage = "planned"
    try:
        plan, wanted = _timed(seconds, "plan", lambda: make_cut_plan(subject, name))
        stage = "cut"
        small = _timed(seconds, "cut", lambda: cut(subject.model, plan))
        stage = "verified"
        proof = _timed(seconds, "verify", lambda: _verified(subject, small, plan))
        stage = "counted"
        line = {**_compared(plan, proof, wanted), **_counted(subject, small, plan)}
        if name == "half" and plan.inexact:
            line["exact_rel_error"] = _exact_alone(subject, plan)
    except BudgetError as error:
        return {"refused": " ".join(str(error).split())[:300]}
    except Exception as error:  # a crash of any stage is a result, not the end of the run
        text = " ".join(str(error).split())[:400]
        return {"error": f"not {stage}: {type(error).__name__}: {text}"}
    return {**line, "seconds": {key: round(value, 3) for key, value in seconds.items()}}


def make_cut_plan(subject: Subject, name: str) -> tuple[Plan, dict[str, int]]:
    """The plan of a cut, and the counts asked for of groups that should shrink."""
    graph = subject.graph
    if name == "macs":
        scores = score(graph, subject.model, criterion="l2")
        return make_plan(graph, scores, selector="global", budget="macs=50%"), {}
    if name == "half":
        shares = {group.id: 0.5 for group in subject.candidates}
    else:
        generator = random.Random(f"{name} {subject.seed}")
        shares = {group.id: 1 - generator.uniform(*REMOVED) for group in subject.candidates}
    scores = score(graph, subject.model, criterion="random", seed=subject.seed)
    keep: Any = 0.5 if name == "half" else shares
    counts = {group.id: count_of(shares[group.id], group.size) for group in subject.candidates}
    # a tenth of a few units is less than one
    wanted = {id: count for id, count in counts.items() if count < graph.group(id).size}
    return make_plan(graph, scores, keep=keep), wanted


def _verified(subject: Subject, small: nn.Module, plan: Plan) -> Proof:
    return verify(
        subject.model, small, plan, subject.inputs, graph=subject.graph, dtype=torch.float64
    )


def _compared(plan: Plan, proof: Proof, wanted: dict[str, int]) -> dict[str, Any]:
    whole = [id for id in wanted if id not in plan.keep]
    shares = [len(units) / plan.axes[id].size for id, units in plan.keep.items()] or [1.0]
    return {
        "groups_cut": len(plan.keep),
        "kept_whole": len(whole),
        "unsaid": [id for id in whole if not any(_says(note, id) for note in plan.notes)][:5],
        "off": sum(len(units) != wanted[id] for id, units in plan.keep.items() if id in wanted),
        "kept_share": [round(min(shares), 3), round(max(shares), 3)],
        "checked": proof.groups_checked,
        "corrected": len(proof.corrected),
        "shape_only": proof.groups_shape_only,
        "max_rel_error": proof.max_rel_error,
        "dtype": proof.dtype,
    }


def _says(note: str, id: str) -> bool:
    """Whether a note is about a group, by its name or as one "like it in transformer_blocks.*"."""
    patterns = re.findall(r"like it in ([^:;, )]+)", note)
    as_text = (re.escape(pattern).replace(r"\*", ".*") for pattern in patterns)
    return id in note or any(re.match(text, id) for text in as_text)


def _counted(subject: Subject, small: nn.Module, plan: Plan) -> dict[str, Any]:
    """Predicted and counted parameters and multiply-accumulates, and how far outputs moved."""
    again = trace(small, subject.inputs)
    macs, basis = CostModel(again).macs({}), plan.after.macs
    line: dict[str, Any] = {}
    if macs != basis:
        # how much a detector computes depends on what it sees: predict from what the masked
        # original sees, which is what the cut model sees
        seen = trace(masked(subject.model, plan), subject.inputs)
        # what it sees also decides how its axes are numbered
        counts = {seen.group(id).axis.index: len(units) for id, units in plan.keep.items()}
        basis = CostModel(seen).macs(counts)
        line["by_data"] = True
    args, kwargs = call_arguments(subject.inputs)
    small.eval()
    with torch.no_grad():
        outputs = list(tensors_in(small(*args, **kwargs)))
    return {
        "params": [plan.after.params, sum(p.numel() for p in small.parameters())],
        "macs": [basis, macs],
        "macs_share": round(plan.after.macs / max(1, plan.before.macs), 3),
        "effect": _moved(subject.outputs, outputs),
        **line,
    }


def _moved(dense: list[Tensor], small: list[Tensor]) -> float:
    """Largest change of an output relative to its largest value: what a comparison could miss."""
    moved = [
        # another number of boxes is another output
        float((a - b).abs().max() / a.abs().max().clamp_min(1e-30)) if a.shape == b.shape else 1.0
        for a, b in zip(dense, small, strict=False)
        if a.is_floating_point() and a.numel()
    ]
    return float(f"{max(moved, default=0.0):.3g}")


def _exact_alone(subject: Subject, plan: Plan) -> float | None:
    """The exact groups alone against the plain masked original; None when there are none."""
    part = part_of(plan, subject.graph, plan.exact)
    if part is None:
        return None
    return _verified(subject, cut(subject.model, part), part).max_rel_error


def passed(line: dict[str, Any]) -> bool:
    """Whether a cut is right: equal to its reference in outputs that it moves, every free group cut
    or said, and what was predicted is what is counted. Nothing to cut, and a budget that is
    refused, are right too."""
    if "nothing" in line or "refused" in line:
        return True
    return (
        "error" not in line
        and (line["effect"] > SEEN or not line["groups_cut"])
        and line["max_rel_error"] <= TOLERANCE
        and (line.get("exact_rel_error") or 0.0) <= TOLERANCE
        and not line["unsaid"]
        and line["params"][0] == line["params"][1]
        and line["macs"][0] == line["macs"][1]
    )


def _timed(seconds: dict[str, float], name: str, run: Callable[[], _T]) -> _T:
    start = time.process_time()
    result = run()
    seconds[name] = time.process_time() - start
    return result
