"""Extensions are found by their file's name: `criteria/taylor.py` is the criterion "taylor".

There is no registry to edit: a new small file is found, listed and tested by itself.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from types import ModuleType


def names(package: str) -> tuple[str, ...]:
    """Names of the extensions in a package, sorted.

    >>> "l2" in names("secateur.criteria")
    True
    """
    module = importlib.import_module(package)
    return tuple(
        sorted(
            info.name
            for info in pkgutil.iter_modules(module.__path__)
            if not info.name.startswith("_")
            and not getattr(module, "NOT_EXTENSIONS", frozenset()).__contains__(info.name)
        )
    )


def find(package: str, name: str, *, kind: str) -> ModuleType:
    """The module that implements the extension `name`.

    Raises: ValueError that lists what there is and the nearest spelling.
    """
    known = names(package)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown {kind} {name!r}; {hint}there are: {', '.join(known)}")
    return importlib.import_module(f"{package}.{name}")
