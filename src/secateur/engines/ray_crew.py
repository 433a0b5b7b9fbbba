"""Workers in their places on a Ray cluster, watched until they end.

What they print comes through the store in which they also meet; the starting process holds it, so
that it outlives every one of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from secateur.core.errors import EngineError
from secateur.engines.ray_cluster import Place, placed
from secateur.engines.ray_worker import Call, Worker, line_key

TICK_S = 0.1
"""Between two looks at the workers."""
GRACE_S = 3.0
"""When one is lost, so long the others may say what they know of it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker ended. killed: from outside, None where it ended by itself with `code`."""

    index: int
    code: int = 0
    killed: str | None = None

    @property
    def lost(self) -> bool:
        """Whether its work was not done."""
        return self.killed is not None or self.code != 0

    @property
    def how(self) -> str:
        """In words."""
        return f"ended with code {self.code}" if self.killed is None else self.killed


@dataclass(slots=True)
class Crew:
    """Workers in their places. All are ended when the block of `crew` is left."""

    store: TCPStore
    place: Place
    group: Any
    _begun: int = 0
    _hired: dict[int, Any] = field(default_factory=dict)
    _running: dict[Any, tuple[int, Any]] = field(default_factory=dict)
    _read: dict[int, int] = field(default_factory=dict)

    def hosts(self) -> list[str]:
        """The machine of every place, by its identity in the cluster; every place has a worker
        then. Raises: EngineError where workers cannot begin."""
        import ray
        from ray.exceptions import RayError

        for index in range(len(self.group.bundle_specs)):
            self._hired[index] = self._hire(index)
        try:
            nodes: list[str] = ray.get([actor.node.remote() for actor in self._hired.values()])
        except RayError as error:
            why = " ".join(str(error).split())[-300:]
            raise EngineError(
                f"workers could not begin on the Ray cluster: {why}. See that its machines have "
                "the same versions of secateur, torch and Ray as this one"
            ) from error
        return nodes

    def start_(self, index: int, call: Call) -> None:
        """A worker in the place `index` that makes this call."""
        actor = self._hired.pop(index) if index in self._hired else self._hire(index)
        number = self._begun
        self._begun += 1
        self._read[number] = 0
        reference = actor.run.remote(call, self.place.threads, address_of(self.store), number)
        self._running[reference] = (index, actor)

    def ended_(self) -> list[Ended]:
        """The workers that ended since it was asked last; waits a moment, and prints their lines.

        Raises: EngineError where a worker could not begin.
        """
        import ray

        done, _ = ray.wait(list(self._running), timeout=TICK_S)
        self._print_()
        return [self._how(reference) for reference in done]

    @property
    def running(self) -> int:
        """How many there are."""
        return len(self._running)

    def gather_(self) -> list[Ended]:
        """The workers that end within the grace that is left to them when one is lost."""
        end, ended = time.monotonic() + GRACE_S, list[Ended]()
        while self._running and time.monotonic() < end:
            ended += self.ended_()
        return ended

    def end_(self) -> None:
        """End every worker at once; what they write appears whole or not at all."""
        import ray

        for actor in (*self._hired.values(), *(actor for _, actor in self._running.values())):
            ray.kill(actor)
        self._hired.clear()
        self._running.clear()
        self._print_()

    def _hire(self, index: int) -> Any:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        here = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=index)
        gpus = 1 if self.place.gpu else 0
        actor: Any = ray.remote(Worker)
        return actor.options(
            num_cpus=self.place.threads, num_gpus=gpus, scheduling_strategy=here
        ).remote()

    def _how(self, reference: Any) -> Ended:
        import ray
        from ray.exceptions import RayError, RayTaskError

        index, actor = self._running.pop(reference)
        try:
            code: int = ray.get(reference)
        except RayTaskError as error:
            raise EngineError(f"worker {index} could not begin: {error.cause}") from error
        except RayError:  # its process is gone, or its machine
            return Ended(index, killed="was killed, by somebody or for want of memory")
        ray.kill(actor)
        return Ended(index, code)

    def _print_(self) -> None:
        for number, count in self._read.items():
            while self.store.check([line_key(number, count)]):
                print(self.store.get(line_key(number, count)).decode(), file=sys.stderr, flush=True)
                self.store.delete_key(line_key(number, count))
                count += 1
            self._read[number] = count


@contextmanager
def crew(count: int, place: Place, *, least: int | None = None) -> Iterator[Crew]:
    """Places for so many workers inside the block; for fewer, not below `least`, where the
    cluster has not more. Raises: EngineError."""
    from ray.util.placement_group import remove_placement_group

    group = placed(count, place, least=count if least is None else least)
    store = TCPStore("0.0.0.0", 0, is_master=True, wait_for_workers=False)
    hired = Crew(store, place, group)
    try:
        yield hired
    finally:
        hired.end_()
        remove_placement_group(group)


def address_of(store: TCPStore) -> tuple[str, int]:
    """Where the workers reach it."""
    from ray.util import get_node_ip_address

    return get_node_ip_address(), int(store.port)
