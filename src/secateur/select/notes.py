"""What a plan tells besides its counts, for a person to read: what is alike is said once.

A transformer has the same note for every layer. The first is kept in full, and the others are
counted, with the place where they are and how many units they were asked for and keep.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from secateur.core.budget import Budget, Limit
from secateur.core.cost import Cost
from secateur.select.counts import Solution
from secateur.select.problem import Problem

_LAYER = re.compile(r"(?<![\w\]])\d+(?=\.)")
"""An integer of a module's path: the 3 of ``blocks.3.attn``, not that of ``conv3`` or ``[0].3``."""
_PART = re.compile(r"\]\.\d+:")
"""The end of a group's id that says which axis of a dimension it is."""
_COUNTS = re.compile(r"asked (\d+) of (\d+) units, keeps (\d+|all)")
_UNITS = re.compile(r"\b\d+ units")


CLOSE = 0.02
"""A budget that is used up to this share of the dense model needs no explanation."""


def plan_notes(problem: Problem, solution: Solution) -> tuple[str, ...]:
    """What a user should know of a plan, besides its counts."""
    notes, counts = list(problem.notes), solution.counts
    if not problem.bundles:
        notes.append("no group may be cut; graph.groups says why each is pinned")
    elif problem.budget is not None and not counts and problem.fits({}):
        notes.append(f"the whole model meets {problem.budget} already, so nothing is cut")
    elif problem.budget is not None and problem.room(counts) > CLOSE:
        notes.append(_gap(problem, problem.budget, problem.costs.cost(counts)))
    multiple = problem.constraints.multiple_of
    notes += (
        f"{group.id}: keeps all of its {group.size} units, which multiple_of={multiple} lets it"
        for bundle in problem.bundles
        for group in bundle.groups
        if group.axis.index not in counts and group.size % bundle.step
    )
    notes += (note for _, note in sorted(solution.notes.items()))
    return summarised(notes)


def _gap(problem: Problem, budget: Budget, cost: Cost) -> str:
    """The limit that is used most, and how much of the dense model remains."""

    def left(limit: Limit) -> float:
        return (limit.allowed(problem.dense) - limit.value(cost)) / limit.value(problem.dense)

    limit = min(budget.limits, key=left)
    remains = 100 * limit.value(cost) / limit.value(problem.dense)
    return (
        f"{limit} is met with {remains:.1f}% of the dense model, {100 * left(limit):.1f}% less "
        "than it allows: no larger counts within it were found that the size equations and the "
        "rules permit"
    )


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

    @property
    def whole(self) -> str:
        """The kind without the place in a dimension."""
        return _PART.sub("].*:", self.kind, count=1)

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
    ('layers.0.fc[0]: asked 3 of 8 units, keeps 4 (and 2 groups like it in layers.*: asked 4 to 5, \
keep 4): x',)
    """
    told = [_Note(note) for note in notes]
    layers = Counter(note.kind for note in told)
    kinds: dict[str, list[_Note]] = {}
    for note in told:  # axes of one dimension are alike where no other layer is
        kinds.setdefault(note.kind if layers[note.kind] > 1 else note.whole, []).append(note)
    return tuple(_told(first, others) for first, *others in kinds.values())


def _told(first: _Note, others: Sequence[_Note]) -> str:
    if not others:
        return first.text
    like = "a group" if len(others) == 1 else f"{len(others)} groups"
    like = f"and {like} like it in {_place([first, *others])}"
    counts = [pair for note in others if (pair := note.counts()) is not None]
    if not counts:
        return f"{first.text} ({like})"
    asked, kept = zip(*counts, strict=True)
    like += f": asked {_span(asked)}, keep {_span(kept)}"
    return _COUNTS.sub(rf"\g<0> ({like})", first.text, count=1)


def _place(notes: Sequence[_Note]) -> str:
    """The common path, with a star for each integer that differs, up to the last of them."""
    columns = zip(*(note.id.split(".") for note in notes), strict=False)
    words = [words[0] if len(set(words)) == 1 else "*" for words in columns]
    last = max((k for k, word in enumerate(words) if word == "*"), default=len(words) - 1)
    return ".".join(words[: last + 1])


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
