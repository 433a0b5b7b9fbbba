"""A drawing as a file of its own: with the colours that a page would have given it.

Light and dark follow the reader's system, on a card of their own, so that the picture can be read
on any page that shows it.
"""

from __future__ import annotations

import re

PAD = 14.0
STYLE = """
:root { --card: #ffffff; --line: #dfe3db; --ink: #16201b; --soft: #55625a;
  --dense: #7b8794; --pruned: #0b7a5e; --random: #8b5cf6; --extra: #0284c7; --wash: #eef4f0; }
@media (prefers-color-scheme: dark) { :root { --card: #171e1b; --line: #2a342f; --ink: #e8eeea;
  --soft: #9fb0a7; --dense: #8a97a3; --pruned: #3ecf9f; --random: #a78bfa; --extra: #38bdf8;
  --wash: #1d2a24; } }
svg { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans",
  "Liberation Sans", sans-serif; fill: var(--ink); }
.card { fill: var(--card); stroke: var(--line); }
.rule { stroke: var(--line); }
.axis { stroke: var(--soft); }
.tick, .note { fill: var(--soft); font-size: 11px; }
.name { fill: var(--ink); }
.strong { font-weight: 650; }
.band { fill: var(--wash); stroke: none; }
.track { fill: var(--line); }
rect.dense { fill: var(--dense); }
rect.pruned { fill: var(--pruned); }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line.dense { stroke: var(--dense); stroke-width: 1.3; stroke-dasharray: 4 4; }
.line.pruned { stroke: var(--pruned); }
.line.extra { stroke: var(--extra); stroke-dasharray: 6 4; stroke-width: 1.6; }
.line.random { stroke: var(--random); }
.dot.dense { fill: var(--dense); }
.dot.pruned { fill: var(--pruned); }
.dot.extra { fill: var(--extra); }
.dot.random { fill: var(--random); }
.faint { opacity: 0.38; }
.hollow { fill: var(--card) !important; stroke-width: 1.8; }
.hollow.pruned { stroke: var(--pruned); }
.hollow.extra { stroke: var(--extra); }
.hollow.random { stroke: var(--random); }
"""


def standalone(drawing: str) -> str:
    """The text of an SVG file, with a margin around the drawing.

    >>> standalone('<svg viewBox="0 0 10 20" role="img"></svg>')[:75]
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-14 -14 38 48" role="img">'
    """
    found = re.match(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing)
    if found is None:
        raise ValueError(f"this is no drawing of report.svg: {drawing[:40]!r}")
    width, height = (float(number) + 2 * PAD for number in found.groups())
    box = f'viewBox="{-PAD:g} {-PAD:g} {width:g} {height:g}"'
    card = (
        f'<rect class="card" x="{0.5 - PAD:g}" y="{0.5 - PAD:g}" width="{width - 1:g}" '
        f'height="{height - 1:g}" rx="12"/>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box}{drawing[found.end() :]}\n'
    start = head.index(">") + 1
    return f"{head[:start]}<style>{STYLE}</style>{card}{head[start:]}"
