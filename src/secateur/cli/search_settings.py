"""What can be said to `secateur search`: its flags, and the keys of its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secateur.cli.engine_settings import ADDRESS, RAY, SINGLE
from secateur.cli.flags import flag, required, section
from secateur.cli.recovery_settings import RECOVERY
from secateur.cli.settings import DATA, MODEL, Source
from secateur.core.lookup import names
from secateur.search.study import Limits
from secateur.search.study_space import Space
from secateur.search.trial_task import COSTS, LATENCY, Early
from secateur.select.constraints import Constraints
from secateur.train.settings import FinetuneSettings

PLAIN = Space()
CREWS = "secateur.engines.crews"


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Source):
    """A search for the front. The first criterion, selector and schedule are those of the line."""

    model: str = required(MODEL)
    data: str = required(DATA)
    out: Path = flag(Path("runs/search"), "its folder; typed again there, it goes on", short="-o")
    trials: int = flag(40, "of the search in all, whichever process runs them")
    time_limit: float | None = flag(None, "seconds, after which this command stops")
    costs: tuple[str, ...] = flag((LATENCY,), f"{', '.join(COSTS)}; shares are of the first")
    smallest: float = flag(PLAIN.shares[0], "least share of the first cost to try")
    largest: float = flag(PLAIN.shares[1], "largest share of the first cost to try")
    criteria: tuple[str, ...] = flag(PLAIN.criteria, "what makes a unit important")
    selectors: tuple[str, ...] = flag(PLAIN.selectors, "how the budget is spread over groups")
    schedules: tuple[str, ...] = flag(PLAIN.schedules, "at once, or in steps with recoveries")
    steps: int = flag(PLAIN.steps, "of the iterative schedule")
    distil: bool = flag(True, "try the dense model as a teacher too")
    reconstruct: bool = flag(True, "try to fit what is left to the dense layers' outputs too")
    lr_factor: float = flag(PLAIN.lr_factor, "how far learning rates go above and below --lr")
    line: int = flag(PLAIN.line, "trials of uniform pruning to begin and to compare with")
    predicted: bool = flag(False, "weigh the predicted latency instead of measuring each trial")
    early: bool = flag(True, "give up trials that are behind the front half-way")
    margin: float = flag(Early().margin, "by how much they are behind then")
    models: bool = flag(True, "keep the models of the front and of the line")
    select: Constraints = section(Constraints, help={})
    calibration: int = flag(512, "samples of the training data for criteria and the fit")
    recover: FinetuneSettings = section(FinetuneSettings, help=RECOVERY)
    batch_size: int = flag(64, "of training and evaluation")
    latency_batch: int | None = flag(None, "batch of the latency, by default the example's")
    threads: int | None = flag(None, "threads of the latency, by default torch's choice")
    runtime: str = flag("eager", "where the latency is measured")
    device: str | None = flag(None, "where to compute, for example cuda")
    seed: int = flag(0, "of every random choice")
    engine: str = flag(SINGLE, "where it runs: single, or several workers by ray")
    workers: int | None = flag(None, "processes that the engine starts to share the trials")
    address: str | None = flag(None, ADDRESS)

    def __post_init__(self) -> None:
        _ = self.space, self.limits  # each says what is wrong with its fields
        known = (SINGLE, *names(CREWS))
        if self.engine not in known:
            raise ValueError(f"unknown engine {self.engine!r}; there are: {', '.join(known)}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers is at least 1, not {self.workers}")
        if self.engine != RAY and (self.workers is not None or self.address is not None):
            raise ValueError("workers and address are of Ray; add engine: ray")

    @property
    def space(self) -> Space:
        """What a trial may choose. Raises: ValueError."""
        return Space(
            criteria=self.criteria,
            selectors=self.selectors,
            schedules=self.schedules,
            distil=(False, True) if self.distil else (False,),
            reconstruct=(False, True) if self.reconstruct else (False,),
            shares=(self.smallest, self.largest),
            lr_factor=self.lr_factor,
            steps=self.steps,
            line=self.line,
        )

    @property
    def limits(self) -> Limits:
        """When to stop. Raises: ValueError."""
        return Limits(self.trials, self.time_limit)
