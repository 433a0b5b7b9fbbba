"""The Python of docs/latency.md runs, from top to bottom, on the real clock."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "latency.md"


@pytest.mark.slow
def test_the_pages_examples_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["result"].after.latency_ms < names["result"].before.latency_ms  # type: ignore[attr-defined]
