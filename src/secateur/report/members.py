"""Long lists of tensors written short, without losing one.

A hidden width of a language model runs through hundreds of tensors whose names differ in a layer
number; people read ``layers.{0-29}.norm.weight`` faster than thirty lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from secateur.core.graph import Member

_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class _Pattern:
    """Literal pieces with a set of numbers between each two, and the tensor's dim."""

    literals: tuple[str, ...]
    numbers: tuple[frozenset[int], ...]
    dim: int

    def __str__(self) -> str:
        pieces = [self.literals[0]]
        for numbers, literal in zip(self.numbers, self.literals[1:], strict=True):
            pieces += [_ranges(numbers), literal]
        return "".join(pieces)


def compact_names(names: Iterable[str]) -> tuple[str, ...]:
    """Each line stands for the product of its braces; together they are exactly the names.

    >>> compact_names(f"layers.{i}.attn.heads" for i in (0, 1, 3))
    ('layers.{0-1,3}.attn.heads',)
    """
    patterns = list(dict.fromkeys(_pattern(Member(name, 0)) for name in names))
    return tuple(str(pattern) for pattern in _merged(patterns))


def compact_members(members: Iterable[Member]) -> tuple[str, ...]:
    """Each line stands for the product of its braces; together they are exactly the members.

    >>> compact_members([Member(f"layers.{i}.fc.{p}", 0) for i in (0, 1, 3) for p in ("w", "b")])
    ('layers.{0-1,3}.fc.{w, b} [0]',)
    """
    patterns = list(dict.fromkeys(_pattern(member) for member in members))
    return _merge_last_names(_merged(patterns))


def _pattern(member: Member) -> _Pattern:
    pieces = _NUMBER.split(member.tensor)
    if any(piece != str(int(piece)) for piece in pieces[1::2]):  # "01" would come back as "1"
        return _Pattern((member.tensor,), (), member.dim)
    numbers = tuple(frozenset({int(piece)}) for piece in pieces[1::2])
    return _Pattern(tuple(pieces[::2]), numbers, member.dim)


def _merged(patterns: list[_Pattern]) -> list[_Pattern]:
    """Patterns joined at one place after another."""
    for place in range(max((len(pattern.numbers) for pattern in patterns), default=0)):
        patterns = _merge(patterns, place)
    return patterns


def _merge(patterns: list[_Pattern], place: int) -> list[_Pattern]:
    """Join patterns that differ in the numbers at `place` only."""
    joined: dict[tuple[object, ...], _Pattern] = {}
    for pattern in patterns:
        rest = (*pattern.numbers[:place], *pattern.numbers[place + 1 :])
        key = (pattern.literals, rest, pattern.dim, len(pattern.numbers) > place)
        seen = joined.get(key)
        if seen is None or len(pattern.numbers) <= place:
            joined[key] = pattern
            continue
        union = seen.numbers[place] | pattern.numbers[place]
        numbers = (*pattern.numbers[:place], union, *pattern.numbers[place + 1 :])
        joined[key] = _Pattern(pattern.literals, numbers, pattern.dim)
    return list(joined.values())


def _merge_last_names(patterns: list[_Pattern]) -> tuple[str, ...]:
    """``bn.weight [0]`` and ``bn.bias [0]`` become ``bn.{weight, bias} [0]``."""
    joined: dict[tuple[str, int], list[str]] = {}
    for pattern in patterns:
        owner, dot, last = str(pattern).rpartition(".")
        joined.setdefault((owner + dot, pattern.dim), []).append(last)
    return tuple(
        f"{owner}{names[0] if len(names) == 1 else '{' + ', '.join(names) + '}'} [{dim}]"
        for (owner, dim), names in joined.items()
    )


def _ranges(numbers: frozenset[int]) -> str:
    """
    >>> _ranges(frozenset({0, 1, 2, 5})), _ranges(frozenset({7}))
    ('{0-2,5}', '7')
    """
    if len(numbers) == 1:
        return str(next(iter(numbers)))
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    written = [str(low) if low == high else f"{low}-{high}" for low, high in spans]
    return "{" + ",".join(written) + "}"
