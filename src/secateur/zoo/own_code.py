"""`python.module:callable`: a callable of the user's own, found and imported.

It takes nothing. The working directory counts as a place for modules, as under `python -m`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from secateur.zoo.loaded import unknown


def find_callable(spec: str, *, kind: str, known: str) -> Callable[[], Any]:
    """The callable that `module:name` names. kind, known: for the error, what is looked for and
    which words would have stood for one.

    Raises: ValueError for a module or name that is not there, and for one that needs arguments.
    """
    module_name, _, name = spec.partition(":")
    working = str(Path.cwd())
    if working not in sys.path:
        sys.path.insert(0, working)  # as `python -m` does, and a console script does not
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"there is no Python module {module_name!r}, and {module_name!r} is no {kind}; "
            f"{kind}s are {known}; a module must be importable from here"
        ) from error
    found = getattr(module, name, None)
    if found is None:
        raise unknown(f"name in {module_name}", name, [n for n in vars(module) if n[0] != "_"])
    required = [
        parameter.name
        for parameter in inspect.signature(found).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required:
        raise ValueError(f"{spec} needs arguments {required}; give a function that takes none")
    callable_: Callable[[], Any] = found
    return callable_
