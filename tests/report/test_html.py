"""The page: well-formed, self-contained, complete, escaped, reproducible."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from secateur.report.explain import Explanation, GroupRow, Histogram, Width
from secateur.report.html import render, write_report
from secateur.report.result import Result
from secateur.report.verdict import headline, warnings

VOID = {"meta", "link", "br", "input", "path", "circle"}
SECTIONS = "warnings comparison latency widths scores groups training proof plan machine".split()
ATTACK = "<script>alert('x')</script>\"onload=\"y"


class Checker(HTMLParser):
    """Collects elements, and raises where one is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def test_well_formed_with_every_section(result: Result) -> None:
    checker = check(render(result))
    ids = [attrs["id"] for _, attrs in checker.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(SECTIONS) <= set(ids)
    links = [a["href"] for tag, a in checker.elements if tag == "a"]
    assert links and all(link and link[0] == "#" and link[1:] in ids for link in links)
    text = "".join(checker.words).replace("\u00a0", " ")
    assert headline(result) in text
    for warning in warnings(result):
        assert warning in text
    assert "norm (LayerNorm) averages over this axis" in text
    assert "the caller reads these outputs" in text
    assert result.plan_hash in text


def test_no_address_leaves_the_page(result: Result) -> None:
    page = render(result)
    checker = check(page)
    for _, attrs in checker.elements:
        for name in ("src", "href", "srcset", "action", "poster", "xlink:href"):
            value = attrs.get(name)
            assert value is None or value.startswith(("#", "data:"))
    assert "url(" not in page
    assert "@import" not in page
    assert not re.search(r"https?://", page)
    policy = next(a for t, a in checker.elements if t == "meta" and "http-equiv" in a)
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_every_drawing_says_what_it_shows(result: Result) -> None:
    drawings = [a for tag, a in check(render(result)).elements if tag == "svg"]
    assert len(drawings) >= 10
    assert all(a.get("aria-label") or a.get("aria-hidden") == "true" for a in drawings)


def test_names_are_escaped_everywhere(result: Result) -> None:
    hostile = Explanation(
        widths=(Width(ATTACK, ATTACK, 4, 2),),
        groups=(GroupRow(ATTACK, 4, 2, (ATTACK,) * 3, 3, (ATTACK,), (ATTACK,)),),
        scores=(Histogram(ATTACK, 0.0, 1.0, False, (1,), (1,)),),
        warnings=(ATTACK,),
    )
    assert result.proof is not None
    proof = replace(result.proof, reasons={ATTACK: ATTACK})
    extra = replace(result.dense, name=ATTACK)
    changed = replace(
        result,
        title=ATTACK,
        explanation=hostile,
        proof=proof,
        extra=(extra,),
        settings={ATTACK: ATTACK},
        curves=tuple(replace(curve, name=ATTACK) for curve in result.curves),
    )
    page = render(changed)
    assert page.count("<script") == 1
    assert "<script>alert" not in page
    checker = check(page)
    assert not any("onload" in attrs for _, attrs in checker.elements)
    assert ATTACK in "".join(checker.words)


def test_a_result_with_the_least(result: Result) -> None:
    bare = Result(
        title="bare",
        dense=replace(result.dense, latency=None, accuracy=None),
        pruned=replace(result.pruned, latency=None, accuracy=None),
        random=None,
        proof=None,
        plan_hash="0" * 64,
        machine=result.machine,
    )
    text = "".join(check(render(bare)).words)
    for line in ("Latency was not measured", "Accuracy was not measured", "No proof was made"):
        assert line in text


def test_three_hundred_layers_stay_one_page(result: Result) -> None:
    many = Explanation(
        widths=tuple(Width(f"layers.{i}.fc", "Linear", 512, 256) for i in range(300)),
        groups=tuple(GroupRow(f"g{i}", 512, 256, ("a", "b", "c"), 3) for i in range(300)),
        scores=tuple(Histogram(f"g{i}", 0.0, 1.0, False, (3,) * 24, (2,) * 24) for i in range(300)),
    )
    page = render(replace(result, explanation=many))
    check(page)
    assert "288 more groups" in page
    assert len(page) < 3_000_000


def test_same_result_same_bytes(result: Result, tmp_path: Path) -> None:
    path = write_report(result, tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == render(result)
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("name", ["style.css", "script.js"])
def test_assets_hold_no_closing_tag(name: str, result: Result) -> None:
    from secateur.report.html import _asset

    assert "</" not in _asset(name)
    assert _asset(name).rstrip() in render(result)
