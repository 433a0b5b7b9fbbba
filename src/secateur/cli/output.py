"""What a command shows: its result on stdout, as text for people or as JSON for programs.

Everything else (progress, warnings, errors) goes to stderr, so that stdout can be piped.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.table import Table

PIPED_WIDTH = 120
"""Columns where stdout is no terminal and so has no width of its own."""


@runtime_checkable
class Shown(Protocol):
    """A command's result."""

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        ...

    def print_on(self, console: Console) -> None:
        """For people."""
        ...


@runtime_checkable
class Judged(Protocol):
    """A result that says whether what was asked for was reached; if not, the exit code does."""

    @property
    def met(self) -> bool: ...


def is_first() -> bool:
    """Whether this process is the only one of its job, or the one of them that speaks."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def show(result: Shown, *, as_json: bool) -> None:
    """Print a result on stdout."""
    if not is_first():
        return
    if as_json:
        print(json.dumps(result.to_json(), indent=1))
        return
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    # names of groups and files may look like markup
    result.print_on(Console(width=width, markup=False, emoji=False, highlight=False))


def say(text: str) -> None:
    """One line about progress, on stderr."""
    if is_first():
        print(text, file=sys.stderr, flush=True)


def table(*columns: str, numbers: frozenset[str] = frozenset()) -> Table:
    """An empty table without lines; the columns in `numbers` are flush right."""
    empty = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        justify = "right" if column in numbers else "left"
        empty.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return empty
