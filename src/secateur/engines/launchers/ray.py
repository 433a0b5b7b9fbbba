"""Ranks as workers of a Ray cluster, on this machine or on several.

They meet in a store that this process holds, so it outlives each of them. One that is killed takes
the others with it, as under torchrun: all are started again from the last checkpoint, and if the
cluster has lost a machine meanwhile, as many as there are places for.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from dataclasses import replace

from secateur.core.errors import EngineError
from secateur.engines.launchers import KilledError
from secateur.engines.ray_cluster import Place, cluster
from secateur.engines.ray_crew import Crew, Ended, address_of, crew
from secateur.engines.ray_worker import Call


def launch(
    module: str,
    *arguments: str,
    nproc: int,
    restarts: int = 0,
    gpu: bool = False,
    address: str | None = None,
) -> None:
    """Run ``python -m module arguments`` in `nproc` processes until all have ended with code 0.

    address: of a cluster that runs already, None for one on this machine alone.
    Raises: EngineError that says how they ended.
    """
    call = Call(module, arguments, os.getcwd())
    with cluster(address, workers=nproc) as threads:
        place = Place(threads, gpu)
        lost = _run(call, nproc, place, least=nproc)
        for number in range(restarts):
            if lost is None:
                break
            again = f"restart {number + 1} of {restarts} from the last checkpoint"
            warnings.warn(f"rank {lost.index} of {nproc} {lost.how}; {again}", stacklevel=2)
            lost = _run(call, nproc, place, least=1)
    if lost is not None:
        kind = EngineError if lost.killed is None else KilledError
        raise kind(_how_it_ended(lost, nproc, restarts))


def _run(call: Call, nproc: int, place: Place, *, least: int) -> Ended | None:
    """The rank that was lost first, None where all have ended well."""
    with crew(nproc, place, least=least) as hired:
        for rank, environment in enumerate(_environments(hired)):
            hired.start_(rank, replace(call, environment=environment))
        while hired.running:
            lost = [ended for ended in hired.ended_() if ended.lost]
            if lost:
                lost += [ended for ended in hired.gather_() if ended.lost]
                return min(lost, key=lambda ended: (ended.killed is None, ended.index))
    return None


def _environments(hired: Crew) -> list[dict[str, str]]:
    """What tells each rank who it is, in the words of torchrun."""
    hosts = hired.hosts()
    host, port = address_of(hired.store)
    seen: Counter[str] = Counter()
    environments = []
    for rank, machine in enumerate(hosts):
        environments.append(
            {
                "RANK": str(rank),
                "WORLD_SIZE": str(len(hosts)),
                "LOCAL_RANK": str(seen[machine]),
                "MASTER_ADDR": host,
                "MASTER_PORT": str(port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",
                "TORCHELASTIC_RESTART_COUNT": "0",
            }
        )
        seen[machine] += 1
    return environments


def _how_it_ended(lost: Ended, nproc: int, restarts: int) -> str:
    again = f", {restarts} restarts are used up" if restarts else ""
    more = (
        "" if restarts else "; with `processes: {restarts: 3}` in the recipe it does so by itself"
    )
    return (
        f"rank {lost.index} of {nproc} {lost.how}{again}. What is finished is kept: the same "
        f"command goes on from the last checkpoint, with as many processes or fewer{more}"
    )
