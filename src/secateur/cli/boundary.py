"""The one place where errors become words and exit codes: 0 done, 1 failed, 2 wrong usage.
`app` adds 3: done, and what was asked for was not reached.

A user's mistake gets its message and no traceback. A bug of ours, or of the user's model, keeps
its traceback, because only that tells where it is.
"""

from __future__ import annotations

import shlex
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO

import typer

from secateur.core.errors import RecipeError, SecateurError

FAILED, USAGE, UNMET, INTERRUPTED = 1, 2, 3, 130


@contextmanager
def boundary(*, resumable: bool = False) -> Iterator[None]:
    """Turn errors of the block into a message on stderr and `typer.Exit` with the right code.

    resumable: whether the same command, typed again, goes on where it stopped.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            yield
    except KeyboardInterrupt:
        _say("interrupted. " + (_how_to_resume() if resumable else "Nothing was written."))
        raise typer.Exit(INTERRUPTED) from None
    except RecipeError as error:
        _say(str(error))
        raise typer.Exit(USAGE) from error
    except SecateurError as error:
        _say(f"error: {error}")
        raise typer.Exit(FAILED) from error
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        _say(f"error: {error.strerror}: {error.filename}")
        raise typer.Exit(USAGE) from error
    except ValueError as error:
        if not raised_by_us(error.__traceback__):
            raise
        _say(f"error: {error}")
        raise typer.Exit(USAGE) from error


def raised_by_us(trace: TracebackType | None) -> bool:
    """Whether our own code raised it, on purpose; torch or the user's model raises bugs."""
    if trace is None:
        return False
    *_, (frame, _line) = traceback.walk_tb(trace)
    module = frame.f_globals.get("__name__", "")
    return isinstance(module, str) and module.split(".")[0] == "secateur"


def _how_to_resume() -> str:
    command = shlex.join(["secateur", *sys.argv[1:]])
    return f"What is finished is kept; this goes on from there:\n  {command}"


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as one line, in the place of Python's two."""
    print(f"warning: {message}", file=file or sys.stderr)
