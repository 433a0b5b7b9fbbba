"""Dense, pruned and random models of several domains, each on its own metric and real data.

The domains are the examples of `examples/domains`. One line of JSON for each domain and seed goes
to `runs/domains.jsonl`; what is there is skipped. In the end `results/domains.md` is made of them:

    python benchmarks/domains.py [DOMAIN ...]

What each needs stands in its example, and in docs/domains.md.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from environment import environment

HERE = Path(__file__).parent
ROOT = HERE.parent
LINES = ROOT / "runs" / "domains.jsonl"
RESULTS = HERE / "results"
DOMAINS = {
    "images": "images",
    "photos": "photos",
    "medicine": "tables",
    "finance": "tables",
    "recommender": "recommender",
    "cold rows": "cold_rows",
    "speech": "speech",
    "reviews": "reviews",
    "super-resolution": "superresolution",
}
"""The file of `examples/domains` that has it."""
SEEDS = dict.fromkeys(DOMAINS, 3) | {"photos": 1, "reviews": 1, "super-resolution": 1}
"""How many; one where a run takes minutes."""
MODELS = ("dense", "pruned", "random")


def main() -> int:
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "examples" / "domains")]
    LINES.parent.mkdir(exist_ok=True)
    done = {(run["domain"], run["seed"]) for run in read()}
    for name in sys.argv[1:] or DOMAINS:
        for seed in range(SEEDS[name]):
            if (name, seed) not in done:
                measure(name, seed)
    runs = read()
    body = {"about": environment(ROOT), "runs": runs}
    (RESULTS / "domains.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "domains.md").write_text(table(runs), encoding="utf-8")
    return 0


def measure(name: str, seed: int) -> None:
    """Train, cut and recover one domain's models, and write a line."""
    compare = importlib.import_module("comparison").compare
    domain = importlib.import_module(DOMAINS[name]).domain(name, seed)
    run = {"domain": name, "seed": seed, "budget": domain.budget}
    run["rows"] = compare(domain, seed=seed)
    with LINES.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(run) + "\n")
    print(name, seed, file=sys.stderr, flush=True)


def read() -> list[dict[str, Any]]:
    """The finished runs in the order of domains and seeds."""
    if not LINES.exists():
        return []
    found = [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]
    by = {(run["domain"], run["seed"]): run for run in found}
    return [by[key] for name in DOMAINS for key in sorted(by) if key[0] == name]


def table(runs: list[dict[str, Any]]) -> str:
    """Domains and models down; means over the seeds, the spread beside the final metric."""
    lines = [
        "# Domains",
        "",
        "Means over the seeds, with the standard deviation of the final metric. Every seed has "
        "its own split, weights and random choice; pruned and random get the same budget and the "
        "same recovery. Latency is the median at one thread, times as fast as dense in the same "
        "run. A model that only looks rows up has no multiply-accumulates to count.",
        "",
        "| domain | metric | model | seeds | parameters | MACs | just cut | recovered | faster |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in DOMAINS:
        mine = [run["rows"] for run in runs if run["domain"] == name]
        lines += [_line(name, k, mine) for k in range(len(MODELS)) if mine]
    return "\n".join(lines) + "\n"


def _line(name: str, k: int, seeds: list[list[dict[str, Any]]]) -> str:
    rows = [rows[k] for rows in seeds]
    final = [row.get("recovered", row["cut"]) for row in rows]
    spread = f" ± {stdev(final):.4f}" if len(final) > 1 else ""
    faster = mean(rows[0]["latency_ms"] / rows[k]["latency_ms"] for rows in seeds)
    return (
        f"| {name} | {rows[0]['metric']} | {MODELS[k]} | {len(rows)} "
        f"| {mean(row['params'] for row in rows):,.0f} | {mean(row['macs'] for row in rows):,.0f} "
        f"| {mean(row['cut'] for row in rows):.4f} | {mean(final):.4f}{spread} | {faster:.1f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
