"""The page in a real browser: nothing logged, nothing asked for, filter and layout work."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from secateur.report.html import write_report
from secateur.report.result import Result

TOOL = Path(__file__).parents[2] / "tools" / "screenshot.py"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def screenshot() -> ModuleType:
    import sys

    spec = importlib.util.spec_from_file_location("screenshot", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    if module.find_browser() is None:
        pytest.skip("no Chromium on this machine: install chromium to run the browser tests")
    return module


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_logged_nothing_requested(
    screenshot: ModuleType, result: Result, tmp_path: Path, width: int, dark: bool
) -> None:
    address = write_report(result, tmp_path / "report.html").as_uri()
    with screenshot.open_page(address, width=width, dark=dark) as page:
        assert page.picture().startswith(PNG)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(15, 20, 18)" if dark else "rgb(246, 247, 244)")
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(overflow) == 0
    assert page.messages == []
    assert [each for each in page.requests if not each.startswith("data:")] == [address]


@pytest.mark.slow
def test_groups_are_filtered(screenshot: ModuleType, result: Result, tmp_path: Path) -> None:
    address = write_report(result, tmp_path / "report.html").as_uri()
    count = "document.getElementById('group-count').textContent"
    with screenshot.open_page(address) as page:
        assert page.evaluate(count) == "4 of 4 shown"
        page.evaluate("document.querySelector('[data-show=cut]').click()")
        assert page.evaluate(count) == "2 of 4 shown"
        page.evaluate(
            "const box = document.getElementById('group-query'); box.value = 'LayerNorm';"
            "box.dispatchEvent(new Event('input'))"
        )
        assert page.evaluate(count) == "1 of 4 shown"
    assert page.messages == []


@pytest.mark.slow
def test_the_policy_stops_a_foreign_script_and_the_tool_sees_it(
    screenshot: ModuleType, result: Result, tmp_path: Path
) -> None:
    """Were the check above blind, this would fail."""
    path = write_report(replace(result, title="t"), tmp_path / "report.html")
    hostile = "<script>window.stolen = 1</script><img src='nowhere.png'></body>"
    path.write_text(path.read_text().replace("</body>", hostile))
    with screenshot.open_page(path.as_uri()) as page:
        assert page.evaluate("window.stolen") is None
    assert any("Content Security Policy" in message for message in page.messages)
