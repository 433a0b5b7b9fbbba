"""`secateur report RUN`: the page of a finished run written anew, and its table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group as Stacked
from rich.console import RenderableType

from secateur.cli.output import table
from secateur.cli.settings import ReportSettings
from secateur.report.record import load_result, result_to_json
from secateur.report.result import Result
from secateur.report.verdict import headline, warnings
from secateur.report.words import amount, milliseconds, percent, rate, size


@dataclass(frozen=True, slots=True)
class Reported:
    """A result, and where its page stands (None: not written)."""

    result: Result
    page: Path | None

    def to_json(self) -> dict[str, Any]:
        """What `result.json` holds, and the page's path."""
        page = None if self.page is None else str(self.page)
        return {"page": page, **result_to_json(self.result)}

    def __rich__(self) -> RenderableType:
        numbers = frozenset({"params", "MACs", "size", "latency", "throughput", "accuracy"})
        rows = table(
            "", "params", "MACs", "size", "latency", "throughput", "accuracy", numbers=numbers
        )
        for row in self.result.rows:
            rows.add_row(
                row.name,
                amount(row.params),
                amount(row.macs),
                size(row.size_bytes),
                milliseconds(row.latency_ms),
                rate(row.throughput_per_s),
                percent(row.accuracy),
            )
        parts: list[RenderableType] = [headline(self.result), "", rows, ""]
        parts += [f"warning: {line}" for line in warnings(self.result)]
        if self.page is not None:
            parts.append(f"report: {self.page}")
        return Stacked(*parts)


def report(settings: ReportSettings) -> Reported:
    """Write the page from `result.json`. Raises: StorageError, FileNotFoundError."""
    from secateur.report.html import write_report

    result = load_result(settings.run / "result.json")
    page = write_report(result, settings.out or settings.run / "report.html")
    return Reported(result, page)
