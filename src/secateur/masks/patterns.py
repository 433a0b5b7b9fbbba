"""Which zeros may stand where: anywhere, N of every M along the inputs, or in whole blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MOST = 255
"""The largest M: ranks within a group are counted in bytes."""
_N_OF_M = re.compile(r"(\d+):(\d+)")
_BLOCK = re.compile(r"block:(\d+)x(\d+)")


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a pattern's text says. of: the M of N:M, where `keep` of every M weights that follow
    each other along the input dimension stay; 0 for the others. rows, columns: of a block, along
    the first two dimensions of the weight; 1 and 1 where weights stand alone."""

    text: str
    keep: int = 0
    of: int = 0
    rows: int = 1
    columns: int = 1

    @property
    def is_block(self) -> bool:
        """Whether several weights go together."""
        return self.rows * self.columns > 1

    @property
    def sparsity(self) -> float | None:
        """The share of zeros that the pattern itself says."""
        return 1 - self.keep / self.of if self.of else None


def parse(text: str) -> Pattern:
    """The pattern that a text names. Raises: ValueError that shows the forms.

    >>> parse("2:4")
    Pattern(text='2:4', keep=2, of=4, rows=1, columns=1)
    >>> parse("block:4x1").rows
    4
    """
    if text == "unstructured":
        return Pattern(text)
    if found := _N_OF_M.fullmatch(text):
        keep, of = map(int, found.groups())
        if 0 < keep < of <= _MOST:
            return Pattern(text, keep=keep, of=of)
        raise ValueError(
            f"pattern {text!r}: N:M keeps N of every M weights, with 0 < N < M <= {_MOST}"
        )
    if found := _BLOCK.fullmatch(text):
        rows, columns = map(int, found.groups())
        if rows * columns > 0:
            return Pattern(text, rows=rows, columns=columns)
    raise ValueError(
        f"unknown pattern {text!r}; there are 'unstructured', N:M such as '2:4', and "
        "'block:ROWSxCOLUMNS' such as 'block:4x1'"
    )
