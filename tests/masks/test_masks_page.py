"""The code of docs/masks.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "masks.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert (tmp_path / "masks.safetensors").is_file()
    rows = names["sparsity"](names["model"])  # type: ignore[operator]
    zeros, weights = sum(row.zeros for row in rows), sum(row.weights for row in rows)
    assert zeros / weights == pytest.approx(0.9, abs=0.01)
