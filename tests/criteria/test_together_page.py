"""The Python of docs/scoring_together.md runs, alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "scoring_together.md"


def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    exec(compile(block, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.startswith("rank 0: ")
