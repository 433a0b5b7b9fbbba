"""`secateur auto`: a model, data, a target and a floor in; the smallest model that holds both out.

`search.auto` does the work; here its arguments are fetched and its answer is shown. The exit code
is 0 where target and floor are met and 3 where they are not; `result.json` says which and why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from secateur.cli.auto_settings import AutoRunSettings
from secateur.cli.output import say, table
from secateur.cli.sources import check_fits, fetch_data, fetch_model, loss_fn, make_batches
from secateur.report.words import percent, points
from secateur.search.auto import auto as search
from secateur.search.auto_result import AutoResult
from secateur.search.auto_values import TRAINING, WAYS, AutoData, Way


@dataclass(frozen=True, slots=True)
class Searched:
    """What came of it, and the run directory."""

    result: AutoResult
    out: Path

    @property
    def met(self) -> bool:
        """Whether target and floor both hold."""
        return self.result.met

    def to_json(self) -> dict[str, Any]:
        """What `result.json` holds, and the run directory."""
        return {"out": str(self.out), **self.result.to_json()}

    def print_on(self, console: Console) -> None:
        """Figures, where the time goes, the verdict and what would help."""
        result = self.result
        console.print(_figures(result))
        if result.where is not None:
            console.print()
            console.print(_times(result))
        console.print()
        console.print(result.verdict)
        for line in result.advice:
            console.print(f"what would help: {line}")
        console.print(f"model: {self.out / 'model'}")


def auto(settings: AutoRunSettings) -> Searched:
    """Prune to the target as far as the floor holds; go on where an earlier run stopped.

    Raises: those of `search.auto`, ValueError for a model or data that is not there.
    """
    loaded = fetch_model(settings, seed=settings.seed, device=settings.device)
    data = fetch_data(settings.data)
    assert data is not None, "data is required"
    check_fits(loaded, data)
    batches = make_batches(data, batch_size=settings.batch_size, seed=settings.seed)
    first = Way(settings.criterion, settings.selector, settings.normalise)
    result = search(
        loaded.model,
        AutoData(batches.train, batches.validate, batches.measure, loss_fn),
        **settings.limits,
        example_inputs=loaded.example_inputs,
        run_dir=settings.out,
        tell=say,
        source=settings.model,
        steps=settings.steps,
        epochs=settings.epochs,
        long_epochs=settings.long_epochs,
        lr=settings.lr,
        training=replace(TRAINING, optimizer=settings.optimizer, precision=settings.precision),
        distil=settings.distil,
        ways=tuple(dict.fromkeys((first, *WAYS)))[: len(WAYS)],
        calibration=settings.calibration,
        constraints=settings.select,
        device=settings.served,
        huggingface=settings.huggingface,
        seed=settings.seed,
    )
    return Searched(result, settings.out)


def _figures(result: AutoResult) -> Table:
    rows = table("", "dense", "pruned", "", numbers=frozenset({"dense", "pruned"}))
    metric, test = (result.dense_metric, result.metric), (result.dense_test, result.test)
    for name, (dense, pruned) in (("accuracy, validation", metric), ("accuracy, test", test)):
        rows.add_row(name, percent(dense), percent(pruned), points(pruned, dense))
    for cost, share in result.shares.items():
        rows.add_row(cost, "100 %", percent(share), f"asked for: {result.target}")
    return rows


def _times(result: AutoResult) -> Table:
    assert result.where is not None
    numbers = frozenset({"before", "after", "of the time after"})
    rows = table("module", "before", "after", "of the time after", numbers=numbers)
    for each in result.where.top:
        share = percent(each.after_ms / result.where.after_ms)
        name = each.path or "(the model itself)"
        rows.add_row(name, f"{each.before_ms:.3g} ms", f"{each.after_ms:.3g} ms", share)
    return rows
