"""The time that a run has taken, all its interruptions left out, and what is left of a limit.

What was spent is written down every few seconds, so that a killed run forgets no more than that.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from secateur.core.atomic import write_text

EVERY_S = 5.0
_UNITS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0, "": 1.0}
_DURATION = re.compile(r"([0-9.]+)\s*(h|min|m|s|)\s*")


class TimeIsOver(Exception):
    """Stops a recovery in which the time runs out; never leaves `search.auto`."""


class Clock:
    """Counts the seconds of a run on top of those that `path` remembers. limit_s: None for none."""

    def __init__(self, path: Path, *, limit_s: float | None = None) -> None:
        self._path, self._limit_s = path, limit_s
        self._before = json.loads(path.read_text("utf-8"))["seconds"] if path.is_file() else 0.0
        self._started = self._saved = time.monotonic()

    @property
    def spent_s(self) -> float:
        """Seconds so far."""
        return float(self._before) + time.monotonic() - self._started

    @property
    def left_s(self) -> float:
        """Seconds until the limit, endless without one."""
        return float("inf") if self._limit_s is None else self._limit_s - self.spent_s

    def tick(self) -> None:
        """Write down what was spent, if that was not done a moment ago."""
        if time.monotonic() - self._saved >= EVERY_S:
            self.save()

    def save(self) -> None:
        """Write down what was spent."""
        self._saved = time.monotonic()
        write_text(self._path, json.dumps({"seconds": round(self.spent_s, 3)}) + "\n")

    def words(self) -> str:
        """What was spent, of how much.

        >>> Clock(Path("nowhere"), limit_s=1200.0).words()
        '0.0 of 20 min'
        """
        limit = "" if self._limit_s is None else f" of {self._limit_s / 60:.3g}"
        return f"{self.spent_s / 60:.1f}{limit} min"


def seconds_of(duration: str | float | None) -> float | None:
    """Seconds of "20m", "1h30m", "90s", or a plain number of seconds. Raises: ValueError.

    >>> seconds_of("20m"), seconds_of("1h30m"), seconds_of(90), seconds_of("1.5 h")
    (1200.0, 5400.0, 90.0, 5400.0)
    """
    if duration is None or isinstance(duration, int | float):
        return None if duration is None else float(duration)
    text = duration.strip()
    try:
        parts = [float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text)]
    except ValueError:
        parts = []
    if not parts or _DURATION.sub("", text):
        raise ValueError(
            f"time limit {duration!r} is not understood; write for example 20m or 1h30m"
        )
    return sum(parts)
