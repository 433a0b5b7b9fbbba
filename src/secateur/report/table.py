"""The comparison in the terminal: the page's headline, figures and warnings, in the same words."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from secateur.report.result import Result
from secateur.report.sections import colour, columns, comparison
from secateur.report.verdict import gain, headline, warnings
from secateur.report.words import plural, scientific

WIDTH = 110
_STYLES = {"dense": "", "pruned": "bold green", "random": "magenta", "extra": "blue"}


def print_result(result: Result, *, console: Console | None = None) -> None:
    """Print headline, table, proof and warnings; plain text where the console is no terminal."""
    console = Console() if console is None else console
    if not console.is_terminal:
        # a pipe counts as 80 columns, and would lose digits
        console = Console(file=console.file, width=max(console.width, WIDTH))
    console.print(Text(f"{headline(result)}.", style="bold"))
    console.print(result_table(result), crop=False)
    gained = gain(result, result.pruned)
    if gained is not None:
        console.print(Text(f"Measured side by side: {gained}."))
    console.print(Text(proof_line(result)))
    for warning in warnings(result):
        console.print(Text(f"! {warning}", style="yellow"))


def result_table(result: Result) -> Table:
    """One line a model, and below each figure its difference from dense."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("Model", no_wrap=True)
    for column in columns(result):
        table.add_column(column.caption, justify="right", no_wrap=True)
    for name, _, cells in comparison(result):
        style = _STYLES[colour(name)]
        figures = [
            Text.assemble((value, style), *([("\n" + beside, "dim")] if beside else []))
            for value, beside in cells
        ]
        table.add_row(Text(name, style=style), *figures)
    return table


def proof_line(result: Result) -> str:
    """The proof in one sentence."""
    proof = result.proof
    if proof is None:
        return "No proof was made."
    checked = f"{plural(proof.groups_checked, 'group')} checked by numbers"
    return (
        f"Proof: largest difference {scientific(proof.max_abs_error)} in {proof.dtype}, "
        f"{checked}, {proof.groups_shape_only} by shapes only."
    )
