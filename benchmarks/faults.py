"""Ranks killed at random moments of every stage: what the run ends with.

    python benchmarks/faults.py [--times 22] [--seed 0] [--page]

A recipe (prune a small CNN by Taylor scores, recover it for four epochs with a checkpoint every two
steps) runs on two ranks under DDP and under FSDP2. In each case one rank, stage and moment are
drawn, and SIGKILL strikes there. Then torchrun's agent starts the ranks again, or the same command
is typed again, or the ranks are started again as an agent does. The folder is then compared with
that of an undisturbed run: plans byte by byte, weights bit by bit, the curve of the loss in every
digit. Cases on disk stay. Writes benchmarks/results/faults.md and .json.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from environment import environment

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "engines" / "faults"))

from striking import Blow, Workplace, differences  # noqa: E402

from secateur.core.atomic import write_text  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "faults"
STAGES = ("scoring", "cutting", "recovery", "saving")
KINDS = ("ddp", "fsdp")
FORKED = 20
"""So many cases' ranks are forked, which is faster; those after them are typed as commands."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=22)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenarios", action="store_true", help="the other faults; needs root")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    path = arguments.out.with_suffix(".json")
    known = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    lines, others = known.get("cases", []), known.get("others", {})
    if arguments.scenarios:
        others |= scenarios()
    about = environment(ROOT) | {"seed": arguments.seed}
    if not arguments.page and not arguments.scenarios:
        with tempfile.TemporaryDirectory() as folder:
            place = Workplace(Path(folder))
            place.warm_()
            for number in range(len(lines), arguments.times):
                lines.append(case(place, number, random.Random(arguments.seed * 1000 + number)))
                print(json.dumps(lines[-1]), flush=True)
                write(lines, others, about, arguments.out)
    write(lines, others, about, arguments.out)


def case(place: Workplace, number: int, dice: random.Random) -> dict[str, Any]:
    """One blow: stages, kinds of sharing and ways to go on take turns, the rest is drawn."""
    stage, kind = STAGES[number % 4], KINDS[number // 4 % 2]
    typed = number >= FORKED
    restarts = number % 2 if typed else 0
    undisturbed = place.undisturbed(kind)
    spent = {rank: every[stage] for rank, every in place.spent[kind].items() if every[stage] > 0}
    rank = dice.choice(sorted(spent))
    blow = Blow(stage, rank, after_s=dice.uniform(0, 0.9) * spent[rank])
    begin, name = time.perf_counter(), f"struck-{number}"
    endings = place.struck(name, kind, blow, restarts=restarts, typed=typed)
    differ = differences(undisturbed, place.folder / name)
    checkpoints = sorted((place.folder / name).glob("stages/*/checkpoints/checkpoint-*"))
    shutil.rmtree(place.folder / name)
    return {
        "number": number,
        "parallel": kind,
        "blow": asdict(blow),
        "restarts": restarts,
        "typed": typed,
        "codes": [ending.code for ending in endings],
        "said": endings[0].said.strip().splitlines()[-1] if endings[0].code else "",
        "differ": differ,
        "checkpoints": len(checkpoints),
        "seconds": time.perf_counter() - begin,
    }


def scenarios() -> dict[str, Any]:
    """What `scenarios.py` prints."""
    program = ROOT / "tests" / "engines" / "faults" / "scenarios.py"
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(program), folder, "cut_off", "hung", "damaged", "full_disk"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    return found


def write(
    lines: Sequence[Mapping[str, Any]],
    others: Mapping[str, Any],
    about: Mapping[str, Any],
    out: Path,
) -> None:
    """The JSON file and the page."""
    body = {"about": dict(about), "cases": list(lines), "others": dict(others)}
    write_text(out.with_suffix(".json"), json.dumps(body, indent=1) + "\n")
    write_text(out.with_suffix(".md"), "\n".join(page(about, lines, others)) + "\n")


def page(
    about: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], others: Mapping[str, Any]
) -> Iterator[str]:
    """The whole page."""
    same = sum(not line["differ"] for line in lines)
    yield "# Ranks killed at random moments"
    yield ""
    yield (
        "Generated by `python benchmarks/faults.py`; do not edit. Two ranks prune a small CNN on "
        "digits by Taylor scores to half of its multiply-accumulates and recover it for four "
        "epochs of six steps, with a checkpoint every two steps. One of them is ended by SIGKILL "
        "at a moment drawn at random within the stage named, by the time it spends there in an "
        "undisturbed run. *By itself*: torchrun's agent starts the ranks again (`processes: "
        "{restarts: 1}`). *Typed again*: the command ends with code 1 and is typed once more. "
        "*Started again*: the ranks are started without torchrun, and again when they have ended. "
        "*Same* means that plans are equal byte by byte, weights bit by bit, and the losses of "
        "all epochs in every digit."
    )
    yield ""
    yield (
        f"{about['cpu']}, {about['threads']} thread a rank, Python {about['python']}, torch "
        f"{about['torch']}, commit {about['commit']}, {about['date']}, seed {about['seed']}."
    )
    yield ""
    yield f"**{same} of {len(lines)} runs ended with the same plan, weights and losses.**"
    yield ""
    yield "| | sharing | stage | rank killed | after, s of the stage | went on | ends |"
    yield "|---|---|---|---|---|---|---|"
    for line in lines:
        blow = line["blow"]
        word = "typed" if line["typed"] else "started"
        times = len(line["codes"]) - 1
        how = f"{word} again" + (f", {times} times" if times > 1 else "")
        how = "by itself" if line["codes"] == [0] else how
        ends = "same" if not line["differ"] else ", ".join(line["differ"][:3])
        yield (
            f"| {line['number'] + 1} | {line['parallel']} | {blow['stage']} | {blow['rank']} | "
            f"{blow['after_s']:.3f} | {how} | {ends} |"
        )
    said = next((line["said"] for line in lines if line["said"]), "")
    if said:
        yield ""
        yield f"What the command says when it ends for a killed rank:\n\n> {said}"
    yield from other_faults(others)


def other_faults(others: Mapping[str, Any]) -> Iterator[str]:
    """What was said of each, and how it ended."""
    if others:
        yield "\n## Other faults\n"
    if "cut_off" in others:
        cut = others["cut_off"]
        yield (
            "- **A host cut off.** Two hosts (network namespaces) of two ranks under torchrun's "
            "rendezvous, `nnodes 1:2`, time-out 8 s; the link of one goes down in the recovery. "
            f"One rank speaks, the two ranks that remain go on from the last checkpoint and end "
            f"{cut['seconds']:.0f} s later with code {cut['code']}, after all "
            f"{len(cut['epochs'])} epochs.\n\n  > {cut['said'][0]}\n"
        )
    if "hung" in others:
        yield (
            f"- **A rank stopped** (SIGSTOP) in the recovery, time-out 8 s; typed again it ends "
            f"{ends(others['hung'])}.\n\n  > {others['hung']['said']}\n"
        )
    for name, words in (
        ("damaged", "**The newest checkpoint damaged** after a kill"),
        ("full_disk", "**The disk full** while a checkpoint is written"),
    ):
        for kind, found in others.get(name, {}).items():
            yield f"- {words}, {kind}: it ends {ends(found)}.\n\n  > {plain(found['said'])}\n"


def ends(found: Mapping[str, Any]) -> str:
    """How a run ended."""
    return "with the same plan, weights and losses" if not found["differ"] else "otherwise"


def plain(said: str) -> str:
    """Without the folder that the benchmark made."""
    return re.sub(r"/\S*/(?=(damaged|small)-)", "", said)


if __name__ == "__main__":
    main()
