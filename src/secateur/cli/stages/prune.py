"""`prune`: units go for real. At once, in the steps of a loop, or while the model trains; then what
is left is fitted to the dense layers' outputs and trained, where the stage says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from secateur.cli.loop import accepted_log, prune_in_steps
from secateur.cli.output import say
from secateur.cli.plan import plan_model, score_units, trace_model
from secateur.cli.prune_settings import PruneStage
from secateur.cli.recovery import batches_of, objective_of, recover_, shared, training_of
from secateur.cli.recovery_settings import Recovery
from secateur.cli.run_directory import by_first, once, read_scores, write_scores
from secateur.cli.sources import calibration, loss_fn, on_device
from secateur.cli.work import Place, Work
from secateur.core.atomic import write_text
from secateur.core.copies import copied
from secateur.core.errors import CutError, PlanMismatchError
from secateur.core.graph import Graph
from secateur.core.plan import Plan, Scores
from secateur.core.proof import Proof
from secateur.cut import cut, verify
from secateur.cut.compose import compose
from secateur.engines.agreement import agree_on
from secateur.search.within import is_measured
from secateur.train import prune_while_training

if TYPE_CHECKING:
    from secateur.zoo.loaded import LoadedModel


def run(work: Work, settings: PruneStage, place: Place) -> Work:
    """The model cut and recovered, and its cut as a part of the run's plan.

    Raises: BudgetError, ScoreError, CutError, ProofError, TrainError, and PlanMismatchError for a
    plan of an earlier run that was made for another graph.
    """
    subject, loaded = place.subject, place.loaded(work)
    graph = subject.graph
    if work.is_cut:
        graph = trace_model(loaded, huggingface=subject.settings.huggingface)
    cutting = _Cutting(settings, place, loaded, graph)
    if settings.loop is not None:
        model, plan = cutting.in_steps()
    elif settings.gradual is not None:
        model, plan = cutting.while_training()
    else:
        model, plan = cutting.at_once()
    if not work.is_cut:
        return Work(model, plan)
    whole = compose(subject.graph, [work.plan, plan], final=model, settings=plan.settings)
    return Work(model, whole)


@dataclass(frozen=True)
class _Cutting:
    """The three ways; each gives the model and the plan that cut it."""

    settings: PruneStage
    place: Place
    loaded: LoadedModel
    graph: Graph

    def at_once(self) -> tuple[nn.Module, Plan]:
        settings, place, dense = self.settings, self.place, self.loaded.model
        plan = self.planned()
        small = cut(dense, plan)
        self.prove(dense, plan)
        if settings.reconstruct:
            say(f"{place.name}: fitting what is left to the outputs of the dense layers")
            self.reconstruct_(small, plan)
        if settings.recover is not None and place.subject.batches is not None:
            say(f"{place.name}: recovering for up to {settings.recover.epochs} epochs")
            folder = place.folder.checkpoints
            log = recover_(small, place.subject, settings.recover, folder=folder)
            place.write_text(place.folder.log, log.to_jsonl())
        return small, plan

    def in_steps(self) -> tuple[nn.Module, Plan]:
        settings, place = self.settings, self.place
        folder = place.folder
        result = prune_in_steps(
            settings, place.subject, self.loaded, self.graph, folder=folder.checkpoints
        )
        self.scored()
        plans = [Plan.from_json(plan) for plan in result.plans]
        said = {**plans[-1].settings, "budget": settings.budget, "steps": len(plans)}
        plan = compose(self.graph, plans, final=result.model, settings=said)
        by_first(place.world, lambda: plan.save(folder.plan), what="the writing of the plan")
        place.write_text(folder.log, accepted_log(folder.checkpoints, result))
        place.write_text(folder.steps, json.dumps(result.to_json(), indent=1) + "\n")
        self.prove(self.loaded.model, plan)
        return result.model, plan

    def while_training(self) -> tuple[nn.Module, Plan]:
        place, recovery = self.place, self.settings.recover
        assert isinstance(recovery, Recovery)
        say(f"{place.name}: pruning while training for up to {recovery.epochs} epochs")
        subject, folder, model = place.subject, place.folder, copied(self.loaded.model)
        run = subject.settings
        shrunk = prune_while_training(
            model,
            batches_of(subject).train,
            example_inputs=self.loaded.example_inputs,
            pruning=self.settings.while_training(seed=run.seed, huggingface=run.huggingface),
            settings=training_of(recovery, subject),
            loss_fn=loss_fn,
            objective=objective_of(recovery, subject),
            **shared(model, subject, folder=folder.checkpoints),
        )
        if shrunk.plan is None:
            raise CutError(
                f"{place.name}: the cuts have no common plan, so the model cannot be saved; prune "
                "at once (leave out gradual)"
            )
        plan = shrunk.plan
        by_first(place.world, lambda: plan.save(folder.plan), what="the writing of the plan")
        place.write_text(folder.log, shrunk.train.to_jsonl())
        place.write_text(folder.cuts, shrunk.cuts.to_jsonl())
        self.prove(self.loaded.model, plan)
        return model, plan

    def scored(self) -> Scores:
        """The scores, made now or read."""
        settings, path = self.settings, self.place.folder.scores

        def make() -> Scores:
            say(f"{self.place.name}: scoring by {settings.criterion}")
            subject = self.place.subject
            seed = subject.settings.seed
            return score_units(
                settings, self.loaded, self.graph, subject.data, seed=seed, world=subject.world
            )

        return once(
            path,
            make=make,
            write=lambda scores: write_scores(path, scores),
            read=lambda: read_scores(path),
            world=self.place.world,
        )

    def planned(self) -> Plan:
        """The plan, made now or read."""
        path, world = self.place.folder.plan, self.place.world
        is_timed = self.settings.budget is not None and is_measured(self.settings.budget)
        if is_timed:  # what is measured differs from rank to rank, so rank 0 does it alone
            scores = self.scored()
        plan = once(
            path,
            make=lambda: (
                self.made(scores) if is_timed else agree_on(self.made(self.scored()), world)
            ),
            write=lambda plan: plan.save(path),
            read=lambda: Plan.load(path),
            world=world,
            alone=is_timed,
        )
        if plan.graph_hash != self.graph.hash:
            raise PlanMismatchError(
                f"{path} was made for another graph of this model; the model's code or secateur "
                "changed since. Run again with another --out"
            )
        return plan

    def made(self, scores: Scores) -> Plan:
        """The plan by these scores."""
        run = self.place.subject.settings
        return plan_model(
            self.settings,
            self.loaded,
            self.graph,
            scores,
            seed=run.seed,
            device=run.served,
            watts=run.watts,
        )

    def prove(self, dense: nn.Module, plan: Plan) -> None:
        """Prove the cut, where that is wanted and was not done yet."""
        if self.place.prove:
            proved(dense, plan, self.graph, self.place, example=self.loaded.example_inputs)

    def reconstruct_(self, small: nn.Module, plan: Plan) -> None:
        from secateur.oneshot import reconstruct_

        subject = self.place.subject
        samples, seed = self.settings.calibration, subject.settings.seed
        batches = calibration(subject.data, samples=samples, seed=seed)
        device = next(subject.loaded.model.parameters()).device
        data = on_device(batches, device)
        assert data is not None, "the settings were checked"
        reconstruct_(small, self.loaded.model, plan=plan, data=data)


def proved(dense: nn.Module, plan: Plan, graph: Graph, place: Place, *, example: Any) -> Proof:
    """The proof of a cut, made now or read. Raises: ProofError, CutError."""
    path = place.folder.proof

    def make() -> Proof:
        say("comparing the cut model with the masked original")
        return verify(dense, cut(dense, plan), plan, example, graph=graph)

    return once(
        path,
        make=make,
        write=lambda proof: write_text(path, json.dumps(proof.to_json(), indent=1) + "\n"),
        read=lambda: Proof(**json.loads(path.read_text(encoding="utf-8"))),
        world=place.world,
        alone=True,
    )
