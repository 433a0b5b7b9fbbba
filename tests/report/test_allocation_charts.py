"""The drawings of sensitivities and of widths: what is in them, escaped, and spoken."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from secateur.core.sensitivities import Curve, Sensitivities
from secateur.report.explain import Width
from secateur.report.sections import MANY_LAYERS, widths_figure
from secateur.report.sensitivity_chart import most_sensitive, sensitivity_chart
from secateur.report.standalone import standalone
from secateur.report.widths_chart import widths_chart

CURVES = {
    f"g{k}": Curve(8, (2, 4, 6), (1.0 + 0.01 * k, 1.0 + 0.1 * k, 1.0 + 0.5 * k)) for k in range(6)
}
FOUND = Sensitivities("g", 1.0, {**CURVES, "small": Curve(1, (), ())}, None, {})


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(standalone(svg))


def marks(svg: str, tag: str, kind: str) -> list[ElementTree.Element]:
    found = drawn(svg).iter(f"{{http://www.w3.org/2000/svg}}{tag}")
    return [each for each in found if kind in each.get("class", "").split()]


def test_the_most_sensitive_group_is_named_first() -> None:
    assert most_sensitive(FOUND)[:2] == ["g5", "g4"] and "small" not in most_sensitive(FOUND)
    svg = sensitivity_chart(FOUND, names={"g5": "heads & <b>"})
    assert len(marks(svg, "polyline", "line")) == 6
    (first,) = marks(svg, "polyline", "pruned")
    assert first.find("{http://www.w3.org/2000/svg}title").text == "heads & <b>"  # type: ignore[union-attr]
    assert len(marks(svg, "polyline", "dense")) == 3
    assert "heads &amp; &lt;b&gt; 2.50, g4 2.00, g3 1.50" in svg


def test_more_loss_is_higher_and_nothing_is_the_axis() -> None:
    (line,) = marks(sensitivity_chart(FOUND), "polyline", "pruned")
    heights = [float(point.split(",")[1]) for point in line.get("points", "").split()]
    assert heights == sorted(heights, reverse=True) and len(heights) == 4
    flat = Sensitivities("g", 1.0, {"a": Curve(4, (2,), (0.5,))})
    (line,) = marks(sensitivity_chart(flat), "polyline", "pruned")
    assert len({point.split(",")[1] for point in line.get("points", "").split()}) == 1
    assert "no group" in sensitivity_chart(Sensitivities("g", 1.0, {}))


def test_rises_of_many_orders_get_a_log_axis() -> None:
    curves = {f"g{k}": Curve(8, (4,), (1.0 + 10.0**-k,)) for k in range(5)}
    svg = sensitivity_chart(Sensitivities("g", 1.0, curves))
    assert "log scale" in svg and "log scale" not in sensitivity_chart(FOUND)
    points = [line.get("points", "") for line in marks(svg, "polyline", "line")]
    assert len(set(points)) >= 4  # g3 and g4 both lie on the axis


def test_widths_before_and_after() -> None:
    widths = [
        Width("stem", "Conv2d", 64, 32),
        Width("a.very.long.name.of.a.layer", "Linear", 16, 16),
        Width("<b>", "Linear", 64, 1),
    ]
    svg = widths_chart(widths)
    before, after = marks(svg, "rect", "track"), marks(svg, "rect", "pruned")
    assert len(before) == 3 and len(after) == 2 and len(marks(svg, "rect", "dense")) == 1
    share = float(after[0].get("height", 0)) / float(before[0].get("height", 0))
    assert abs(share - 0.5**0.5) < 0.01  # read off the same axis as the whole column
    heights = [float(each.get("height", 0)) for each in before]
    assert abs(heights[1] / heights[0] - 0.5) < 0.01  # the root of the width beside others
    assert "stem: 64 to 32" in svg and "&lt;b&gt;" in svg
    assert "2 of them cut; the deepest cut is &lt;b&gt;" in svg
    assert "no layer" in widths_chart([])
    assert "none of them cut" in widths_chart(widths[1:2])


def test_the_report_draws_many_layers_only() -> None:
    layers = [Width(f"layer{k}", "Linear", 8, 8 - k % 2) for k in range(MANY_LAYERS)]
    assert widths_figure(layers[1:]) is None
    figure = widths_figure(layers)
    assert figure is not None and "layer1: 8 to 7" in figure.drawing
    assert figure.note.startswith("6 of 12 layers cut")
