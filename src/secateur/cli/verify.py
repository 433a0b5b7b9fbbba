"""`secateur verify MODEL PLAN`: the cut model equals the original with the same units zeroed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.console import Group as Stacked

from secateur.cli.settings import VerifySettings
from secateur.cli.sources import fetch_model
from secateur.core.plan import Plan
from secateur.core.proof import Proof
from secateur.report.words import plural, scientific


@dataclass(frozen=True, slots=True)
class Verified:
    """A proof, and of which plan."""

    plan: Plan
    proof: Proof

    def to_json(self) -> dict[str, Any]:
        """The proof and the plan's hash."""
        return {"plan_hash": self.plan.hash, **self.proof.to_json()}

    def print_on(self, console: Console) -> None:
        """As tables and lines."""
        console.print(Stacked(f"plan {self.plan.hash[:12]}", *proof_lines(self.proof)))


def verify_plan(settings: VerifySettings) -> Verified:
    """Cut the model, or load a saved cut of it, and compare it with the masked original.

    Raises: PlanMismatchError, CutError, ProofError, StorageError.
    """
    from secateur.cut import cut, verify
    from secateur.storage import load

    plan = Plan.load(settings.plan)
    loaded = fetch_model(settings)
    if settings.saved is None:
        small = cut(loaded.model, plan)
    else:
        small = load(settings.saved, loaded.model_fn)
    dtype = None if settings.dtype == "own" else getattr(torch, settings.dtype)
    proof = verify(loaded.model, small, plan, loaded.example_inputs, dtype=dtype)
    return Verified(plan, proof)


def proof_lines(proof: Proof) -> list[str]:
    """What was compared, how well it agrees, and what cannot be compared by numbers and why."""
    lines = [
        f"{plural(proof.groups_checked, 'group')} equal to the masked original: "
        f"max error {scientific(proof.max_abs_error)} "
        f"({scientific(proof.max_rel_error)} of the largest output) in {proof.dtype}",
        f"{plural(proof.module_calls, 'module output')} with the predicted shape",
    ]
    if proof.corrected:
        lines.append(
            f"{plural(len(proof.corrected), 'group')} of them with norms, means and scales of the "
            "reference taken over what is kept"
        )
    for reason, count in Counter(proof.reasons.values()).most_common():
        lines.append(f"{plural(count, 'group')} compared by shape only: {reason}")
    return lines
