"""Ranks and crews on a Ray cluster: they meet, they are replaced, and mistakes get one message."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secateur.core.errors import EngineError
from secateur.engines import ray_cluster
from secateur.engines.crews.ray import REPLACED, share
from secateur.engines.launchers import KilledError
from secateur.engines.launchers.ray import launch
from secateur.engines.ray_cluster import Place, cluster, placed

RANK = """
import json, os, signal, sys
from pathlib import Path
import torch
from secateur.engines.joining import joined, ranks_of

folder, struck = Path(sys.argv[1]), sys.argv[2]
with joined(ranks_of(os.environ), timeout_s=50) as world:
    total = torch.tensor([world.rank + 1.0])
    world.sum_([total], what="a sum")
    if struck == str(world.rank) and not (folder / "struck").exists():
        (folder / "struck").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    world.wait(what="the end")
    print("a line of", world.rank, file=sys.stderr)
    body = [world.size, total.item(), os.environ["LOCAL_RANK"], torch.get_num_threads()]
    (folder / f"rank-{world.rank}").write_text(json.dumps(body))
"""
SHARER = """
import os, signal, sys
from pathlib import Path

folder = Path(sys.argv[1])
taken = folder / f"taken-{os.getpid()}"
taken.touch()
if sys.argv[2] == "always" or len(list(folder.glob("taken-*"))) == 1:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_without_ray_the_message_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install 'secateur\[ray\]'"):
        launch("this", nproc=2)
    with pytest.raises(EngineError, match=r"pip install 'secateur\[ray\]'"):
        share("this", workers=2)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("ray://10.0.0.1:10001", "ray job submit"),
        ("10.0.0.1:redis", "is no HOST:PORT"),
        ("127.0.0.1:{closed}", "without --address one is started here"),
    ],
)
def test_a_cluster_that_is_not_there(
    address: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(ray_cluster, "REACH_S", 1.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        address = address.format(closed=taken.getsockname()[1])
        with pytest.raises(EngineError, match=why) as caught, cluster(address, workers=1):
            pass
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def two_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster with two processors, on which every slow test of this file runs."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        try:
            ray.init(
                address="local",
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=int(100e6),
                log_to_driver=False,
                _temp_dir=str(tmp_path_factory.mktemp("r")),
            )
            yield ray
        finally:
            ray.shutdown()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a rank and a sharer in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_rank.py").write_text(RANK, encoding="utf-8")
    (tmp_path / "a_sharer.py").write_text(SHARER, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
class TestOnACluster:
    """One after another on two places."""

    def test_ranks_meet_and_their_lines_come_here(
        self, two_places: Any, programs: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        launch("a_rank", str(programs), "none", nproc=2)
        ranks = [json.loads((programs / f"rank-{rank}").read_text()) for rank in range(2)]
        assert ranks == [[2, 3.0, "0", 1], [2, 3.0, "1", 1]]
        assert set(capsys.readouterr().err.splitlines()) >= {"a line of 0", "a line of 1"}

    def test_a_killed_rank_takes_all_along_and_all_begin_again(
        self, two_places: Any, programs: Path
    ) -> None:
        with pytest.raises(KilledError, match=r"rank 1 of 2 was killed.*restarts: 3"):
            launch("a_rank", str(programs), "1", nproc=2)
        assert (programs / "struck").exists()
        (programs / "struck").unlink()
        with pytest.warns(UserWarning, match=r"rank 1 of 2 was killed.*restart 1 of 1"):
            launch("a_rank", str(programs), "1", nproc=2, restarts=1)
        assert (programs / "struck").exists() and (programs / "rank-0").exists()

    def test_a_killed_sharer_is_replaced_alone(self, two_places: Any, programs: Path) -> None:
        with pytest.warns(UserWarning, match="was killed.*another one takes its place"):
            share("a_sharer", str(programs), "once", workers=2)
        assert len(list(programs.glob("taken-*"))) == 3

    def test_too_many_lost_are_an_error(self, two_places: Any, programs: Path) -> None:
        with pytest.raises(EngineError, match=f"{REPLACED} were lost before it"):
            share("a_sharer", str(programs), "always", workers=1)

    def test_no_places(self, two_places: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ray_cluster, "PLACE_S", 1.0)
        with pytest.raises(EngineError, match=r"no places for 3 workers of 1 CPU each.*2 CPU"):
            placed(3, Place(threads=1, gpu=False), least=3)
        assert len(placed(3, Place(threads=1, gpu=False), least=1).bundle_specs) == 2
