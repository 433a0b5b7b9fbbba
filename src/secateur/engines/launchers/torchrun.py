"""Processes on this machine, started and watched by the elastic agent that torchrun has."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from secateur.core.errors import EngineError
from secateur.engines.launchers import KilledError

THREADS = "OMP_NUM_THREADS"
GRACE_S = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"


def launch(
    module: str,
    *arguments: str,
    nproc: int,
    restarts: int = 0,
    gpu: bool = False,
    address: str | None = None,
) -> None:
    """Run ``python -m module arguments`` in `nproc` processes until all have ended with code 0.

    gpu: all see every GPU, and each takes that of its own number. address: there is none.
    Raises: EngineError that says how they ended; KeyboardInterrupt when told to stop.
    """
    if address is not None:
        raise EngineError(f"torchrun starts processes on this machine, not at {address}")
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=nproc,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
        local_addr="localhost",
    )
    try:
        with _surroundings(nproc):
            elastic_launch(config, sys.executable)("-m", module, *arguments)
    except ChildFailedError as error:
        killed = error.get_first_failure()[1].exitcode < 0
        kind = KilledError if killed else EngineError
        raise kind(_how_they_ended(error, nproc, restarts)) from error
    except SignalException as error:
        raise KeyboardInterrupt from error


def _how_they_ended(error: ChildFailedError, nproc: int, restarts: int) -> str:
    """The first that ended: the others were ended for it."""
    rank, failure = error.get_first_failure()
    how = f"ended with code {failure.exitcode}"
    if failure.exitcode < 0:
        how = f"was ended by {signal.Signals(-failure.exitcode).name}"
        if -failure.exitcode == signal.SIGKILL:
            how += ", by somebody or by the system for want of memory"
    again = f", {restarts} restarts are used up" if restarts else ""
    more = (
        "" if restarts else "; with `processes: {restarts: 3}` in the recipe it does so by itself"
    )
    return (
        f"rank {rank} of {nproc} {how}{again}. What is finished is kept: the same command goes on "
        f"from the last checkpoint, with as many processes or fewer{more}"
    )


@contextmanager
def _surroundings(nproc: int) -> Iterator[None]:
    """The cores shared out among the processes, and no logs of the agent beside our message."""
    logger = logging.getLogger("torch.distributed.elastic")
    level, before = logger.level, dict(os.environ)
    logger.setLevel(logging.CRITICAL)
    os.environ.setdefault(THREADS, str(max(1, len(os.sched_getaffinity(0)) // nproc)))
    os.environ.setdefault(GRACE_S, "5")
    try:
        yield
    finally:
        logger.setLevel(level)
        for name in (THREADS, GRACE_S):
            if name not in before:
                del os.environ[name]
