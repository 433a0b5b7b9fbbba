"""`secateur apply MODEL PLAN`: cut the model as the plan says, prove the cut, save the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.console import Group as Stacked

from secateur.cli.output import say
from secateur.cli.plan import cost_table, widths_table
from secateur.cli.settings import ApplySettings
from secateur.cli.sources import fetch_model
from secateur.cli.verify import proof_lines
from secateur.core.plan import Plan
from secateur.core.proof import Proof


@dataclass(frozen=True, slots=True)
class Applied:
    """A plan that fits its model. path: where the cut model was saved, None for a dry run."""

    plan: Plan
    proof: Proof | None
    path: Path | None

    def to_json(self) -> dict[str, Any]:
        """Plan hash, cost, proof and place."""
        return {
            "plan_hash": self.plan.hash,
            "before": self.plan.before.to_json(),
            "after": self.plan.after.to_json(),
            "changes": [
                {"attribute": str(each.field), "before": each.before, "after": each.after}
                for each in self.plan.changes
            ],
            "proof": None if self.proof is None else self.proof.to_json(),
            "path": None if self.path is None else str(self.path),
        }

    def print_on(self, console: Console) -> None:
        """As tables and lines."""
        parts: list[RenderableType] = [cost_table(self.plan), ""]
        if self.path is None:
            parts += [widths_table(self.plan), ""]
            parts += [f"{each.field}: {each.before} -> {each.after}" for each in self.plan.changes]
            parts.append("the plan fits; nothing was written")
        if self.proof is not None:
            parts += proof_lines(self.proof)
        if self.path is not None:
            parts.append(f"saved in {self.path}")
        console.print(Stacked(*parts))


def apply_plan(settings: ApplySettings) -> Applied:
    """Cut, prove and save, unless it is a dry run.

    Raises: PlanMismatchError, CutError, ProofError, StorageError.
    """
    from secateur.cut import cut, verify
    from secateur.cut.apply import check_fingerprint
    from secateur.storage import save
    from secateur.storage.layout import refuse_foreign

    plan = Plan.load(settings.plan)
    loaded = fetch_model(settings)
    check_fingerprint(loaded.model, plan)
    if settings.dry_run:
        return Applied(plan, None, None)
    refuse_foreign(settings.out)
    small = cut(loaded.model, plan)
    proof = None
    if settings.verify:
        say("comparing the cut model with the masked original")
        proof = verify(loaded.model, small, plan, loaded.example_inputs)
    save(small, settings.out, plan=plan, example=loaded.example_inputs, source=settings.model)
    return Applied(plan, proof, settings.out)
