"""A Ray cluster: one that runs already, or one on this machine; and places on it for workers.

Ray itself is imported where it is used, so that nothing else needs it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from secateur.core.errors import EngineError

REACH_S = 10.0
"""How long a cluster has to answer."""
PLACE_S = 60.0
"""How long it has to find places for all workers."""
LOCAL = "local"
SHARED_BYTES = 100_000_000
"""Of Ray's own store of objects, which holds nothing of ours."""


@dataclass(frozen=True, slots=True)
class Place:
    """What one worker needs. threads: of its own, as many processors are kept for it."""

    threads: int
    gpu: bool

    @property
    def resources(self) -> dict[str, float]:
        """As Ray names them."""
        return {"CPU": self.threads, **({"GPU": 1} if self.gpu else {})}


@contextmanager
def cluster(address: str | None, *, workers: int) -> Iterator[int]:
    """Connected to a cluster inside the block: that at `address`, that which RAY_ADDRESS names, or
    one of this machine alone that ends with the block. Gives the threads that each worker may have.

    Raises: EngineError without Ray, and when the cluster does not answer.
    """
    ray = _installed()
    if ray.is_initialized():
        yield _threads(1)
        return
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    threads = _threads(1)
    if address == LOCAL:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        cores = len(os.sched_getaffinity(0))
        threads = _threads(max(1, cores // workers))
        quiet |= {"num_cpus": max(cores, workers * threads), "include_dashboard": False}
        quiet |= {"object_store_memory": SHARED_BYTES}
    else:
        _check_answers(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise EngineError(_unreachable(address, " ".join(str(error).split()))) from error
    try:
        yield threads
    finally:
        ray.shutdown()


def _threads(otherwise: int) -> int:
    """Of each worker, as OMP_NUM_THREADS says."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(given)) if given.isdecimal() else otherwise


def placed(count: int, place: Place, *, least: int) -> Any:
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    for wanted in range(count, least - 1, -1):
        group = placement_group([place.resources] * wanted, strategy="PACK")
        if group.wait(timeout_seconds=PLACE_S if wanted == count else 1.0):
            return group
        remove_placement_group(group)
    free: Mapping[str, float] = ray.available_resources()
    there = ", ".join(f"{free.get(name, 0):g} {name}" for name in place.resources)
    each = ", ".join(f"{amount:g} {name}" for name, amount in place.resources.items())
    raise EngineError(
        f"the Ray cluster found no places for {count} workers of {each} each within {PLACE_S:g} s; "
        f"free now: {there}. Ask for fewer of them, or add machines: `ray start --address=...`"
    )


def _installed() -> Any:
    try:
        import ray
    except ImportError:
        raise EngineError("the engine ray needs Ray: pip install 'secateur[ray]'") from None
    return ray


def _check_answers(address: str) -> None:
    """Ray itself waits for minutes where nobody listens. Raises: EngineError."""
    if "://" in address:
        raise EngineError(
            f"{address} is reached by a client outside of the cluster, and workers could not "
            "reach back; type the command on one of its machines with --address HOST:PORT, or "
            "hand it over by `ray job submit --address ... -- secateur ...`"
        )
    host, colon, port = address.rpartition(":")
    if not colon:
        return  # "auto", which Ray looks up on this machine
    if not port.isdecimal():
        raise EngineError(f"address {address!r} is no HOST:PORT, for example 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except OSError as error:
        why = f"nobody answered within {REACH_S:g} s" if isinstance(error, TimeoutError) else error
        raise EngineError(_unreachable(address, str(why))) from error


def _unreachable(address: str, why: str) -> str:
    if address == LOCAL:
        return f"Ray could not start on this machine: {why}"
    return (
        f"no Ray cluster was reached at {address}: {why}. See that it runs (`ray status`, `ray "
        "start --head` on its first machine) and that this machine reaches it; without --address "
        "one is started here"
    )
