"""Strikes a rank at a chosen moment of a stage, from within: nobody else knows where it is.

Without FAULT_STAGE and FAULT_RECORD in the environment nothing happens. A thread looks a thousand
times a second at what all threads are in: checkpoints are written beside the training. FAULT_RECORD
names a folder to write into, at the end, how long each stage took. FAULT_STAGE, FAULT_RANK,
FAULT_AFTER_S and FAULT_SIGNAL say when which signal strikes: once the rank has spent so long in the
stage, and is in it. FAULT_MARK is a file that is made then; where it is there already nothing
strikes any more.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

STAGES = {
    "scoring": ("secateur/criteria/score.py",),
    "cutting": ("secateur/cut/apply.py",),
    "recovery": ("secateur/train/step.py",),
    "saving": (
        "secateur/core/atomic.py",
        "secateur/train/checkpoint.py",
        "secateur/train/checkpoint_writes.py",
        "secateur/engines/shard_files.py",
    ),
}
EVERY_S = 0.001
SPENT: dict[Path, dict[str, float]] = {}
"""Of this process, by the file to write it into."""


def stages_of(frame: FrameType | None) -> set[str]:
    """The stages whose files a stack goes through."""
    found = set()
    while frame is not None:
        name = frame.f_code.co_filename
        found |= {stage for stage, files in STAGES.items() if name.endswith(files)}
        frame = frame.f_back
    return found


def watch(spent: dict[str, float]) -> None:
    """Add up the time in each stage, and strike when it is time."""
    last = time.perf_counter()
    while True:
        time.sleep(EVERY_S)
        stages = set[str]().union(*map(stages_of, sys._current_frames().values()))
        now = time.perf_counter()
        for stage in stages:
            spent[stage] += now - last
        last = now
        wanted = os.environ.get("FAULT_STAGE")
        if wanted in stages and spent[wanted] >= float(os.environ["FAULT_AFTER_S"]):
            strike()
            return


def strike() -> None:
    """Send this process the signal, unless one was struck before."""
    try:
        os.close(os.open(os.environ["FAULT_MARK"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), getattr(signal, os.environ.get("FAULT_SIGNAL", "SIGKILL")))


def begin() -> None:
    """Watch, if this is a rank that is told to."""
    rank, folder = os.environ.get("RANK"), os.environ.get("FAULT_RECORD")
    if rank is None or (folder is None and rank != os.environ.get("FAULT_RANK")):
        return
    spent = dict.fromkeys(STAGES, 0.0)
    threading.Thread(target=watch, args=(spent,), daemon=True).start()
    if folder is not None:
        SPENT[Path(folder) / f"{rank}.json"] = spent
        atexit.register(note)


def note() -> None:
    """Write down how long each stage took."""
    for path, spent in SPENT.items():
        path.write_text(json.dumps(spent), encoding="ascii")
