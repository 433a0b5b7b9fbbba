"""Training curves: lines over epochs with a plain grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from secateur.report.svg import drawing, element, text, ticks

WIDTH, HEIGHT = 480.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 66.0, 470.0, 8.0, 206.0
MANY = 40


@dataclass(frozen=True, slots=True)
class Line:
    """One model's figures, epoch 1 first; `kind` is its colour class."""

    name: str
    kind: str
    values: tuple[float, ...]


def line_chart(
    caption: str, lines: Sequence[Line], *, written: Callable[[float], str], from_zero: bool
) -> str:
    """Lines over epochs; `written` formats a value, `from_zero` puts zero on the axis."""
    values = [value for line in lines for value in line.values]
    low, high = (0.0 if from_zero else min(values)), max(values)
    high = high if high > low else low + 1e-3
    epochs = max(len(line.values) for line in lines)

    def at(epoch: int, value: float) -> tuple[float, float]:
        x = LEFT + (RIGHT - LEFT) * ((epoch - 1) / max(epochs - 1, 1))
        return x, BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)

    body = [_horizontal(at(1, tick)[1], written(tick)) for tick in ticks(low, high, most=4)]
    for tick in ticks(1, epochs, most=6):
        if tick == int(tick):
            x = at(int(tick), low)[0]
            body.append(text(f"{tick:.0f}", x, BOTTOM + 18, class_="tick", text_anchor="middle"))
    middle = (LEFT + RIGHT) / 2
    body.append(text("epoch", middle, BOTTOM + 36, class_="tick", text_anchor="middle"))
    for line in lines:
        points = [at(epoch, value) for epoch, value in enumerate(line.values, 1)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        body.append(element("polyline", points=path, class_=f"line {line.kind}"))
        marks = points if len(points) <= MANY else points[-1:]
        body += [element("circle", cx=x, cy=y, r=2.4, class_=f"dot {line.kind}") for x, y in marks]
    ends = ", ".join(f"{line.name} ends at {written(line.values[-1])}" for line in lines)
    label = f"{caption} over {epochs} epochs: {ends}"
    return drawing(WIDTH, HEIGHT, "".join(body), label=label)


def _horizontal(y: float, label: str) -> str:
    return element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="rule") + text(
        label, LEFT - 6, y + 4, class_="tick", text_anchor="end"
    )
