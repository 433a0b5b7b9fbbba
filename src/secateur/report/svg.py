"""Pieces of SVG as strings. Every text and attribute is escaped here and nowhere else.

Colours are classes (`dense`, `pruned`, `random`, `extra`, `kept`, `removed`) that the page's style
sheet resolves, so that one drawing serves light, dark and paper.
"""

from __future__ import annotations

import math
from html import escape
from typing import Any


def element(name: str, body: str = "", **attributes: Any) -> str:
    """One element; `class_` and `stroke_width` become `class` and `stroke-width`.

    >>> element("rect", x=1.0, width=2.5, class_="kept")
    '<rect x="1" width="2.5" class="kept"/>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value), quote=True)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{written}>{body}</{name}>" if body else f"<{name}{written}/>"


def text(content: str, x: float, y: float, **attributes: Any) -> str:
    """Text with its baseline at y.

    >>> text("<b>", 0, 1)
    '<text x="0" y="1">&lt;b&gt;</text>'
    """
    return element("text", escape(content), x=x, y=y, **attributes)


def title(content: str) -> str:
    """What a pointer over the parent element shows."""
    return element("title", escape(content)) if content else ""


def drawing(width: float, height: float, body: str, *, label: str) -> str:
    """A whole picture that scales with its place; `label` says it in words."""
    return element(
        "svg", body, viewBox=f"0 0 {_number(width)} {_number(height)}", role="img", aria_label=label
    )


def ticks(low: float, high: float, *, most: int = 5) -> list[float]:
    """Round numbers that lie between two values.

    >>> ticks(0, 1), ticks(0.962, 0.991)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.97, 0.98, 0.99])
    """
    if not high > low:
        return [low]
    rough = (high - low) / most
    scale = 10 ** math.floor(math.log10(rough))
    step = next(scale * each for each in (1, 2, 5, 10) if scale * each >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _number(value: Any) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
