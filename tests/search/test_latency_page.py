"""The code of the page on latency budgets runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "latency.md"
TABLE = re.compile(r"^\| `(\w+)` \|(.*)\|$", re.MULTILINE)


@pytest.mark.slow
def test_the_blocks_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    scope: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), scope)
    assert "latency measured (eager" in capsys.readouterr().out
    assert 0.5 < scope["found"].share <= 0.6 * 1.04
    assert scope["logits"].shape == (64, 10)


def test_the_table_of_runtimes_is_what_there_is():
    from secateur.core import lookup
    from secateur.cost.runtimes.prepared import RUNTIMES

    rows = {name: cells.split("|") for name, cells in TABLE.findall(PAGE.read_text("utf-8"))}
    assert set(rows) == set(lookup.names(RUNTIMES))
    for name, (_, *cells, _) in rows.items():
        own = lookup.find(RUNTIMES, name, kind="runtime").PRECISIONS
        said = [p for p, cell in zip(("fp32", "bf16", "int8"), cells, strict=True) if cell.strip()]
        assert tuple(said) == own
