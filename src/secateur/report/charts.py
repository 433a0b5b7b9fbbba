"""The report's drawings. Each takes plain data and gives one inline SVG that fits a phone.

All are about 320 units wide, so that text keeps its size where they stand side by side in columns
of about that many pixels. `Bar.kind` is the colour class of its model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secateur.cost.latency import Latency
from secateur.report.explain import Histogram
from secateur.report.svg import drawing, element, text, ticks, title
from secateur.report.words import milliseconds, plural, significant

WIDTH = 320.0
LEFT, RIGHT = 70.0, 242.0  # where bars begin and end; the name stands before, the figure after
ROW = 27.0
WIDE, MARGIN, SPREAD_ROW = 480.0, 104.0, 44.0  # the spread of latencies takes half a page


@dataclass(frozen=True, slots=True)
class Bar:
    """One model's figure: its name, colour class, value (None: not measured) and label."""

    name: str
    kind: str
    value: float | None
    label: str


def bar_chart(caption: str, bars: Sequence[Bar]) -> str:
    """Horizontal bars from zero."""
    most = max((bar.value or 0.0 for bar in bars), default=0.0) or 1.0
    body = []
    for index, bar in enumerate(bars):
        y = index * ROW
        length = (RIGHT - LEFT) * (bar.value or 0.0) / most
        body.append(_names(bar, y))
        body.append(_round_bar(y + 6, RIGHT - LEFT, "track"))
        if bar.value:
            body.append(_round_bar(y + 6, max(length, 2.0), bar.kind))
    return drawing(WIDTH, ROW * len(bars), "".join(body), label=_spoken(caption, bars))


def dot_chart(caption: str, bars: Sequence[Bar]) -> str:
    """Dots on an axis that does not begin at zero, for figures that lie close together."""
    values = [bar.value for bar in bars if bar.value is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    pad = max(0.15 * (high - low), 0.004)
    low, high = max(0.0, low - pad), min(1.0, high + pad)

    def across(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (value - low) / (high - low)

    bottom = ROW * len(bars)
    body = []
    for tick in ticks(low, high, most=3):
        x = across(tick)
        body.append(element("line", x1=x, x2=x, y1=0.0, y2=bottom, class_="rule"))
        label = f"{100 * tick:g} %"
        body.append(text(label, x, bottom + 14, class_="tick", text_anchor="middle"))
    for index, bar in enumerate(bars):
        y = index * ROW
        body.append(_names(bar, y))
        if bar.value is not None:
            x = across(bar.value)
            body.append(
                element("line", x1=LEFT, x2=x, y1=y + 13, y2=y + 13, class_=f"stem {bar.kind}")
            )
            body.append(element("circle", cx=x, cy=y + 13, r=6.0, class_=f"dot {bar.kind}"))
    return drawing(WIDTH, bottom + 20, "".join(body), label=_spoken(caption, bars))


def spread_chart(measured: Sequence[tuple[str, str, Latency]]) -> str:
    """Every round of every model as a dot, the middle 80 % as a band, the median as a line."""
    most = 1.25 * max(latency.p90_ms for _, _, latency in measured)
    body = []
    bottom = SPREAD_ROW * len(measured)
    for tick in ticks(0.0, most, most=6):
        x = MARGIN + (WIDE - 18 - MARGIN) * tick / most
        body.append(element("line", x1=x, x2=x, y1=0.0, y2=bottom, class_="rule"))
        body.append(
            text(f"{significant(tick)}", x, bottom + 18, class_="tick", text_anchor="middle")
        )
    for index, (name, kind, latency) in enumerate(measured):
        body.append(_spread_row(name, kind, latency, index * SPREAD_ROW, most))
    body.append(text("ms", MARGIN - 14, bottom + 18, class_="tick", text_anchor="end"))
    label = "Latency of every round: " + "; ".join(
        f"{name} median {milliseconds(latency.median_ms)}, middle 80 % "
        f"{milliseconds(latency.p10_ms)} to {milliseconds(latency.p90_ms)}"
        for name, _, latency in measured
    )
    return drawing(WIDE, bottom + 26, "".join(body), label=label)


def histogram_chart(histogram: Histogram) -> str:
    """Kept and removed units stacked over the score."""
    width, height = 240.0, 78.0
    totals = [k + r for k, r in zip(histogram.kept, histogram.removed, strict=True)]
    step, most = width / len(totals), max(totals, default=0) or 1
    body = []
    for index, (kept, removed) in enumerate(zip(histogram.kept, histogram.removed, strict=True)):
        high = height * kept / most
        low = height * removed / most
        for length, bottom, kind in ((low, height, "removed"), (high, height - low, "kept")):
            if length:
                x, y = index * step + 0.5, bottom - length
                body.append(element("rect", x=x, y=y, width=step - 1, height=length, class_=kind))
    body.append(element("line", x1=0.0, x2=width, y1=height, y2=height, class_="axis"))
    body.append(text(_score(histogram.low, histogram.log), 0, height + 13, class_="tick"))
    scale = "score, log scale" if histogram.log else "score"
    body.append(text(scale, width / 2, height + 13, class_="tick", text_anchor="middle"))
    right = _score(histogram.high, histogram.log)
    body.append(text(right, width, height + 13, class_="tick", text_anchor="end"))
    label = (
        f"Scores of {histogram.group}: {plural(sum(histogram.kept), 'unit')} kept, "
        f"{sum(histogram.removed):,} removed"
    )
    return drawing(width, height + 18, "".join(body), label=label)


def squares(dense: float, pruned: float, *, label: str) -> str:
    """Two squares from one corner whose areas are the two sizes."""
    side = 180.0
    inner = side * min(1.0, pruned / dense) ** 0.5
    body = [
        element("rect", x=1.0, y=1.0, width=side, height=side, rx=10, class_="whole"),
        element("rect", x=1.0, y=1 + side - inner, width=inner, height=inner, rx=8, class_="rest"),
    ]
    return drawing(side + 2, side + 2, "".join(body), label=label)


def _names(bar: Bar, y: float) -> str:
    strong = " strong" if bar.kind == "pruned" else ""
    return text(
        _short(bar.name), LEFT - 8, y + 17, class_=f"name{strong}", text_anchor="end"
    ) + text(bar.label, RIGHT + 8, y + 17, class_=f"figure{strong}")


def _short(name: str) -> str:
    """
    >>> _short("random"), len(_short("a much longer name"))
    ('random', 10)
    """
    return name if len(name) <= 10 else name[:9] + "…"


def _round_bar(y: float, length: float, kind: str) -> str:
    return element(
        "rect", x=LEFT, y=y, width=length, height=14, rx=min(4.0, length / 2), class_=kind
    )


def _spread_row(name: str, kind: str, latency: Latency, y: float, most: float) -> str:
    def across(ms: float) -> float:
        return MARGIN + (WIDE - 18 - MARGIN) * min(ms / most, 1.0)

    low, middle, high = (across(ms) for ms in (latency.p10_ms, latency.median_ms, latency.p90_ms))
    body = [text(_short(name), MARGIN - 8, y + 27, class_="name", text_anchor="end")]
    width = max(high - low, 1.5)
    body.append(
        element("rect", x=low, y=y + 10, width=width, height=24, rx=3, class_=f"band {kind}")
    )
    for index, ms in enumerate(latency.samples_ms):
        # rows of dots are spread over the band by a fixed pattern, so the page is reproducible
        dot_y = y + 13 + 18 * ((index * 0.618034) % 1)
        outside = title("beyond the axis") if ms > most else ""
        body.append(
            element("circle", outside, cx=across(ms), cy=dot_y, r=1.6, class_=f"round {kind}")
        )
    line = {"x1": middle, "x2": middle, "y1": y + 4, "y2": y + 39, "class_": f"median {kind}"}
    body.append(element("line", title(f"median {milliseconds(latency.median_ms)}"), **line))
    return "".join(body)


def _score(value: float, log: bool) -> str:
    return f"{10**value:.2g}" if log else f"{value:.3g}"


def _spoken(caption: str, bars: Sequence[Bar]) -> str:
    return f"{caption}: " + ", ".join(f"{bar.name} {bar.label}" for bar in bars)
