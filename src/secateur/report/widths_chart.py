"""Widths before and after: one column a layer, in the order in which layers run.

The whole column is what the layer was, the filled part what is left. Both heights grow with the
square root of the width, so that narrow layers stay visible and the axis holds for both.
"""

from __future__ import annotations

from collections.abc import Sequence

from secateur.report.explain import Width
from secateur.report.svg import drawing, element, text, title
from secateur.report.words import percent

WIDTH, HEIGHT = 960.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 952.0, 8.0, 178.0
WIDEST_COLUMN = 64.0
LABELS = 8
"""So many layers at most have their name under the axis."""


def widths_chart(widths: Sequence[Width]) -> str:
    """A picture of all layers; a pointer over a column shows its name and figures."""
    if not widths:
        return drawing(WIDTH, 20.0, text("no layer", 8, 14), label="no layer")
    widest = max(width.before for width in widths)
    step = min((RIGHT - LEFT) / len(widths), WIDEST_COLUMN)
    body = []
    for share in (0.25, 0.5, 1.0):
        y = BOTTOM - (BOTTOM - TOP) * share**0.5
        body.append(element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="rule"))
        body.append(
            text(f"{share * widest:,.0f}", LEFT - 6, y + 4, class_="tick", text_anchor="end")
        )
    for number, width in enumerate(widths):
        body.append(_column(width, LEFT + number * step, step, widest))
    end = LEFT + len(widths) * step
    body.append(element("line", x1=LEFT, x2=end, y1=BOTTOM, y2=BOTTOM, class_="axis"))
    body += _labels(widths, step)
    return drawing(WIDTH, HEIGHT, "".join(body), label=_spoken(widths))


def _column(width: Width, x: float, step: float, widest: int) -> str:
    high, left = ((BOTTOM - TOP) * (n / widest) ** 0.5 for n in (width.before, width.after))
    gap = min(0.2 * step, 3.0)
    whole = element("rect", x=x, y=BOTTOM - high, width=step - gap, height=high, class_="track")
    kind = "pruned" if width.after < width.before else "dense"
    rest = element("rect", x=x, y=BOTTOM - left, width=step - gap, height=left, class_=kind)
    figures = f"{width.before:,}" + (
        f" to {width.after:,}" if width.after < width.before else ", whole"
    )
    return element("g", title(f"{width.layer}: {figures}") + whole + rest)


def _labels(widths: Sequence[Width], step: float) -> list[str]:
    """Names of layers that are evenly apart, the first and one near the end among them."""
    apart = max(-(-len(widths) // LABELS), round(110 / step))
    body = []
    for number in range(0, len(widths), apart):
        x = LEFT + number * step
        body.append(element("line", x1=x, x2=x, y1=BOTTOM, y2=BOTTOM + 5, class_="axis"))
        body.append(text(_short(widths[number].layer), x, BOTTOM + 18, class_="tick"))
    return body


def _short(name: str) -> str:
    """
    >>> _short("blocks.3.conv1"), _short("bert.encoder.layer.0.attention.self.query")
    ('blocks.3.conv1', '…n.self.query')
    """
    return name if len(name) <= 14 else f"…{name[-12:]}"


def _spoken(widths: Sequence[Width]) -> str:
    cut = [width for width in widths if width.after < width.before]
    if not cut:
        return f"Widths of {len(widths)} layers, none of them cut"
    least = min(cut, key=lambda width: width.after / width.before)
    return (
        f"Widths of {len(widths)} layers, {len(cut)} of them cut; the deepest cut is "
        f"{least.layer}, of which {percent(least.after / least.before)} is left"
    )
