"""Joining: a process that torchrun, SLURM or `launchers` started becomes a rank of one world.

What started it says who it is in environment variables. The processes meet in a store, make one
group (gloo on the CPU, NCCL beside it where there are GPUs), and part when the block ends.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from secateur.core.errors import EngineError
from secateur.engines.failures import one_speaks
from secateur.engines.process_group import ProcessGroup
from secateur.engines.waiting import Watch

PORTS = (20_000, 20_000)
"""The first port of SLURM jobs, and how many there are: each job takes one by its number."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which process this is: rank of size, and local among those of its machine."""

    rank: int
    size: int
    local: int


def ranks_of(environment: Mapping[str, str]) -> Ranks | None:
    """Who this process is, None when it was started alone.

    >>> ranks_of({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"})
    Ranks(rank=1, size=4, local=1)
    >>> ranks_of({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}) is None
    True
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        return Ranks(rank, size, int(environment.get("LOCAL_RANK", rank)))
    if int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        rank, size = int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"])
        return Ranks(rank, size, int(environment.get("SLURM_LOCALID", "0")))
    return None


@contextmanager
def joined(ranks: Ranks, *, timeout_s: float, gpu: bool = False) -> Iterator[ProcessGroup]:
    """The world of all ranks inside the block.

    timeout_s: how long one rank waits for another before it is an error. gpu: whether tensors on
    GPUs are sent too; this process then computes on the GPU of its local rank.
    Raises: EngineError when the ranks do not find each other, or when one is lost.
    """
    if gpu:
        torch.cuda.set_device(ranks.local % max(1, torch.cuda.device_count()))
    limit = timedelta(seconds=timeout_s)
    try:
        store = next(iter(rendezvous(_address(os.environ, ranks), timeout=limit)))[0]
        # ranks that are started again may meet in the same store, where the old ones' words stand
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        own, torchs = (PrefixStore(f"{name}/{attempt}", store) for name in ("secateur", "group"))
        backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
        dist.init_process_group(
            backend, store=torchs, rank=ranks.rank, world_size=ranks.size, timeout=limit
        )
    except RuntimeError as error:
        raise EngineError(
            f"rank {ranks.rank} did not find the other {ranks.size - 1} ranks within "
            f"{timeout_s:g} s: {error}. See that every rank was started, and that MASTER_ADDR and "
            "MASTER_PORT name a place that all of them reach"
        ) from error
    watch = Watch(own, ranks.rank, ranks.size, patience_s=timeout_s)
    watch.start_()
    try:
        with one_speaks(watch):
            yield ProcessGroup(watch=watch)
    finally:
        watch.stop_()
        dist.destroy_process_group()


def _address(environment: Mapping[str, str], ranks: Ranks) -> str:
    """Where the ranks meet, as torch writes it."""
    if "MASTER_ADDR" in environment:
        return f"env://?rank={ranks.rank}&world_size={ranks.size}"
    if "SLURM_JOB_ID" not in environment:
        raise EngineError(
            "RANK and WORLD_SIZE are set and MASTER_ADDR is not; start the ranks by torchrun, or "
            "leave the variables out and let --nproc start them"
        )
    host = first_host(environment["SLURM_JOB_NODELIST"])
    port = PORTS[0] + int(environment["SLURM_JOB_ID"]) % PORTS[1]
    return f"tcp://{host}:{port}?rank={ranks.rank}&world_size={ranks.size}"


def first_host(nodes: str) -> str:
    """The first of SLURM's short list of hosts.

    >>> first_host("gpu[07-09,12],login"), first_host("a1,a2")
    ('gpu07', 'a1')
    """
    name, bracket, rest = re.split(r",(?![^[]*\])", nodes)[0].partition("[")
    return name + re.split(r"[-,\]]", rest)[0] if bracket else name
