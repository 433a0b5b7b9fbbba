"""Processes that share a work out among themselves, as workers of a Ray cluster.

They need not meet: what is to be done and what is done lies in a folder that all of them see. One
that is killed is replaced alone, the others go on.
"""

from __future__ import annotations

import os
import warnings

from secateur.core.errors import EngineError
from secateur.engines.ray_cluster import Place, cluster
from secateur.engines.ray_crew import Ended, crew
from secateur.engines.ray_worker import Call

REPLACED = 8
"""So many workers may be lost before it is an error."""


def share(
    module: str, *arguments: str, workers: int, gpu: bool = False, address: str | None = None
) -> None:
    """Run ``python -m module arguments`` in so many processes until each has ended with code 0.

    address: of a cluster that runs already, None for one on this machine alone.
    Raises: EngineError when too many were lost.
    """
    call, lost = Call(module, arguments, os.getcwd()), list[Ended]()
    with (
        cluster(address, workers=workers) as threads,
        crew(workers, Place(threads, gpu)) as hired,
    ):
        hired.hosts()  # what no worker can do is told now, and not taken for a loss
        for index in range(workers):
            hired.start_(index, call)
        while hired.running:
            for ended in (each for each in hired.ended_() if each.lost):
                lost.append(ended)
                if len(lost) > REPLACED:
                    raise EngineError(_how_it_ended(ended, workers))
                another = "another one takes its place and does again what it was at"
                warnings.warn(f"worker {ended.index} {ended.how}; {another}", stacklevel=2)
                hired.start_(ended.index, call)


def _how_it_ended(ended: Ended, workers: int) -> str:
    return (
        f"worker {ended.index} of {workers} {ended.how}, and {REPLACED} were lost before it. What "
        "is finished is kept: the same command goes on from there"
    )
