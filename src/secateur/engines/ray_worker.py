"""One worker of a Ray cluster: a process of its own that runs a module as ``python -m`` would.

What it prints goes, line by line, into the store that the starting process holds, and so comes out
there and not in Ray's logs. Imports nothing of Ray, so that it is checked and tested without.
"""

from __future__ import annotations

import io
import os
import runpy
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from secateur.core.errors import EngineError


@runtime_checkable
class Store(Protocol):
    """What is used of torch's stores."""

    def set(self, key: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Call:
    """``python -m module arguments`` in a folder. environment: variables that are set for it."""

    module: str
    arguments: tuple[str, ...]
    folder: str
    environment: Mapping[str, str] = field(default_factory=dict)


class Lines(io.TextIOBase):
    """A stream whose lines go into a store, numbered."""

    def __init__(self, store: Store, number: int) -> None:
        self._store, self._number = store, number
        self._count, self._rest = 0, ""

    def write(self, text: str) -> int:
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            self._store.set(line_key(self._number, self._count), line)
            self._count += 1
        return len(text)

    def writable(self) -> bool:
        return True


class Worker:
    """What Ray makes an actor of."""

    def node(self) -> str:
        """The identity of this machine in the cluster."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def run(self, call: Call, threads: int, meeting: tuple[str, int], number: int) -> int:
        """The exit code of the call. Raises: EngineError where it cannot begin."""
        import torch
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        try:
            os.chdir(call.folder)
        except OSError as error:
            raise EngineError(
                f"{os.uname().nodename} has no folder {call.folder}; all machines of the cluster "
                "must see the folder that the command is typed in, and those that it names"
            ) from error
        host, port = meeting
        lines = Lines(TCPStore(host, port, is_master=False, wait_for_workers=False), number)
        os.environ.update(call.environment, OMP_NUM_THREADS=str(threads))
        torch.set_num_threads(threads)
        sys.stdout = sys.stderr = lines  # stdout is the starting process's, for the result
        return run_module(call)


def run_module(call: Call) -> int:
    """The exit code of a module that is run as the main one of this process."""
    sys.path.insert(0, call.folder)
    sys.argv = [call.module, *call.arguments]
    try:
        runpy.run_module(call.module, run_name="__main__", alter_sys=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        traceback.print_exc()  # an error that the module leaves to Python, which does the same
        return 1
    return 0


def line_key(number: int, count: int) -> str:
    """Where line `count` of worker `number` stands."""
    return f"line/{number}/{count}"
