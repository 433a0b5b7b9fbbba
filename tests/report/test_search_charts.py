"""The front and the predictions as drawings: what is drawn, where, and said in words."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from secateur.report.pareto_chart import front_chart
from secateur.report.prediction_chart import Prediction, prediction_chart
from secateur.report.standalone import standalone
from secateur.search.study_folder import SearchFolder
from secateur.search.study_found import Found
from secateur.search.study_space import Choice
from secateur.search.trial import Trial

NAMESPACE = "{http://www.w3.org/2000/svg}"


def trial(number: int, metric: float | None, cost: float, *, line: bool = False) -> Trial:
    choice = Choice(
        share=cost,
        lr=0.01,
        criterion="<l2>",
        selector="uniform",
        schedule="one_shot",
        distil=False,
        reconstruct=False,
        precision="fp32",
    )
    state = "pruned" if metric is None else "complete"
    return Trial(
        number=number, state=state, choice=choice, line=line, metric=metric, costs={"macs": cost}
    )


def found(*trials: Trial) -> Found:
    return Found(SearchFolder(Path("nowhere")), ("macs",), trials, 0.95, {"macs": 1e6})


def circles(svg: str, *classes: str) -> list[ET.Element]:
    drawn = ET.fromstring(svg).iter(f"{NAMESPACE}circle")
    # those of the legend have no title
    return [
        each
        for each in drawn
        if set(classes) <= set(each.get("class", "").split()) and len(each) == 1
    ]


def at(circle: ET.Element) -> tuple[float, float]:
    return float(circle.get("cx", "nan")), float(circle.get("cy", "nan"))


def test_the_front_lies_above_the_line_and_other_trials_are_faint() -> None:
    svg = standalone(
        front_chart(
            found(
                trial(0, 0.90, 0.6, line=True),
                trial(1, 0.80, 0.2, line=True),
                trial(2, 0.92, 0.5),
                trial(3, 0.85, 0.4),
                trial(4, 0.84, 0.5),
                trial(5, 0.10, 0.3),
                trial(6, None, 0.3),
            )
        )
    )
    best, middle, last = circles(svg, "pruned")
    assert at(best)[0] > at(middle)[0] > at(last)[0]  # dearer to the right
    assert at(best)[1] < at(middle)[1] < at(last)[1]  # better above
    assert len(circles(svg, "extra")) == 2
    assert at(circles(svg, "extra")[0]) == at(last)  # a point of the line stands in the front
    assert len(circles(svg, "faint")) == 1
    assert "other trials: 1, 1 below the axis" in svg
    assert "&lt;l2&gt;" in svg
    assert "Front of 3 points: 50.0 % of MACs at 0.9200" in svg


def test_a_search_that_has_found_nothing_yet_can_be_drawn() -> None:
    svg = standalone(front_chart(found()))
    assert "Front of 0 points: none yet" in svg
    assert not circles(svg)
    one = standalone(front_chart(found(trial(0, 0.95, 0.5))))
    assert len(circles(one, "pruned")) == 1


def test_the_dense_metric_is_a_rule_at_its_height() -> None:
    svg = front_chart(found(trial(0, 0.95, 0.5)))
    rule = next(e for e in ET.fromstring(svg).iter("polyline") if e.get("class") == "line dense")
    y = rule.get("points", "").split()[0].split(",")[1]
    dot = next(e for e in ET.fromstring(svg).iter("circle") if e.get("class") == "dot pruned")
    assert float(y) == pytest.approx(float(dot.get("cy", "nan")), abs=0.1)


def test_a_right_prediction_lies_on_the_diagonal() -> None:
    points = [
        Prediction("eager", 0.5, 0.5, "resnet"),
        Prediction("eager", 0.3, 0.6),
        Prediction("compile", 0.63, 0.6),
    ]
    svg = prediction_chart(points)
    dots = [e for e in ET.fromstring(svg).iter("circle") if len(e) == 1]
    corners = next(ET.fromstring(svg).iter("polyline")).get("points", "").split()
    (x0, y0), (x1, y1) = ((float(n) for n in corner.split(",")) for corner in corners)
    (right, low, high) = ((x - x0) / (x1 - x0) - (y - y0) / (y1 - y0) for x, y in map(at, dots))
    assert right == pytest.approx(0.0, abs=1e-3)
    assert low > 0.1  # right of the line: predicted too quick
    assert high < 0.0
    assert [e.get("class") for e in dots] == ["dot pruned", "dot pruned", "dot extra"]
    assert "resnet: predicted 50.0 %, measured 50.0 %" in svg
    assert "off by 5.0 % in the median, 2 within 10 %" in svg
    assert "nothing was predicted yet" in prediction_chart([])


def test_a_drawing_alone_holds_its_style_and_stays_one_picture() -> None:
    text = standalone(front_chart(found(trial(0, 0.9, 0.5))))
    root = ET.fromstring(text)
    assert root.tag == f"{NAMESPACE}svg"
    assert root[0].tag == f"{NAMESPACE}style"
    assert "prefers-color-scheme: dark" in (root[0].text or "")
    assert root.get("role") == "img"
    assert "script" not in text
    with pytest.raises(ValueError, match="no drawing"):
        standalone("<p>text</p>")
