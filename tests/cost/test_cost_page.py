"""The Python of docs/cost.md runs, from top to bottom, on the real clock."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "cost.md"


@pytest.mark.slow
def test_the_pages_examples_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["pruned"].total_bytes <= 0.63 * names["dense"].total_bytes
    assert names["found"]["dense"].estimate
    assert "energy estimated (45 W" in names["within"].plan.notes[-1]
