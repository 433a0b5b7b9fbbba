"""A training that two processes share is the training of one: losses, metrics, weights, plans."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import shared_training

from secateur.engines.parallel.none import WHOLE

HERE = Path(__file__).parent
CLOSE = 1e-10
KINDS = ("ddp", "fsdp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks have left what they found."""
    folder = tmp_path_factory.mktemp("shared")
    program = [str(HERE / "shared_training.py"), str(folder)]
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    source = str(HERE.parents[1] / "src")
    done = subprocess.run(
        [sys.executable, *start, *program],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(shared_training.alone()))
    return found


def assert_same(found: dict[str, Any], expected: dict[str, Any], *, first: int = 0) -> None:
    """From step `first` on."""
    losses = [pair for pair in expected["losses"] if pair[0] > first]
    assert [step for step, _ in found["losses"]] == [step for step, _ in losses]
    values = [loss for _, loss in losses]
    assert [loss for _, loss in found["losses"]] == pytest.approx(values, rel=CLOSE)
    assert found["metrics"] == expected["metrics"]
    assert found["weights"] == pytest.approx(expected["weights"], rel=CLOSE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", [*shared_training.STEPS, "masked", "few rows"])
def test_it_is_the_training_of_one_process(
    ranks: list[dict[str, Any]], alone: dict[str, Any], kind: str, case: str
) -> None:
    for rank in ranks:
        assert_same(rank[f"{kind} {case}"], alone[case])


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_goes_on_from_its_checkpoint(
    ranks: list[dict[str, Any]], alone: dict[str, Any], kind: str
) -> None:
    for rank in ranks:
        found = rank[f"{kind} goes on"]
        assert found["resumed"] == 6
        assert_same(found, alone["adamw"], first=6)


@pytest.mark.parametrize("kind", KINDS)
def test_one_process_goes_on_from_its_checkpoint(
    folder: Path, alone: dict[str, Any], kind: str
) -> None:
    settings = shared_training.STEPS["adamw"]
    found = shared_training.train(WHOLE, settings, folder=folder / f"{kind}-alone")
    assert found["resumed"] == 6
    found["losses"] = [list(pair) for pair in found["losses"]]
    assert_same(found, alone["adamw"], first=6)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_written_beside_the_training_change_no_bit_of_it(
    folder: Path, ranks: list[dict[str, Any]], kind: str
) -> None:
    for rank in ranks:
        beside, without = rank[f"{kind} beside"], rank[f"{kind} adamw"]
        assert beside["losses"] == without["losses"] and beside["weights"] == without["weights"]
    left = sorted(path.name for path in (folder / f"{kind}-beside").iterdir())
    assert left == ["checkpoint-00000004", "checkpoint-00000005", "log.jsonl"]


@pytest.mark.parametrize(("kind", "failing"), [("ddp", 0), ("fsdp", 1)])
def test_a_disk_that_is_full_on_one_rank_is_told_by_all_at_the_same_step(
    ranks: list[dict[str, Any]], kind: str, failing: int
) -> None:
    first, second = (rank[f"{kind} full disk"] for rank in ranks)
    assert first == second
    assert "No space left on device" in first["said"]
    assert kind == "ddp" or f"rank {failing} could not write its part" in first["said"]
    assert first["steps"][-1] >= 5 and first["left"] == ["checkpoint-00000001"]


def test_pruning_while_training_cuts_the_same(
    ranks: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    for rank in ranks:
        assert rank["ddp shrunk"]["plan"] == alone["shrunk"]["plan"]
        assert rank["ddp shrunk"]["losses"] == pytest.approx(alone["shrunk"]["losses"], rel=CLOSE)


def test_what_an_objective_learns_is_shared_too(
    ranks: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    """Features are compared relative to the teacher's of the same rows, so not to the last bit."""
    losses, expected = (
        [loss for _, loss in found["losses"]]
        for found in (ranks[0]["ddp followed"], alone["followed"])
    )
    assert losses == pytest.approx(expected, rel=3e-3)
    assert ranks[0]["ddp followed"]["losses"] == ranks[1]["ddp followed"]["losses"]
    assert ranks[0]["ddp followed"]["weights"] == ranks[1]["ddp followed"]["weights"]


def test_what_cannot_go_along_is_refused_with_a_reason(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert "GroupLasso cannot go along" in rank["penalty"] and "ddp" in rank["penalty"]
        assert "the optimizer holds whole parameters" in rank["optimizer"]


def test_a_loss_that_is_not_finite_on_one_rank_ends_all(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["nan"].startswith("DivergedError: the loss became nan")
    assert ranks[0]["nan"] == ranks[1]["nan"]


def test_dropout_is_drawn_anew_by_the_same_seed(
    ranks: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    first, second = ranks[0]["dropout"]
    assert first["losses"] == second["losses"]
    assert first["losses"] != alone["plain"]["losses"]
    assert first["losses"] == ranks[1]["dropout"][0]["losses"]


def test_a_model_trained_together_is_an_ordinary_one_afterwards(
    ranks: list[dict[str, Any]],
) -> None:
    """Each rank gave it other rows, and got other gradients."""
    assert ranks[0]["alone afterwards"] != ranks[1]["alone afterwards"]


def test_without_shared_statistics_they_are_averaged(
    ranks: list[dict[str, Any]], alone: dict[str, Any]
) -> None:
    first, second = (rank["own statistics"] for rank in ranks)
    assert first["mean"] == second["mean"] and first["losses"] == second["losses"]
    assert first["losses"][1:] != alone["plain"]["losses"][1:]
