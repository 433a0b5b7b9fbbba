"""Checkpoints of shared-out models hold the whole tensors, whoever reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from comparing import Case, case_of
from networks import SMALL
from safetensors.torch import save_file
from threads import Meeting, ThreadWorld
from torch import Tensor

import secateur as sc
from secateur.core.copies import copied
from secateur.core.errors import StorageError
from secateur.core.world import ALONE
from secateur.cut.apply import cut_
from secateur.engines.shard_files import read_whole
from secateur.engines.tensor_parallel.files import PartFiles
from secateur.engines.tensor_parallel.layout import Layout
from secateur.engines.tensor_parallel.masked import put_masks_, take_masks_


def shared(name: str, size: int) -> Case:
    """The same model for any number of ranks."""
    torch.manual_seed(0)
    return case_of(SMALL[name](), size=size)


def held(case: Case, rank: int) -> tuple[PartFiles, dict[str, Tensor]]:
    """A rank's files, and what it has to write."""
    local = copied(case.model)
    sc.mask_(local, sparsity=0.5)
    masks = take_masks_(local)
    cut_(local, case.plan.rank_plan(rank))
    put_masks_(local, masks, case.plan, rank=rank)
    world = ThreadWorld(rank, Meeting(case.plan.size))
    files = PartFiles(world, world, ALONE, Layout.of_model(local, case.plan))
    trained = enumerate(local.parameters())
    moments = {f"optimizer/state/{k}/exp_avg": p.detach().square() for k, p in trained}
    steps = {f"optimizer/state/{k}/step": torch.tensor(3.0) for k in range(2)}
    state = {f"model/{name}": tensor for name, tensor in local.state_dict().items()}
    return files, {**state, **moments, **steps, "random/now/cpu": torch.arange(5)}


def write(case: Case, folder: Path) -> None:
    folder.mkdir()
    for rank in range(case.plan.size):
        files, tensors = held(case, rank)
        for part in files.parts(tensors):
            own = {name: tensor.clone() for name, tensor in part.tensors.items()}
            save_file(own, folder / part.name, dict(part.header))


def check_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("name", ["decoder", "residual"])
def test_any_number_of_ranks_reads_what_others_wrote(name: str, tmp_path: Path) -> None:
    alone, two, three = (shared(name, size) for size in (1, 2, 3))
    _, whole = held(alone, 0)
    write(two, tmp_path / "two")
    check_same(read_whole(tmp_path / "two"), whole)
    for rank in range(3):
        files, expected = held(three, rank)
        check_same(files.read(tmp_path / "two", ()), expected)
        for path, tensor in whole.items():
            assert torch.equal(files.lay_out(path, tensor, of_parameter=False), expected[path])


def test_units_in_several_runs_are_several_files(tmp_path: Path) -> None:
    """A rank has a run of the gate's half of one projection, and one of the other half."""
    two = shared("decoder", 2)
    write(two, tmp_path / "two")
    written = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert written == [f"rank-0000{r}-0{k}.safetensors" for r in (0, 1) for k in (0, 1)]
    (tmp_path / "two" / written[1]).unlink()
    files, _ = held(two, 0)
    with pytest.raises(StorageError, match="are missing"):
        files.read(tmp_path / "two", ())
