"""`secateur plan MODEL`: decide which units go, to a budget; the model stays as it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.console import Group as Stacked
from rich.table import Table

from secateur.cli.latency_words import tell_reachable, tell_where
from secateur.cli.output import say, table
from secateur.cli.prune_settings import Cutting
from secateur.cli.settings import PlanSettings
from secateur.cli.sources import (
    calibration,
    check_fits,
    fetch_data,
    fetch_model,
    loss_fn,
    on_device,
)
from secateur.core.budget import Budget
from secateur.core.graph import Graph
from secateur.core.plan import Plan, Scores
from secateur.core.sensitivities import Sensitivities
from secateur.core.world import ALONE, World
from secateur.report.members import compact_names
from secateur.report.words import amount, change, plural, size

if TYPE_CHECKING:
    from secateur.search.timing import Device
    from secateur.zoo.data import Data
    from secateur.zoo.loaded import LoadedModel

SHOWN_GROUPS = 40
"""So many groups are listed, those that lose most first; `--json` has all."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan. path: where it was written, None where nothing was. lines: what else is told."""

    plan: Plan
    path: Path | None
    lines: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The plan and its hash."""
        return {"hash": self.plan.hash, **json.loads(self.plan.to_json())}

    def print_on(self, console: Console) -> None:
        """As tables and lines."""
        parts: list[RenderableType] = [cost_table(self.plan)]
        if self.plan.removed:
            gone = ", ".join(compact_names(self.plan.removed))
            parts += ["", f"{plural(len(self.plan.removed), 'block')} removed as a whole: {gone}"]
        if self.plan.axes or not self.plan.removed:
            parts += ["", widths_table(self.plan)]
        parts += [f"note: {note}" for note in self.plan.notes]
        parts += self.lines
        parts += ["", f"plan {self.plan.hash[:12]}" + (f" in {self.path}" if self.path else "")]
        console.print(Stacked(*parts))


def make_plan(settings: PlanSettings) -> Planned:
    """Trace, score and plan; write the plan unless it is a dry run.

    Raises: BudgetError, ScoreError, TraceError, ValueError, StorageError.
    """
    loaded = fetch_model(settings, seed=settings.seed)
    data = fetch_data(settings.data)
    check_fits(loaded, data)
    graph = trace_model(loaded, huggingface=settings.huggingface)
    scores = score_units(settings, loaded, graph, data, seed=settings.seed)
    given = settings.sensitivities
    known = None if given is None else Sensitivities.load(given)
    plan = plan_model(
        settings,
        loaded,
        graph,
        scores,
        seed=settings.seed,
        device=settings.served,
        watts=settings.watts,
        sensitivities=known,
    )
    lines = _priced(settings, loaded, plan)
    if settings.dry_run:
        return Planned(plan, None, lines)
    plan.save(settings.out)
    return Planned(plan, settings.out, lines)


def _priced(settings: PlanSettings, loaded: LoadedModel, plan: Plan) -> tuple[str, ...]:
    """What a million requests cost, where a price is given."""
    if settings.price_per_hour is None:
        return ()
    from secateur.cli.serving_words import planned_serving

    device, price = settings.served, settings.price_per_hour
    example = loaded.example_inputs
    return (planned_serving(loaded.model, plan, example, device=device, price_per_hour=price),)


def trace_model(loaded: LoadedModel, *, huggingface: bool) -> Graph:
    """The model's graph, limited to what its configuration can express where that is asked for.

    Raises: TraceError, ValueError when it is no transformers model.
    """
    from secateur.graph import trace

    graph = trace(loaded.model, loaded.example_inputs)
    if not huggingface:
        return graph
    from secateur.storage.huggingface import expressible

    return expressible(graph, loaded.model)


def score_units(
    cutting: Cutting,
    loaded: LoadedModel,
    graph: Graph,
    data: Data | None,
    *,
    seed: int,
    world: World = ALONE,
) -> Scores:
    """Scores of what the settings let go, units and blocks, on data where a criterion looks at it;
    by all ranks of a world together.

    Raises: ScoreError.
    """
    from secateur.pipeline import score_what_goes

    blocks = cutting.select.blocks is not None
    batches = calibration(data, samples=cutting.calibration, seed=seed)
    device = next(loaded.model.parameters()).device
    scores, _ = score_what_goes(
        graph,
        loaded.model,
        blocks=blocks,
        units=cutting.budget is not None or cutting.select.has_target or not blocks,
        criterion=cutting.criterion,
        data=on_device(batches, device),
        loss_fn=loss_fn,
        seed=seed,
        world=world,
    )
    return scores


def plan_model(
    cutting: Cutting,
    loaded: LoadedModel,
    graph: Graph,
    scores: Scores,
    *,
    seed: int,
    device: Device | None = None,
    watts: float | None = None,
    sensitivities: Sensitivities | None = None,
) -> Plan:
    """The plan that the settings ask for; a latency or an energy in it is measured.

    Raises: BudgetError, ValueError.
    """
    from secateur.search.energy_within import check_energy
    from secateur.search.timing import Device, cache_folder
    from secateur.search.within import is_measured, plan_within

    if cutting.budget is None or not is_measured(cutting.budget):
        return plan_units(cutting, graph, scores, seed=seed, sensitivities=sensitivities)
    check_energy(cutting.budget, loaded.model, watts=watts)
    say("measuring the device, then candidates on it")
    device, rules = device or Device(), cutting.select
    tell_reachable(loaded, graph, budget=cutting.budget, rules=rules, device=device)
    found = plan_within(
        loaded.model,
        graph,
        scores,
        loaded.example_inputs,
        budget=cutting.budget,
        device=device,
        settings={"criterion": cutting.criterion, "seed": seed},
        cache=cache_folder(),
        watts=watts,
        constraints=rules,
        sensitivities=sensitivities,
    )
    tell_where(loaded, found, device=device)
    return found.plan


def plan_units(
    cutting: Cutting,
    graph: Graph,
    scores: Scores,
    *,
    seed: int,
    budget: Budget | None = None,
    sensitivities: Sensitivities | None = None,
) -> Plan:
    """The plan that the settings ask for, or one to another budget; it records them.

    Raises: BudgetError, ValueError.
    """
    from secateur.select.plan import plan

    return plan(
        graph,
        scores,
        budget=cutting.budget if budget is None else budget,
        constraints=cutting.select,
        settings={"criterion": cutting.criterion, "seed": seed},
        sensitivities=sensitivities,
    )


def cost_table(plan: Plan) -> Table:
    """Cost before and after, counted, and measured where the budget speaks of it."""
    rows = table("", "before", "after", "", numbers=frozenset({"before", "after"}))
    before, after = plan.before, plan.after
    figures = (
        ("parameters", amount, before.params, after.params),
        ("MACs", amount, before.macs, after.macs),
        ("size", size, before.size_bytes, after.size_bytes),
        ("peak memory", size, before.peak_memory_bytes, after.peak_memory_bytes),
    )
    for name, words, dense, pruned in figures:
        rows.add_row(name, words(dense), words(pruned), change(pruned, dense))
    if before.latency_ms is not None and after.latency_ms is not None:
        times = (before.latency_ms, after.latency_ms)
        rows.add_row("latency", *(f"{ms:.3g} ms" for ms in times), change(times[1], times[0]))
    if before.energy_j is not None and after.energy_j is not None:
        joules = (before.energy_j, after.energy_j)
        name = "energy, estimated" if "watts" in plan.settings else "energy"
        rows.add_row(name, *(f"{j:.3g} J" for j in joules), change(joules[1], joules[0]))
    return rows


def widths_table(plan: Plan) -> Table:
    """Units before and after of the groups that lose units, the greatest loss first."""
    numbers = frozenset({"units", "kept"})
    rows = table("group", "units", "kept", "equal to masking", numbers=numbers)
    order = sorted(plan.axes, key=lambda id: len(plan.keep[id]) - plan.axes[id].size)
    for id in order[:SHOWN_GROUPS]:
        exact = "yes" if id in plan.exact else plan.inexact.get(id, "no")
        rows.add_row(id, f"{plan.axes[id].size:,}", f"{len(plan.keep[id]):,}", exact)
    if len(order) > SHOWN_GROUPS:
        rows.add_row(f"... and {len(order) - SHOWN_GROUPS} more", "", "", "")
    return rows
