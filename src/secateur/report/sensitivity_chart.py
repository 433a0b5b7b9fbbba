"""Sensitivity: what the model loses over the share of a group's units that are gone.

The groups that cost most stand out with a colour and a name of their own; the others are thin lines
behind them, each with its name under the pointer. A logarithmic axis where rises differ by orders.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from secateur.core.sensitivities import Curve, Sensitivities
from secateur.report.svg import drawing, element, text, ticks, title
from secateur.report.words import significant

WIDTH, HEIGHT = 480.0, 292.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 470.0, 10.0, 206.0
NAMED = ("pruned", "random", "extra")
"""Colour classes of the lines that are named, the most sensitive group's first."""
OTHER = "dense"
LONGEST = 64
FLOOR = 1e-3
"""Of the largest rise; what is lower lies on the axis."""
LOG_SPAN = 30.0


def sensitivity_chart(found: Sensitivities, *, names: Mapping[str, str] | None = None) -> str:
    """A line for each group. names: what to call groups instead of their ids."""
    ranked = most_sensitive(found)
    if not ranked:
        return drawing(WIDTH, 20.0, text("no group was measured", 8, 14), label="no group")
    rises = [rise for id in ranked for rise in _rises(found.curves[id], found.loss)]
    most = max(max(rises), 1e-9)
    across, up = _across, _height(most, rises)
    body = _axes(most, up)
    for rank, id in reversed(list(enumerate(ranked))):
        kind = NAMED[rank] if rank < len(NAMED) else OTHER
        called = (names or {}).get(id, id)
        body.append(_line(found.curves[id], found.loss, (across, up), kind, called))
    body += _legend([(names or {}).get(id, id) for id in ranked[: len(NAMED)]])
    label = "Rise of the loss over the share of each group's units that is gone: " + ", ".join(
        f"{(names or {}).get(id, id)} {significant(_rises(found.curves[id], found.loss)[-1])}"
        for id in ranked[: len(NAMED)]
    )
    return drawing(WIDTH, HEIGHT, "".join(body), label=label)


def most_sensitive(found: Sensitivities) -> list[str]:
    """Ids of the groups by the mean rise of the loss over their depths, the highest first."""

    def worth(id: str) -> float:
        rises = _rises(found.curves[id], found.loss)
        return sum(rises) / len(rises)

    measured = [id for id, curve in found.curves.items() if curve.loss]
    return sorted(measured, key=worth, reverse=True)


def _rises(curve: Curve, dense: float) -> list[float]:
    return [max(loss - dense, 0.0) for loss in curve.loss]


def _across(share: float) -> float:
    return LEFT + (RIGHT - LEFT) * share


def _height(most: float, rises: Sequence[float]) -> Callable[[float], float]:
    """From a rise to y; logarithmic where the largest is far above the middle one."""
    middle = sorted(rises)[len(rises) // 2]
    if most <= LOG_SPAN * max(middle, FLOOR * most):
        return lambda rise: BOTTOM - (BOTTOM - TOP) * rise / most
    span = -math.log10(FLOOR)

    def up(rise: float) -> float:
        high = math.log10(max(rise / most, FLOOR)) / span + 1.0
        return BOTTOM - (BOTTOM - TOP) * high

    return up


def _axes(most: float, up: Callable[[float], float]) -> list[str]:
    linear = abs(up(most / 2) - (TOP + BOTTOM) / 2) < 1
    first = math.ceil(math.log10(most * FLOOR))
    powers = [10.0**k for k in range(first, first + 4) if 10.0**k <= most]
    body = []
    for tick in ticks(0.0, most, most=4) if linear else powers:
        y = up(tick)
        body.append(element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="rule"))
        shown = significant(tick) if linear else f"{tick:g}"
        body.append(text(shown, LEFT - 6, y + 4, class_="tick", text_anchor="end"))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        words = f"{100 * share:g} %"
        anchor = "end" if share == 1.0 else "middle"
        body.append(text(words, _across(share), BOTTOM + 16, class_="tick", text_anchor=anchor))
    middle = (LEFT + RIGHT) / 2
    caption = "units gone; upward: rise of the loss" + ("" if linear else ", log scale")
    body.append(text(caption, middle, BOTTOM + 32, class_="tick", text_anchor="middle"))
    return body


def _line(
    curve: Curve,
    dense: float,
    place: tuple[Callable[[float], float], Callable[[float], float]],
    kind: str,
    name: str,
) -> str:
    across, up = place
    shares = [0.0, *(count / curve.size for count in curve.removed)]
    rises = [0.0, *_rises(curve, dense)]
    points = [(across(share), up(rise)) for share, rise in zip(shares, rises, strict=True)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    if kind == OTHER:
        faint = {"stroke_opacity": 0.45, "stroke_width": 1.1}
        return element("polyline", title(name), points=path, class_=f"line {kind}", **faint)
    line = element("polyline", title(name), points=path, class_=f"line {kind}")
    dots = [element("circle", cx=x, cy=y, r=2.4, class_=f"dot {kind}") for x, y in points[1:]]
    return line + "".join(dots)


def _legend(names: Sequence[str]) -> list[str]:
    """The named lines, one below the other, below the axis."""
    body = []
    for k, name in enumerate(names):
        x, y = LEFT, BOTTOM + 52 + 15 * k
        short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        body.append(element("circle", cx=x + 4, cy=y - 4, r=3.6, class_=f"dot {NAMED[k]}"))
        body.append(text(short, x + 12, y, class_="tick"))
    return body
