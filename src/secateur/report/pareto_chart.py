"""The front of a search as a drawing: metric over one cost, the plain line beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from secateur.report.svg import drawing, element, text, ticks, title
from secateur.report.words import percent, plural, significant
from secateur.search.study_found import Found
from secateur.search.trial import Trial

WIDTH, HEIGHT = 420.0, 312.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 408.0, 18.0, 232.0
COSTS = {"macs": "MACs", "params": "parameters", "memory": "peak memory"}


def front_chart(found: Found, cost: str | None = None) -> str:
    """The front in green, the line in blue, other trials faint; the dense metric as a rule.

    cost: which of the search's costs lies along, the first where None. Trials far below the front
    and the line are left out, and counted.
    """
    cost = cost or found.costs[0]
    shown = (*found.front, *found.line)
    plane = _plane(shown, cost, found.dense)
    others = [t for t in found.complete if t not in shown]
    inside = [trial for trial in others if plane.holds(trial)]
    body = [*_grid(plane, cost), *_dense(plane, found.dense)]
    body += [_dot(plane, trial, "dense faint", 3.0) for trial in inside]
    line = sorted(found.line, key=lambda trial: trial.costs[cost])
    if line:
        body.append(_polyline([plane.at(trial) for trial in line], "extra"))
    if len(found.costs) == 1:
        body.append(_polyline(_stairs(plane, found.front), "pruned"))
    body += [_dot(plane, trial, "extra hollow", 4.6) for trial in line]
    body += [_dot(plane, t, "pruned", 2.6 if t.line else 4.2) for t in found.front]
    left_out = len(others) - len(inside)
    body += _legend(found, len(inside), left_out)
    return drawing(WIDTH, HEIGHT, "".join(body), label=_spoken(found, cost))


@dataclass(frozen=True, slots=True)
class _Plane:
    """Where values lie in the drawing."""

    cost: str
    most: float
    low: float
    high: float

    def x(self, share: float) -> float:
        return LEFT + (RIGHT - LEFT) * share / self.most

    def y(self, metric: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (metric - self.low) / (self.high - self.low)

    def at(self, trial: Trial) -> tuple[float, float]:
        return self.x(trial.costs[self.cost]), self.y(_metric(trial))

    def holds(self, trial: Trial) -> bool:
        return self.low <= _metric(trial) <= self.high and trial.costs[self.cost] <= self.most


def _plane(trials: Sequence[Trial], cost: str, dense: float) -> _Plane:
    metrics = [_metric(trial) for trial in trials] + [dense]
    low, high = min(metrics), max(metrics)
    pad = max(0.06 * (high - low), 1e-3 * max(abs(high), 1e-3))
    most = max([trial.costs[cost] for trial in trials], default=1.0)
    return _Plane(cost, 1.06 * most, low - pad, high + pad)


def _grid(plane: _Plane, cost: str) -> list[str]:
    written, body = _written(plane.low, plane.high), []
    for tick in ticks(plane.low, plane.high, most=8):
        y = plane.y(tick)
        body.append(element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="rule"))
        body.append(text(written(tick), LEFT - 6, y + 4, class_="tick", text_anchor="end"))
    for tick in ticks(0.0, plane.most, most=6):
        x = plane.x(tick)
        label = f"{100 * tick:g} %"
        body.append(text(label, x, BOTTOM + 16, class_="tick", text_anchor="middle"))
    body.append(element("line", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM, class_="axis"))
    name = f"{COSTS.get(cost, cost)} left, share of the dense model's"
    middle = (LEFT + RIGHT) / 2
    body.append(text(name, middle, BOTTOM + 34, class_="tick", text_anchor="middle"))
    return body


def _dense(plane: _Plane, dense: float) -> list[str]:
    y = plane.y(dense)
    words = f"dense {_written(0.0, 1.0)(dense) if 0 <= dense <= 1 else significant(dense)}"
    return [
        _polyline([(LEFT, y), (RIGHT, y)], "dense"),
        text(words, LEFT + 4, y - 5, class_="note"),
    ]


def _stairs(plane: _Plane, front: Sequence[Trial]) -> list[tuple[float, float]]:
    """What can be had at each cost: level to the next dearer point, then up."""
    points = sorted(plane.at(trial) for trial in front)
    corners: list[tuple[float, float]] = []
    for x, y in points:
        corners += [(x, corners[-1][1])] if corners else []
        corners.append((x, y))
    return corners


def _polyline(points: Sequence[tuple[float, float]], kind: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element("polyline", points=path, class_=f"line {kind}")


def _dot(plane: _Plane, trial: Trial, kind: str, radius: float) -> str:
    x, y = plane.at(trial)
    words = f"trial {trial.number}: {significant(100 * trial.costs[plane.cost])} % left, "
    words += f"metric {_metric(trial):.4f}; {trial.choice.words}"
    return element("circle", title(words), cx=x, cy=y, r=radius, class_=f"dot {kind}")


def _legend(found: Found, inside: int, left_out: int) -> list[str]:
    rows = [("pruned", f"front: {plural(len(found.front), 'point')}", 4.2)]
    if found.line:
        rows.append(("extra hollow", "line: plain choices at even shares", 4.0))
    below = f", {left_out} below the axis" if left_out else ""
    rows.append(("dense faint", f"other trials: {inside}{below}", 3.0))
    body, places = [], ((LEFT, 286.0), (LEFT + 128, 286.0), (LEFT, 305.0))
    for (kind, words, radius), (x, y) in zip(rows, places, strict=False):
        body.append(element("circle", cx=x + 4, cy=y - 4, r=radius, class_=f"dot {kind}"))
        body.append(text(words, x + 14, y, class_="tick"))
    return body


def _written(low: float, high: float) -> Callable[[float], str]:
    """Shares as per cent, anything else as a number."""
    if low >= -0.05 and high <= 1.05:
        return lambda value: f"{100 * value:.4g} %"
    return significant


def _metric(trial: Trial) -> float:
    assert trial.metric is not None
    return trial.metric


def _spoken(found: Found, cost: str) -> str:
    points = "; ".join(
        f"{percent(trial.costs[cost])} of {COSTS.get(cost, cost)} at {_metric(trial):.4f}"
        for trial in found.front
    )
    return f"Front of {plural(len(found.front), 'point')}: {points or 'none yet'}"
