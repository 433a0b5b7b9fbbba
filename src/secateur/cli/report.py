"""`secateur report RUN`: the page of a finished run written anew, and its table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from secateur.cli.settings import ReportSettings
from secateur.report.record import load_result, result_to_json
from secateur.report.result import Result
from secateur.report.table import print_result


@dataclass(frozen=True, slots=True)
class Reported:
    """A result, and where its page stands (None: not written)."""

    result: Result
    page: Path | None

    def to_json(self) -> dict[str, Any]:
        """What `result.json` holds, and the page's path."""
        page = None if self.page is None else str(self.page)
        return {"page": page, **result_to_json(self.result)}

    def print_on(self, console: Console) -> None:
        """Headline, table, proof and warnings, as the page says them."""
        print_result(self.result, console=console)
        if self.page is not None:
            console.print(f"report: {self.page}")


def report(settings: ReportSettings) -> Reported:
    """Write the page from `result.json`. Raises: StorageError, FileNotFoundError."""
    from secateur.report.html import write_report

    result = load_result(settings.run / "result.json")
    page = write_report(result, settings.out or settings.run / "report.html")
    return Reported(result, page)
