"""The Python of docs/allocation.md runs, from top to bottom, on the real clock."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "allocation.md"


@pytest.mark.slow
def test_the_pages_examples_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    plan = names["plan"]
    assert plan.after.latency_ms <= 0.7 * plan.before.latency_ms  # type: ignore[attr-defined]
    assert (tmp_path / "sensitivities.json").is_file()
