"""Real processes: tensor parallelism alone, inside DDP and FSDP2, and cuts of FSDP2's shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rank_programs import seen_by_ranks

PROGRAM = Path(__file__).parent / "program.py"
EQUAL = 1e-12


def _run(folder: Path, ranks: int) -> list[dict[str, Any]]:
    """What each rank of the program saw."""
    return seen_by_ranks(PROGRAM, folder, ranks, timeout_s=240)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return _run(tmp_path_factory.mktemp("two"), 2)


@pytest.mark.parametrize("kind", ["momentum", "adamw"])
def test_a_cut_of_shards_is_the_cut_of_the_whole(two: list[dict[str, Any]], kind: str) -> None:
    for rank, found in enumerate(saw[kind] for saw in two):
        assert found["units"] and found["moved"] > 0
        assert max(found["losses"]) < EQUAL
        assert found["weights"] < EQUAL and found["state"] < EQUAL
        assert found["freed"] == 0, f"rank {rank} still holds what was cut"
    for one, other in zip(two[0][kind]["rows"], two[1][kind]["rows"], strict=True):
        assert 0 <= one - other <= 1


def check_recovery(saw: dict[str, Any]) -> None:
    apart = {case: far for case, far in saw["recovery"].items() if " to " in case}
    assert all(far < EQUAL for far in apart.values()), apart


def test_recovery_of_a_shared_out_model_is_that_of_one_process(two: list[dict[str, Any]]) -> None:
    """Clipped, masked, averaged, and gone on with by another kind than it was broken off under."""
    for saw in two:
        check_recovery(saw)
        assert len(saw["recovery"]) == 1 + (3 + 2) + 2


def test_a_rank_holds_its_part_of_a_masked_model(two: list[dict[str, Any]]) -> None:
    for saw in two:
        assert saw["recovery"]["masked held"] == saw["recovery"]["plain held"]
    first, second = (saw["recovery"]["masked held"] for saw in two)
    assert first > second > 0  # of widths like 13 the first rank has more


def test_dropout_is_each_ranks_own_within_and_the_same_outside(two: list[dict[str, Any]]) -> None:
    first, second = (saw["dropped"] for saw in two)
    assert first["losses"] == second["losses"]
    assert first["same"] and first["same"] == second["same"]
    assert first["mask"][: len(second["mask"])] != second["mask"]


@pytest.mark.slow
def test_a_mesh_of_data_and_tensor_parallel_ranks(tmp_path: Path) -> None:
    for saw in _run(tmp_path, 4):
        check_recovery(saw)
        assert len(saw["recovery"]) == 1 + (4 * 4 - 1) + 2
        assert saw["momentum"]["weights"] < EQUAL and saw["momentum"]["state"] < EQUAL
