"""Latency prediction against measurement, drawn from what `latency_budgets.py` measured.

    python benchmarks/latency_prediction.py [LINES]

Each point is a model cut to a latency budget: what its timed modules alone said of it, over what
it came to beside the dense model. LINES is runs/latency_budgets.jsonl where none is given; the
drawing is written to benchmarks/results/latency_prediction.svg.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from secateur.core.atomic import write_text
from secateur.report.prediction_chart import Prediction, prediction_chart
from secateur.report.standalone import standalone

ROOT = Path(__file__).parents[1]
LINES = ROOT / "runs" / "latency_budgets.jsonl"
DRAWING = ROOT / "benchmarks" / "results" / "latency_prediction.svg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", type=Path, nargs="?", default=LINES)
    parser.add_argument("--out", type=Path, default=DRAWING)
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.lines.read_text("utf-8").splitlines()]
    write_text(arguments.out, drawn(lines))


def drawn(lines: list[dict[str, Any]]) -> str:
    """The file's text; cases that could not be met have no point."""
    return standalone(prediction_chart([_point(line) for line in lines if "measured" in line]))


def _point(line: dict[str, Any]) -> Prediction:
    model, runtime, *rest = line["key"]
    about = " ".join(str(part) for part in (model, runtime, *rest[:-1]))
    return Prediction(
        series=f"{runtime}, batch {rest[0]}",
        predicted=line["first_predicted"],
        measured=line["measured"],
        about=f"{about}, asked {rest[-1]} %",
    )


if __name__ == "__main__":
    main()
