"""A hash of a mask that its shards can add up: the same however a tensor is split.

Of a tensor seen as a matrix, first dimension by all others: ``sum_ij kept_ij u_i v_j`` modulo a
prime, with fixed random u and v, twice. Two masks that differ agree in both by a chance below
2^-59. It tells masks apart that came about differently; a file's own SHA-256 guards it
against damage.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from secateur.core.shards import Shard

MODULUS = (1 << 31) - 1
STREAMS = 2
_COLUMNS = 1 << 14
"""At a time: sums of so many numbers below the modulus are exact in float64."""
_ELEMENTS = 1 << 16
"""Of a mask, unpacked at a time."""
_GOLDEN, _FIRST, _SECOND = 0x9E37_79B9_7F4A_7C15, 0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB


def mask_sums(bits: NDArray[np.uint8], shard: Shard) -> NDArray[np.int64]:
    """The two sums over the elements that lie in a shard; add those of all, then `combined`.

    bits: of the mask, eight elements to a byte in the order of their flat indices.
    """
    found = np.zeros(STREAMS, dtype=np.uint64)
    if not shard.own:
        return found.astype(np.int64)
    rows = shard.size[0] if shard.size else 1
    first_row = shard.start[0] if shard.start else 0
    columns = _column_indices(shard)
    for left in range(0, len(columns), _COLUMNS):
        v_CS = _numbers(columns[left : left + _COLUMNS], offset=STREAMS)
        for top, kept_RC in _tiles(bits, rows, len(columns), left, len(v_CS)):
            u_RS = _numbers(np.arange(first_row + top, first_row + top + len(kept_RC)), offset=0)
            inner_RS = (kept_RC @ v_CS.astype(np.float64)).astype(np.uint64) % MODULUS
            found += (inner_RS * u_RS % MODULUS).sum(0)
            found %= MODULUS
    return found.astype(np.int64)


def combined(sums: NDArray[np.int64]) -> str:
    """The hash from the sums over all shards.

    >>> whole = Shard.whole((2, 8))
    >>> upper, lower = (Shard((2, 8), (k, 0), (1, 8)) for k in (0, 1))
    >>> bits = np.array([0b10010000, 0b00000001], dtype=np.uint8)
    >>> parts = mask_sums(bits[:1], upper) + mask_sums(bits[1:], lower)
    >>> combined(parts) == combined(mask_sums(bits, whole))
    True
    """
    return "".join(f"{int(number) % MODULUS:08x}" for number in sums)


def mixed(sums: NDArray[np.int64]) -> int:
    """One number for the sums of several masks, which adds up as they do."""
    own = sums.astype(np.uint64) % MODULUS
    numbers = _numbers(np.arange(len(own)), offset=0)
    return int((own * numbers % MODULUS).sum() % MODULUS)


def _column_indices(shard: Shard) -> NDArray[np.int64]:
    """Where the elements of a row stand in the whole row."""
    found = np.zeros(1, dtype=np.int64)
    rest = zip(shard.shape[1:], shard.start[1:], shard.size[1:], strict=True)
    for extent, start, size in rest:
        found = (found[:, None] * extent + np.arange(start, start + size)).ravel()
    return found


def _tiles(
    bits: NDArray[np.uint8], rows: int, width: int, left: int, columns: int
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Some columns of a mask as numbers, some rows at a time; whole rows where they are short."""
    height = max(1, _ELEMENTS // width) if columns == width else 1
    for top in range(0, rows, height):
        count = min(height, rows - top) * columns
        start = top * width + left
        some = np.unpackbits(bits[start // 8 : -(-(start + count) // 8)])
        own = some[start % 8 : start % 8 + count]
        yield top, own.reshape(-1, columns).astype(np.float64)


def _numbers(indices: NDArray[np.int64], *, offset: int) -> NDArray[np.uint64]:
    """Fixed random numbers below the modulus for indices, one for each stream.

    Source: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014,
    figure 13 (SplitMix64).
    """
    streams = np.arange(offset, offset + STREAMS, dtype=np.uint64)
    mixed = indices.astype(np.uint64)[:, None] * np.uint64(2 * STREAMS) + streams + np.uint64(1)
    mixed *= np.uint64(_GOLDEN)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(_FIRST)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(_SECOND)
    mixed ^= mixed >> np.uint64(31)
    found: NDArray[np.uint64] = (mixed >> np.uint64(33)) % np.uint64(MODULUS)
    return found
