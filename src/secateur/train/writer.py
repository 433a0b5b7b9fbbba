"""Checkpoints written beside the training: one at a time, in a thread, agreed on by the main one.

A thread of each rank writes that rank's part and never meets the other ranks: two threads that sent
over one process group could do so in another order on every rank, and all would wait for ever. (A
group of its own would need a second set of connections, and its thread would still compete with the
training's.) Whether all parts are there is found out by the main threads instead, by one sum of two
integers after each step for as long as a write is under way; so all ranks learn at the same step
that it is whole, or that it failed. Files that show it would also do on a local disk, but a network
file system may show them to another host only many seconds later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, runtime_checkable

import torch

from secateur.core.errors import SecateurError, StorageError
from secateur.core.world import World

PATIENCE_S = 5.0
"""How long rank 0, when the training ends by an error, waits for the parts of the others."""
WHAT = "the writing of a checkpoint"


@runtime_checkable
class Write(Protocol):
    """A checkpoint to be written. No method meets the other ranks, so each may run in a thread."""

    def write(self) -> None:
        """This rank's part. Raises: StorageError."""

    def publish(self) -> None:
        """When the parts of all ranks are there: make the checkpoint visible, on rank 0."""

    def is_whole(self) -> bool:
        """Whether the parts of all ranks are there, as far as can be seen from here."""

    def drop(self) -> None:
        """Leave nothing of it, when no rank writes any more."""


@dataclass(slots=True)
class Writer:
    """All ranks call the same methods at the same steps. beside: write in a thread, and let the
    training go on; otherwise `begin_` returns when the checkpoint is there."""

    world: World
    beside: bool
    _write: Write | None = field(default=None, repr=False)
    _work: Future[None] = field(default_factory=Future, repr=False)
    _published: bool = False

    def begin_(self, write: Write) -> None:
        """Write a checkpoint, when the one before it is there. Raises: StorageError."""
        self.finish_()
        self._write, self._published = write, False
        self._start_(write.write)
        if not self.beside:
            self.finish_()

    def look_(self, *, wait: bool = False) -> None:
        """See to a write that is under way, after every step. wait: until this rank has done what
        it is at.

        Raises: StorageError on every rank when one of them could not write its part; nothing is
        left of the checkpoint then, and those before it are untouched.
        """
        if self._write is None:
            return
        done = wait or self._work.done()
        failed = done and self._work.exception() is not None
        found = torch.tensor([done, failed], dtype=torch.int64)
        self.world.sum_([found], what=WHAT)
        ranks_done, ranks_failed = found.tolist()
        if ranks_failed:
            self._fail_(self._write)
        if ranks_done < self.world.size:
            return
        if self._published:
            self._write = None
        else:
            self._published = True
            self._start_(self._write.publish)

    def finish_(self) -> None:
        """Wait until the write under way is done. Raises: StorageError."""
        while self._write is not None:
            self.look_(wait=True)

    def end_(self, error: BaseException) -> None:
        """When `error` ends the training: finish the write under way if that can be done without
        asking the other ranks, who may be gone, and leave nothing of it if not."""
        if self._write is None:
            return
        write, self._write = self._write, None
        failure = self._work.exception()
        if failure is None and not self._published:
            failure = _completed(write) if self.world.rank == 0 else None
        if failure is not None:
            write.drop()
            error.add_note(f"the checkpoint that was being written is not there: {failure}")

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish_()
        else:
            self.end_(error)

    def _start_(self, work: Callable[[], None]) -> None:
        self._work = Future()
        if not self.beside:
            _done(work, self._work)
            return
        # not a daemon: a process that ends in the meantime waits for its last checkpoint
        name = "secateur-checkpoint"
        threading.Thread(target=_done, args=(work, self._work), name=name).start()

    def _fail_(self, write: Write) -> None:
        """Raise on every rank what the lowest rank that failed says."""
        self._write, own = None, self._work.exception()
        said = self.world.gather(_words(own), what="why a checkpoint was not written")
        write.drop()
        first = next(rank for rank, words in enumerate(said) if words)
        if own is not None and first == self.world.rank:
            raise own
        raise StorageError(said[first])


def _done(work: Callable[[], None], future: Future[None]) -> None:
    try:
        work()
    except BaseException as error:
        future.set_exception(error)
        if not isinstance(error, Exception):  # Ctrl-C, where the work is not beside the training
            raise
    else:
        future.set_result(None)


def _completed(write: Write) -> Exception | None:
    """Publish a write if the other ranks' parts come soon; why it could not be done."""
    end = time.monotonic() + PATIENCE_S
    try:
        while not write.is_whole():
            if time.monotonic() > end:
                return StorageError("the other ranks' parts of it did not come")
            time.sleep(0.02)
        write.publish()
    except (OSError, SecateurError) as error:
        return error
    return None


def _words(error: BaseException | None) -> str:
    if error is None:
        return ""
    return str(error) if isinstance(error, SecateurError) else f"{type(error).__name__}: {error}"
