"""Predicted over measured latency as a drawing: how far a device's cost model is off."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from secateur.report.svg import drawing, element, text, ticks, title
from secateur.report.words import percent, plural

SIDE = 300.0
LEFT, TOP = 52.0, 10.0
WIDTH = 368.0
KINDS = ("pruned", "extra", "random", "dense")
BAND = 0.1


@dataclass(frozen=True, slots=True)
class Prediction:
    """One cut model: its latency as shares of the dense model's, predicted before anything of it
    was measured, and measured. series: what it is coloured by. about: for the pointer."""

    series: str
    predicted: float
    measured: float
    about: str = ""

    @property
    def error(self) -> float:
        """Relative to what was measured."""
        return abs(self.predicted / self.measured - 1.0)


def prediction_chart(points: Sequence[Prediction]) -> str:
    """A dot a model; on the line the prediction was right, within the band 10 % off at most."""
    if not points:
        return drawing(WIDTH, 20.0, text("nothing was predicted yet", 8, 14), label="no prediction")
    most = 1.08 * max(max(one.predicted, one.measured) for one in points)
    names = list(dict.fromkeys(one.series for one in points))
    kinds = {name: KINDS[index % len(KINDS)] for index, name in enumerate(names)}
    bottom = TOP + SIDE

    def at(measured: float, predicted: float) -> tuple[float, float]:
        return LEFT + SIDE * measured / most, bottom - SIDE * predicted / most

    body = [_band(most, at(most, most))]
    for tick in ticks(0.0, most, most=5):
        x, y = at(tick, tick)
        label = f"{100 * tick:g} %"
        body.append(element("line", x1=LEFT, x2=LEFT + SIDE, y1=y, y2=y, class_="rule"))
        body.append(text(label, LEFT - 6, y + 4, class_="tick", text_anchor="end"))
        body.append(text(label, x, bottom + 16, class_="tick", text_anchor="middle"))
    corners = (at(0.0, 0.0), at(most, most))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    body.append(element("polyline", points=path, class_="line dense"))
    for one in points:
        x, y = at(one.measured, one.predicted)
        words = f"{one.about}: predicted {percent(one.predicted)}, measured {percent(one.measured)}"
        body.append(
            element("circle", title(words), cx=x, cy=y, r=4.2, class_=f"dot {kinds[one.series]}")
        )
    body += _words(points, kinds, bottom)
    return drawing(WIDTH, bottom + 48 + 18 * len(names), "".join(body), label=_spoken(points))


def _band(most: float, corner: tuple[float, float]) -> str:
    """Predictions that are at most a tenth off."""
    x, y = corner
    bottom = TOP + SIDE
    above = f"{LEFT + SIDE / (1 + BAND):.1f},{y:.1f}"
    below = f"{x:.1f},{bottom - SIDE * (1 - BAND):.1f}"
    points = f"{LEFT:.1f},{bottom:.1f} {above} {x:.1f},{y:.1f} {below}"
    return element("polygon", points=points, class_="band")


def _words(points: Sequence[Prediction], kinds: dict[str, str], bottom: float) -> list[str]:
    middle = LEFT + SIDE / 2
    body = [
        text("measured, share of dense latency", middle, bottom + 34, **_TICK),
        element(
            "g",
            text("predicted", 0.0, 0.0, **_TICK),
            transform=f"translate(12 {TOP + SIDE / 2:g}) rotate(-90)",
        ),
    ]
    for index, (name, kind) in enumerate(kinds.items()):
        x, y = LEFT, bottom + 58 + 18 * index
        own = [one for one in points if one.series == name]
        middle_error = percent(statistics.median(one.error for one in own))
        body.append(element("circle", cx=x + 4, cy=y - 4, r=4.2, class_=f"dot {kind}"))
        body.append(text(f"{name}: off by {middle_error} (median)", x + 13, y, class_="tick"))
    return body


_TICK = {"class_": "tick", "text_anchor": "middle"}


def _spoken(points: Sequence[Prediction]) -> str:
    errors = [one.error for one in points]
    within = sum(error <= BAND for error in errors)
    return (
        f"Predicted over measured latency of {plural(len(points), 'cut model')}: off by "
        f"{percent(statistics.median(errors))} in the median, {within} within 10 %"
    )
