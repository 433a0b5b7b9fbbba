"""Real FSDP2 and tensor parallelism on two and four processes: see `sharded_program`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rank_programs import seen_by_ranks

PROGRAM = Path(__file__).parent / "sharded_program.py"
WAYS = ("global", "layer", "by name", "threshold", "squares")


def found_by(folder: Path, ranks: int) -> list[dict[str, Any]]:
    """What each rank of the program saw."""
    return seen_by_ranks(PROGRAM, folder, ranks, timeout_s=120)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return found_by(tmp_path_factory.mktemp("ranks"), 2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sharding", ["fsdp", "tensor_parallel", "plain"])
def test_masks_are_those_of_one_process(two: list[dict[str, Any]], sharding: str, way: str) -> None:
    assert [found[sharding][way] for found in two] == [True, True]


def test_training_a_masked_fsdp_model_is_that_of_one_process(two: list[dict[str, Any]]) -> None:
    for found in two:
        ours = found["trained"]
        assert ours["first"] and ours["second"] and ours["same_zeros"]
        assert ours["gap"] < 1e-5 and max(ours["losses"]) < 1e-5
        assert ours["gradients_of_masked"] == [0.0] * 4  # they would count in a gradient's norm
        assert ours["zeros_when_freed"] < 0.1


def test_evidence_that_is_sharded_as_the_weights(two: list[dict[str, Any]]) -> None:
    assert all(found["evidence"] for found in two)


def test_patterns_on_shards(two: list[dict[str, Any]]) -> None:
    for found in two:
        split = found["patterns"].pop("block:4x1 0")
        assert "multiples of 4 along dimension 0, and 2 ranks have others" in split
        assert all(value is True for value in found["patterns"].values()), found["patterns"]


def test_what_goes_wrong_is_said_on_every_rank(two: list[dict[str, Any]]) -> None:
    assert two[0]["refused"] == two[1]["refused"]
    nan, asked, lamp, snip, drifted = two[0]["refused"]
    assert nan.startswith("ScoreError: 2.weight holds NaN")
    assert "ranks 1 were asked for other masks than rank 0" in asked
    assert "criterion 'lamp' cannot score a shard" in lamp
    assert "criterion 'snip' looks at the mean gradient" in snip
    assert "copies of the model have drifted apart" in drifted


def test_gradients_of_masked_weights_are_not_sent(two: list[dict[str, Any]]) -> None:
    for found in two:
        ours = found["kept_gradients"]
        assert ours["same"]
        assert len(ours["sizes"]) == 6 and None not in ours["sizes"]
        assert ours["sizes"][0] == ours["sizes"][2] < 0.5 * ours["total"]
        assert ours["sizes"][-1] < 0.6 * ours["sizes"][0]  # the masks grew on the way


@pytest.mark.slow
def test_four_ranks_in_two_dimensions(tmp_path: Path) -> None:
    for found in found_by(tmp_path, 4):
        assert all(all(ways.values()) for ways in found.values()), found
        assert set(found) == {"fsdp", "tensor_parallel", "both", "copied", "hybrid"}
