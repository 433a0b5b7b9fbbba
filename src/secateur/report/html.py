"""One self-contained HTML page: no request leaves it, and its policy forbids any.

Style sheet, script and drawings are inline. The page reads without its script, which only filters
the groups and unfolds everything for printing; the content policy lets no other script run, so a
model whose layers are named after HTML tags shows those names and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from secateur.core.atomic import write_text
from secateur.report import sections, words
from secateur.report.charts import squares
from secateur.report.result import Result
from secateur.report.verdict import gain, headline, warnings

FEW = 12
"""So many histograms are shown at once, the others unfold."""


def write_report(result: Result, path: str | Path) -> Path:
    """Write the page whole or not at all, and return its path. Raises: StorageError."""
    path = Path(path)
    write_text(path, render(result))
    return path


def render(result: Result) -> str:
    """The page as text; the same result gives the same bytes."""
    script = _asset("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "amount": words.amount,
        "scientific": words.scientific,
        "ms": words.milliseconds,
        "tied": lambda text: str(text).replace(" %", "\u00a0%"),
    }
    template = environment.from_string(_asset("template.html.j2"))
    return template.render(
        result=result,
        headline=headline(result),
        warnings=warnings(result),
        gained=gain(result, result.pruned),
        columns=sections.columns(result),
        tiles=sections.tiles(result),
        table=sections.comparison(result),
        bars=sections.bar_figures(result),
        spread=sections.spread_figure(result),
        curves=sections.curve_figures(result.curves),
        scores=sections.score_figures(result.explanation.scores),
        few=FEW,
        curve_names=[(sections.colour(curve.name), curve.name) for curve in result.curves],
        groups=sections.ordered_groups(result.explanation.groups, result.proof),
        overview=sections.widths_figure(result.explanation.widths),
        widest=max((width.before for width in result.explanation.widths), default=1),
        settings=sections.settings(result.settings),
        squares=_squares(result),
        colour=sections.colour,
        style=Markup(_asset("style.css")),
        script=Markup(script),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'",
    )


def _squares(result: Result) -> Markup:
    dense, pruned = result.dense.params, result.pruned.params
    share = words.percent(pruned / dense)
    label = f"{share} of the parameters remain, drawn as areas"
    return Markup(squares(dense, pruned, label=label))


def _asset(name: str) -> str:
    return files("secateur.report").joinpath("page", name).read_text(encoding="utf-8")
