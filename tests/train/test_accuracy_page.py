"""The Python of docs/accuracy.md runs, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

from secateur.train import accuracy

PAGE = Path(__file__).parents[2] / "docs" / "accuracy.md"


def test_the_pages_road_runs_and_recovers() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    names: dict[str, object] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    small, plan, data = names["small"], names["plan"], names["data"]
    assert plan.after.macs <= 0.25 * plan.before.macs  # type: ignore[attr-defined]
    assert accuracy(small, data) > 0.9  # type: ignore[arg-type]
