"""Which scores are the smallest, over all tensors of a model, without a copy of any.

A sample says between which two keys the wanted rank must lie; one pass over the scores counts what
is at or below the lower one and collects the few in between, among which the rank is found (the
idea of Floyd & Rivest, Communications of the ACM 1975, algorithm 489). The answer is exact, that
of a full stable sort: of equal scores those of the earlier tensor go first, in a tensor those of
the smaller flat index. Refining a histogram, the other way that needs no copy, costs two to three
passes with a slower step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.masks.keys import CHUNK, Keys, Source, all_finite, is_dense, not_finite

SAMPLE = 1 << 16
DEVIATIONS = 5.0
"""How far from its expected place in the sample the wanted rank may lie, before a second pass."""
_BLOCK = 1 << 22
"""Elements that a thread reads in one go."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Threshold:
    """What goes of source number k: every score whose key is below `keys[k]`, and the first
    `ties[k]` of those that have this very key."""

    keys: tuple[int, ...]
    ties: tuple[int, ...]


@dataclass(frozen=True)
class _Pass:
    """One pass over a source: how many keys are at most `low`, and those between low and high."""

    low: int
    high: int
    at_most: tuple[int, ...]
    between: tuple[list[Keys], ...]

    @property
    def inside(self) -> int:
        """How many lie in between."""
        return sum(len(keys) for parts in self.between for keys in parts)


def smallest(sources: Sequence[Source], count: int, *, seed: int = 0) -> Threshold:
    """The threshold below which the `count` smallest scores of all sources lie.

    seed: of the sample; the answer does not depend on it.
    Raises: ScoreError for NaN and infinite scores.
    """
    total = sum(map(len, sources))
    assert 0 <= count <= total
    if count == 0:
        _read(sources, 0, 0)  # refuses NaN
        return Threshold((_bounds(sources)[0],) * len(sources), (0,) * len(sources))
    deviations = DEVIATIONS
    while True:
        low, high = _bracket(sources, count, deviations, seed)
        found = _read(sources, low, high)
        key = _located(sources, found, count)
        if key is not None:
            return _shared_out(sources, found, key, count)
        deviations, seed = 8 * deviations, seed + 1


def below(sources: Sequence[Source], key: int) -> Threshold:
    """The threshold at a key itself: what is at most `key` goes."""
    _read(sources, key, key)  # refuses NaN
    return Threshold((key + 1,) * len(sources), (0,) * len(sources))


def kept_by(source: Source, threshold: Threshold, number: int) -> Tensor:
    """What a threshold keeps of source number `number`: booleans in the layout of its tensor."""
    like = source.tensor
    key, ties = threshold.keys[number], threshold.ties[number]
    # numpy asks for large pages, which makes a fresh array several times cheaper to fill
    out = np.empty(len(source), dtype=np.bool_)

    def fill(start: int, stop: int) -> None:
        for k in range(start, stop, CHUNK):
            end = min(k + CHUNK, stop)
            np.greater_equal(source.keys(k, end), key, out=out[k:end])

    each(lambda block: fill(*block), _blocks(len(source)))
    if ties and like.is_contiguous():
        _drop_first_(out, source, key, ties)
    kept = _in_layout(torch.from_numpy(out), like)
    if ties and not like.is_contiguous():
        _drop_first_in_order_(kept, _equal_to(source, key), ties)
    return kept.to(like.device)


def each(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The results in order, made by as many threads as torch uses; numpy lets them run at once."""
    items = list(items)
    threads = min(torch.get_num_threads(), len(items))
    if threads < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(k, min(k + _BLOCK, length)) for k in range(0, length, _BLOCK)]


def _bounds(sources: Sequence[Source]) -> tuple[int, int]:
    """The smallest and the largest key there can be."""
    info = np.iinfo(f"i{sources[0].dtype.itemsize}")
    return int(info.min), int(info.max)


def _bracket(
    sources: Sequence[Source], count: int, deviations: float, seed: int
) -> tuple[int, int]:
    """Two keys between which the key of rank `count` almost certainly lies."""
    least, most = _bounds(sources)
    total = sum(map(len, sources))
    if total <= SAMPLE:
        return least, most
    sample = np.sort(_sampled(sources, total, seed))
    place = count / total * SAMPLE
    spread = deviations * (1 + math.sqrt(place * (1 - count / total)))
    low, high = math.floor(place - spread), math.ceil(place + spread)
    return (
        least if low < 0 else int(sample[low]),
        most if high >= SAMPLE else int(sample[high]),
    )


def _sampled(sources: Sequence[Source], total: int, seed: int) -> Keys:
    """Keys at SAMPLE positions, one at random in each of as many equal parts of the whole."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(SAMPLE, dtype=torch.float64, generator=generator).numpy()
    positions = ((np.arange(SAMPLE) + draw) * (total / SAMPLE)).astype(np.int64)
    np.minimum(positions, total - 1, out=positions)
    starts = np.cumsum([0, *map(len, sources)])
    cuts = np.searchsorted(positions, starts)
    parts = [
        source.keys_at(positions[cuts[k] : cuts[k + 1]] - starts[k])
        for k, source in enumerate(sources)
        if cuts[k] < cuts[k + 1]
    ]
    return np.concatenate(parts)


def _read(sources: Sequence[Source], low: int, high: int) -> _Pass:
    tasks = [(k, *block) for k, source in enumerate(sources) for block in _blocks(len(source))]
    results = each(lambda task: _read_block(sources[task[0]], task[1:], low, high), tasks)
    at_most = [0] * len(sources)
    between: list[list[Keys]] = [[] for _ in sources]
    for (k, *_), (number, inside) in zip(tasks, results, strict=True):
        at_most[k] += number
        between[k].extend(inside)
    return _Pass(low, high, tuple(at_most), tuple(between))


def _read_block(
    source: Source, block: tuple[int, ...], low: int, high: int
) -> tuple[int, list[Keys]]:
    """How many keys of a block are at most `low`, and those strictly between low and high."""
    unsigned = np.dtype(f"u{source.dtype.itemsize}").type
    mask = (1 << 8 * source.dtype.itemsize) - 1
    # low < key < high is one comparison of unsigned integers: key - (low + 1) < high - (low + 1)
    first, width = unsigned((low + 1) & mask), unsigned(max(high - low - 1, 0) & mask)
    at_most, inside = 0, []
    start, stop = block
    for k in range(start, stop, CHUNK):
        keys = source.keys(k, min(k + CHUNK, stop))
        refuse_not_finite(source, keys)
        at_most += int(np.count_nonzero(keys <= low))
        if width:
            shifted = np.subtract(keys.view(unsigned), first)
            inside.append(keys[shifted < width])
    return at_most, inside


def refuse_not_finite(source: Source, keys: Keys) -> None:
    if not all_finite(keys, source.dtype, signed=source.signed):
        raise not_finite(source.name)


def _located(sources: Sequence[Source], found: _Pass, count: int) -> int | None:
    """The key of rank `count` (from 1), None when it lies outside low and high."""
    at_most, inside = sum(found.at_most), found.inside
    if count <= at_most:
        less = at_most - sum(_equal(sources, found.low))
        return found.low if count > less else None
    if count <= at_most + inside:
        joined = np.concatenate([keys for parts in found.between for keys in parts])
        joined.partition(count - at_most - 1)
        return int(joined[count - at_most - 1])
    equal = sum(_equal(sources, found.high)) if found.high > found.low else 0
    return found.high if count <= at_most + inside + equal else None


def _equal(sources: Sequence[Source], key: int) -> list[int]:
    """How many scores of each source have this key."""

    def number(source: Source) -> int:
        chunks = range(0, len(source), CHUNK)
        parts = (source.keys(k, min(k + CHUNK, len(source))) for k in chunks)
        return sum(int(np.count_nonzero(keys == key)) for keys in parts)

    return each(number, sources)


def _shared_out(sources: Sequence[Source], found: _Pass, key: int, count: int) -> Threshold:
    """The threshold at `key`: which of the scores with this very key go, the first ones first."""
    if found.low < key < found.high:
        equal = [sum(int((keys == key).sum()) for keys in parts) for parts in found.between]
        less = sum(found.at_most)
        less += sum(int((keys < key).sum()) for parts in found.between for keys in parts)
    else:
        equal = _equal(sources, key)
        inside = found.inside if key == found.high > found.low else 0
        less = sum(found.at_most) + inside - (sum(equal) if key == found.low else 0)
    left, keys, ties = count - less, [], []
    for number in equal:
        all_go = left >= number
        keys.append(key + 1 if all_go else key)
        ties.append(0 if all_go else left)
        left -= min(number, left)
    return Threshold(tuple(keys), tuple(ties))


def _equal_to(source: Source, key: int) -> Tensor:
    """Where a source has a key, in the layout of its tensor."""
    equal = np.empty(len(source), dtype=np.bool_)
    for k in range(0, len(source), CHUNK):
        end = min(k + CHUNK, len(source))
        np.equal(source.keys(k, end), key, out=equal[k:end])
    return _in_layout(torch.from_numpy(equal), source.tensor)


def _drop_first_(out: NDArray[np.bool_], source: Source, key: int, ties: int) -> None:
    """Of a tensor whose memory is in the order of its flat indices: read as far as needed."""
    for k in range(0, len(source), CHUNK):
        found = np.flatnonzero(source.keys(k, min(k + CHUNK, len(source))) == key)[:ties]
        out[k + found] = False
        ties -= len(found)
        if not ties:
            return


def _drop_first_in_order_(kept: Tensor, equal: Tensor, ties: int) -> None:
    """Of any other: flat indices count in the order of the dimensions."""
    in_order: NDArray[np.bool_] = equal.contiguous().view(-1).numpy()
    end = 0
    while ties > 0:
        found = np.flatnonzero(in_order[end : end + CHUNK])
        end += int(found[ties - 1]) + 1 if len(found) >= ties else CHUNK
        ties -= len(found)
    first = torch.zeros(len(in_order), dtype=torch.bool)
    first[:end] = True
    kept &= ~(equal.contiguous() & first.view(kept.shape))


def _in_layout(values: Tensor, like: Tensor) -> Tensor:
    """Booleans in the order of `like`'s memory, as a tensor of its shape."""
    if is_dense(like):
        return values.as_strided(like.shape, like.stride())
    return values.view(like.shape)
