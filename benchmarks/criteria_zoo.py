"""Every criterion on small models of every family: scores, a plan to half the MACs, cut == mask.

One line of JSON for each run goes to `runs/criteria_zoo.jsonl`; runs that are there are skipped, so
that a stopped benchmark goes on. In the end `results/criteria_zoo.md` is made of them:

    python benchmarks/criteria_zoo.py [MODEL ...]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from criteria_zoo_models import MODELS, Subject
from environment import child_environment, environment
from torch import Tensor, nn

HERE = Path(__file__).parent
ROOT = HERE.parent
LINES = ROOT / "runs" / "criteria_zoo.jsonl"
RESULTS = HERE / "results"
BUDGETS = ("macs=50%", "macs=75%", "macs=90%")
"""The first that the scored groups can meet: a criterion that has no score for some leaves them."""
OUTSIDE = "no group of this model"
"""In what a criterion says that looks at something which the model does not have."""


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        for row in rows_of(sys.argv[2], set(sys.argv[3:])):
            print(json.dumps(row), flush=True)
        return 0
    LINES.parent.mkdir(exist_ok=True)
    for name in sys.argv[1:] or MODELS:
        done = {row["criterion"] for row in read() if row["model"] == name}
        left = [criterion for criterion in criteria() if criterion not in done]
        if left:
            print(f"{name}: {len(left)} criteria", file=sys.stderr, flush=True)
            command = [sys.executable, __file__, "--one", name, *left]
            with LINES.open("a", encoding="utf-8") as lines:
                subprocess.run(command, env=_variables(), stdout=lines, check=False)
    found = read()
    body = {"about": environment(ROOT), "runs": found}
    (RESULTS / "criteria_zoo.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "criteria_zoo.md").write_text(table(body), encoding="utf-8")
    return 0 if all("error" not in row for row in found) else 1


def criteria() -> list[str]:
    """Names of all criteria that score units."""
    from secateur.core.lookup import find, names

    package = "secateur.criteria"
    found = [(name, find(package, name, kind="criterion")) for name in names(package)]
    return [name for name, rule in found if "stream" not in rule.NEEDS]


def rows_of(name: str, wanted: set[str]) -> Iterable[dict[str, Any]]:
    """One model with each criterion."""
    import torchvision_ops

    from secateur import trace

    torchvision_ops.define_torchvision_ops()  # on a CPU build of torch torchvision has none
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    subject = MODELS[name]()
    graph = trace(subject[0], subject[1])
    for criterion in sorted(wanted):
        started = time.process_time()
        row: dict[str, Any] = {"model": name, "criterion": criterion}
        try:
            row |= run(subject, graph, criterion)
        except Exception as error:  # whatever goes wrong is a result of this benchmark
            kind = "outside" if OUTSIDE in str(error) else "error"
            row[kind] = f"{type(error).__name__}: {error}"
        yield row | {"cpu_seconds": round(time.process_time() - started, 2)}


def run(subject: Subject, graph: Any, criterion: str) -> dict[str, Any]:
    """Score, plan, cut and prove."""
    from secateur import BudgetError, cut, plan, score, verify

    model, inputs, batches = subject
    scores = score(graph, model, criterion=criterion, data=batches, loss_fn=loss_fn)
    finite = all(bool(values.isfinite().all()) for values in scores.values())
    if not finite:
        raise ArithmeticError("scores are not finite")
    for budget in BUDGETS:
        try:
            made = plan(graph, scores, budget=budget)
        except BudgetError as error:
            reason = str(error)
            continue
        proof = verify(model, cut(model, made), made, inputs, graph=graph, dtype=torch.float64)
        return {
            "groups": len(graph.free),
            "scored": len(scores),
            "macs": round(made.after.macs / made.before.macs, 4),
            "error_of_proof": proof.max_rel_error,
            "by_numbers": proof.groups_checked,
        }
    raise RuntimeError(reason)


def loss_fn(outputs: Any, targets: Any) -> Tensor:
    """How far the first output is from one: any model has that."""
    first = outputs if isinstance(outputs, Tensor) else outputs[0]
    return nn.functional.mse_loss(first, torch.ones_like(first))


def read() -> list[dict[str, Any]]:
    """The finished runs, the last of each kind, in the order of models and criteria."""
    if not LINES.exists():
        return []
    rows = [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]
    last = {(row["model"], row["criterion"]): row for row in rows}
    order = [(model, criterion) for model in MODELS for criterion in criteria()]
    return [last[key] for key in order if key in last]


def table(body: dict[str, Any]) -> str:
    """Criteria down, models across: what is left of the MACs, or that it went wrong."""
    rows, about = body["runs"], body["about"]
    models = [name for name in MODELS if any(row["model"] == name for row in rows)]
    found = {(row["criterion"], row["model"]): row for row in rows}
    apply = [row for row in rows if "outside" not in row]
    proved = [row for row in apply if "error" not in row]
    worst = max((row["error_of_proof"] for row in proved), default=0.0)
    lines = [
        "# Every criterion on every family",
        "",
        f"{len(proved)} of {len(apply)} runs: finite scores, a plan, and a cut that equals the "
        f"mask (float64, greatest relative error {worst:.1e}). {len(rows) - len(apply)} more do "
        "not apply and say so: the criterion looks at normalisations, and what may be cut goes "
        "through none. Models are small and have random "
        "weights. A cell is the share of MACs that is left; the budget is 50 %. It is 75 % or 90 % "
        "where a criterion has no score for some groups, which stay whole, so that the rest "
        "cannot meet it: their number stands in brackets.",
        "",
        f"Generated by `python benchmarks/criteria_zoo.py`; do not edit. {about['cpu']}, one "
        f"thread; Python {about['python']}, torch {about['torch']}; commit {about['commit']}; "
        f"{about['date']}.",
        "",
        "| criterion | " + " | ".join(models) + " |",
        "|---|" + "---|" * len(models),
    ]
    for criterion in dict.fromkeys(row["criterion"] for row in rows):
        cells = [_cell(found.get((criterion, model))) for model in models]
        lines.append(f"| `{criterion}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if "outside" in row:
        return "does not apply"
    if "error" in row:
        return "wrong: " + row["error"][:80].replace("|", "/")
    whole = row["groups"] - row["scored"]
    return f"{row['macs']:.0%}" + (f" ({whole} whole)" if whole else "")


def _variables() -> dict[str, str]:
    return {**child_environment(), "HF_HUB_OFFLINE": "1"}


if __name__ == "__main__":
    sys.exit(main())
