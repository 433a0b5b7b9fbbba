"""One failure, one voice: when ranks fail, the lowest that failed by an error of its own speaks.

A rank whose partner is gone has no error of its own: it looks whether another rank told of one, and
then ends without a word. Only where nobody did it speaks itself, and says who waits for whom.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from secateur.core.errors import EngineError
from secateur.engines.waiting import Watch

GRACE_S = 2.0
"""How long a rank that failed waits for lower ones to tell of an error of theirs."""
LOST = ("gloo", "nccl", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""Words in the errors of a rank that the others left alone."""


class Hushed(SystemExit):
    """Another rank speaks. again: whether the ranks may be started again, because one was lost."""

    def __init__(self, *, again: bool) -> None:
        super().__init__(1)
        self.again = again


class LostError(EngineError):
    """A rank is gone or does not answer; the ranks that are left raise it."""


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another rank is gone, and nothing of this one."""
    if isinstance(error, LostError | dist.DistError):
        return True
    return type(error) is RuntimeError and any(word in str(error) for word in LOST)


@contextmanager
def one_speaks(watch: Watch) -> Iterator[None]:
    """Let the error of one rank through; the other ranks end by `Hushed`.

    Raises: LostError on the lowest rank that is left where a rank ended without a word.
    """
    try:
        yield
    except KeyboardInterrupt:
        if watch.rank:
            raise Hushed(again=False) from None
        raise
    except Exception as error:
        lost = is_lost(error)
        report = watch.report() if lost and _reachable(watch) else ""
        _tell(watch, "lost" if lost else "failed")
        if not _speaks(watch, "lost" if lost else "failed"):
            again = lost and not _others_failed(watch)
            _linger(watch)
            raise Hushed(again=again) from error
        if not lost:
            raise
        raise LostError(_words(watch, error, report)) from error


def _words(watch: Watch, error: Exception, report: str) -> str:
    first = " ".join(str(error.__cause__ or error).split())
    return (
        f"the {watch.size} ranks could not go on together in {watch.at}: a rank has ended or does "
        f"not answer ({first[:200]}). {report + '. ' if report else ''}"
        "The same command again goes on from the last checkpoint; with `processes: {restarts: 3}` "
        "in the recipe it does so by itself"
    )


def _tell(watch: Watch, kind: str) -> None:
    try:
        watch.store.set(f"{kind}/{watch.rank}", json.dumps(watch.at))
    except RuntimeError:  # the store went with the rank that held it
        return


def _speaks(watch: Watch, kind: str) -> bool:
    """Whether this rank is the one to speak: no lower rank failed so, and where it was left alone,
    no rank failed at all by an error of its own."""
    lower = [f"{kind}/{rank}" for rank in range(watch.rank)]
    others = [f"failed/{rank}" for rank in range(watch.size)] if kind == "lost" else []
    end = time.monotonic() + GRACE_S
    while _reachable(watch):
        there = {key for key in (*lower, *others) if watch.store.check([key])}
        if there:
            return False
        if time.monotonic() > end or not (lower or others):
            return True
        time.sleep(0.05)
    return watch.rank == 0 or kind == "failed"


def _others_failed(watch: Watch) -> bool:
    """Whether any rank has told of an error of its own."""
    told = [f"failed/{rank}" for rank in range(watch.size)]
    return _reachable(watch) and any(watch.store.check([key]) for key in told)


def _linger(watch: Watch) -> None:
    """Stay until the one that speaks has done so: what started the ranks ends them all when the
    first of them ends."""
    time.sleep(GRACE_S + 1 if _reachable(watch) else 0)


def _reachable(watch: Watch) -> bool:
    try:
        watch.store.check(["at/0"])
    except RuntimeError:
        return False
    return True
