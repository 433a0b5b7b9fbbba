"""Extensions are found by their file's name: `criteria/taylor.py` is the criterion "taylor".

There is no registry to edit: a new small file is found, listed and tested by itself. A name that
is a word of Python has a trailing underscore as a file only: `select/global_.py` is "global".
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache
from types import ModuleType


def names(package: str) -> tuple[str, ...]:
    """Names of the extensions in a package, sorted.

    >>> "l2" in names("secateur.criteria")
    True
    """
    return tuple(sorted(_modules(package)))


def find(package: str, name: str, *, kind: str) -> ModuleType:
    """The module that implements the extension `name`.

    Raises: ValueError that lists what there is and the nearest spelling.
    """
    known = names(package)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown {kind} {name!r}; {hint}there are: {', '.join(known)}")
    return importlib.import_module(f"{package}.{_modules(package)[name]}")


@cache
def _modules(package: str) -> dict[str, str]:
    """Extension name to module name; a package is listed once, for that reads its folder."""
    module = importlib.import_module(package)
    excluded: frozenset[str] = getattr(module, "NOT_EXTENSIONS", frozenset())
    stems = (found.name for found in pkgutil.iter_modules(module.__path__) if not found.ispkg)
    return {
        stem.removesuffix("_"): stem
        for stem in stems
        if not stem.startswith("_") and stem not in excluded
    }
