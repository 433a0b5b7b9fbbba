"""Operator rules, one family a file: how an operator's dimensions couple.

A new rule is a function marked `@handles("operator", ...)` in any file here; it is found by
itself. Pointwise operators need no rule: torch tags them, see `pointwise.py`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from secateur.graph.call import Rule


@cache
def all_rules() -> Mapping[str, Rule]:
    """Every rule by operator name. Raises: RuntimeError when two files claim one operator."""
    rules: dict[str, Rule] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for rule in vars(module).values():
            if getattr(rule, "__module__", None) != module.__name__:
                continue
            for operator in getattr(rule, "operators", ()):
                if operator in rules:
                    raise RuntimeError(f"two rules for {operator}: {rules[operator]} and {rule}")
                rules[operator] = rule
    return MappingProxyType(rules)
