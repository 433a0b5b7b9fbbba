"""Notes that a person can read: what is said of many groups alike is said once.

A transformer has the same note for every layer. The first is kept in full, and the others are
counted, with the place where they are and how many units they were asked for and keep.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LAYER = re.compile(r"(?<![\w\]])\d+(?=\.)")
"""An integer of a module's path: the 3 of ``blocks.3.attn``, not that of ``conv3`` or ``[0].3``."""
_COUNTS = re.compile(r"asked (\d+) of (\d+) units, keeps (\d+|all)")
_UNITS = re.compile(r"\b\d+ units")


@dataclass(frozen=True, slots=True)
class _Note:
    text: str

    @property
    def id(self) -> str:
        return self.text.partition(": ")[0]

    @property
    def kind(self) -> str:
        """The text without what differs between layers."""
        return _UNITS.sub("units", _LAYER.sub("*", _COUNTS.sub("asked", self.text)))

    def counts(self) -> tuple[int, int] | None:
        """Units asked for and kept."""
        found = _COUNTS.search(self.text)
        if found is None:
            return None
        asked, size, kept = found.groups()
        return int(asked), int(size if kept == "all" else kept)


def summarised(notes: Sequence[str]) -> tuple[str, ...]:
    """One note for each kind, in the order of the first of its kind.

    >>> summarised([f"layers.{k}.fc[0]: asked {k + 3} of 8 units, keeps 4: x" for k in range(3)])
    ('layers.0.fc[0]: asked 3 of 8 units, keeps 4: x (and 2 groups like it in layers.*: asked 4 to \
5, keep 4)',)
    """
    kinds: dict[str, list[_Note]] = {}
    for note in map(_Note, notes):
        kinds.setdefault(note.kind, []).append(note)
    return tuple(_told(first, others) for first, *others in kinds.values())


def _told(first: _Note, others: Sequence[_Note]) -> str:
    if not others:
        return first.text
    like = "a group" if len(others) == 1 else f"{len(others)} groups"
    text = f"{first.text} (and {like} like it in {_place([first, *others])}"
    counts = [pair for note in others if (pair := note.counts()) is not None]
    if counts:
        asked, kept = zip(*counts, strict=True)
        text += f": asked {_span(asked)}, keep {_span(kept)}"
    return text + ")"


def _place(notes: Sequence[_Note]) -> str:
    """The common path, with a star for each integer that differs, up to the last of them."""
    columns = zip(*(note.id.split(".") for note in notes), strict=False)
    words = [words[0] if len(set(words)) == 1 else "*" for words in columns]
    last = max((k for k, word in enumerate(words) if word == "*"), default=len(words) - 1)
    return ".".join(words[: last + 1])


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
