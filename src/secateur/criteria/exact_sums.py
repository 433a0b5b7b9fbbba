"""Sums whose bits depend on what was added, not on the order or on which rank added it.

A number is split over integers: a bin is 44 bits wide and lies at a multiple of 44 binary digits,
every number is rounded into the bin in which the largest of its tensor lies, what is left into the
next one, and so on. Integers add up to the same bits in any order, so batches may be split over
ranks in any way. The largest number that was added anywhere tells which bins are kept in the end.

Two bins are kept of numbers with 24 bits, three of float64: what is dropped is less than 2**-44,
or 2**-88, of the largest number of the tensor, for each tensor that was added. Numbers below
2**-925 count as zero.

Source: the idea of bins at fixed places: Demmel and Nguyen, Parallel Reproducible Summation, IEEE
Transactions on Computers 2015, sections 3 and 4. Deviations: integers for the bins' sums, one place
of the bins for all elements of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.core.errors import ScoreError
from secateur.core.world import World

WIDTH = 44
"""Bits of a bin; 63 - 43 bits of an int64 are left for about a million additions."""
_MOST = 1 << 20
_LOWEST = -19
"""Bins below this one would need factors that float64 does not have."""
_CHUNK = 1 << 16
"""Elements of a thread at a time, so that what is in between stays in the processor's cache."""
_ELSEWHERE = 1 << 22
_SMALL = 1 << 14
"""Tensors of fewer elements are sent together."""


class ExactSum:
    """The sum of tensors of one shape.

    count: of whatever the caller counts, positions for example, added up as well.

    >>> one, other = ExactSum(), ExactSum()
    >>> for value in (1e16, 1.0, -1e16):
    ...     one.add_(torch.tensor([value], dtype=torch.float64))
    >>> one.value().tolist()
    [1.0]
    """

    def __init__(self, bins: int | None = None) -> None:
        self.count = 0
        self._bins, self._adds = bins, 0
        self._finite = True
        self._top: int | None = None
        self._shape: tuple[int, ...] | None = None
        self._limbs: list[Tensor] = []

    def add_(self, tensor: Tensor, *, count: int = 1, like: Tensor | None = None) -> None:
        """Add a floating-point tensor; like: of whose layout the sum becomes, else the tensor's."""
        self.count += count
        self._adds += 1
        self._check()
        tensor = tensor.detach()
        if self._shape is None:
            self._shape = tuple(tensor.shape)
            self._bins = self._bins or (3 if tensor.dtype is torch.float64 else 2)
        most = _largest(tensor)
        if not math.isfinite(most):
            self._finite = False
        elif most > 0:
            self._reach_(_bin_of(most), tensor if like is None else like)
            self._split_(tensor)

    def value(self) -> Tensor:
        """The sum, float64; NaN everywhere if a number was NaN or infinite."""
        assert self._shape is not None
        if not self._finite:
            return torch.full(self._shape, math.nan, dtype=torch.float64)
        if self._top is None:
            return torch.zeros(self._shape, dtype=torch.float64)
        found = torch.empty_like(self._limbs[0], dtype=torch.float64)
        flat, *limbs = (_flat(tensor) for tensor in (found, *self._limbs))
        step = _step(found)
        for start in range(0, len(flat), step):
            here = slice(start, start + step)
            total = flat[here].copy_(limbs[-1][here])
            for limb in reversed(limbs[:-1]):
                total.mul_(2.0**-WIDTH).add_(limb[here])
            total.mul_(2.0 ** (WIDTH * self._top))
        return found

    def state(self) -> list[Any]:
        """What other ranks need to know before limbs can be added, for JSON."""
        return [self._top, self._adds, self.count, self._finite, self._shape, self._bins]

    def join_(self, states: Sequence[Sequence[Any]], like: Tensor | None) -> list[Tensor]:
        """Become ready to be summed over ranks that have these states; the tensors to be summed."""
        tops, adds, counts, finite, shapes, bins = zip(*states, strict=True)
        self._shape, self._bins = tuple(shapes[0]), bins[0]
        self._adds, self.count, self._finite = sum(adds), sum(counts), all(finite)
        self._check()
        known = [top for top in tops if top is not None]
        if known:
            self._reach_(max(known), torch.empty(self._shape) if like is None else like)
        return self._limbs

    def _check(self) -> None:
        if self._adds > _MOST:
            raise ScoreError(
                f"more than {_MOST} rounds of calibration cannot be added up exactly; pass fewer "
                "batches, or larger ones"
            )

    def _reach_(self, top: int, like: Tensor) -> None:
        """Move the bins up so that the highest holds `top`; the lowest fall away."""
        assert self._bins is not None
        if self._top is None:
            self._limbs = [torch.zeros_like(like, dtype=torch.int64) for _ in range(self._bins)]
            self._top = top
        up = min(max(top - self._top, 0), self._bins)
        if up:
            fallen = [limb.zero_() for limb in self._limbs[self._bins - up :]]
            self._limbs = fallen + self._limbs[: self._bins - up]
            self._top = top

    def _split_(self, tensor: Tensor) -> None:
        """Add every element's part in each bin."""
        assert self._top is not None
        first = self._limbs[0]
        if tensor.stride() != first.stride():
            tensor = torch.empty_like(first, dtype=tensor.dtype).copy_(tensor)
        flat, limbs = _flat(tensor), [_flat(limb) for limb in self._limbs]
        step = min(_step(tensor), len(flat))
        rest = torch.empty(step, dtype=torch.float64, device=tensor.device)
        whole, part = torch.empty_like(rest), torch.empty_like(rest, dtype=torch.int64)
        for start in range(0, len(flat), step):
            length = min(step, len(flat) - start)
            r, w, p = rest[:length], whole[:length], part[:length]
            r.copy_(flat[start : start + length]).mul_(2.0 ** (-WIDTH * self._top))
            for limb in limbs:
                p.copy_(torch.round(r, out=w))
                limb[start : start + length].add_(p)
                if limb is not limbs[-1]:
                    r.sub_(w).mul_(2.0**WIDTH)


class ExactSums:
    """Sums by name. rounds: how often something was added. like: tensors by name whose layout and
    device the sums have, and whose type the means; other sums take those of what is added."""

    def __init__(
        self, like: Mapping[str, Tensor] | None = None, *, bins: int | None = None
    ) -> None:
        self.rounds = 0
        self._like, self._bins = like or {}, bins
        self._sums: dict[str, ExactSum] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._sums)

    def add_(self, found: Mapping[str, Tensor]) -> None:
        """One round: add every tensor to the sum of its name; complex ones, which no criterion
        looks at, are left out."""
        self.rounds += 1
        for name, tensor in found.items():
            if tensor.is_floating_point():
                self.add_one_(name, tensor)

    def add_one_(self, name: str, tensor: Tensor, *, count: int = 1) -> None:
        """Add to one sum."""
        if name not in self._sums:
            self._sums[name] = ExactSum(self._bins)
        self._sums[name].add_(tensor, count=count, like=self._like.get(name))

    def reduce_(self, world: World, *, what: str) -> None:
        """Every sum becomes that over all ranks, also those that only others have.

        Raises: ScoreError for too many additions.
        """
        if world.size == 1:
            return
        own: list[Any] = [self.rounds, {name: one.state() for name, one in self._sums.items()}]
        found = world.gather(own, what=what)
        self.rounds = sum(rounds for rounds, _ in found)
        names = dict.fromkeys(name for _, states in found for name in states)
        self._sums = {name: self._sums.get(name, ExactSum()) for name in names}
        limbs = []
        for name, one in self._sums.items():
            states = [states[name] for _, states in found if name in states]
            limbs += one.join_(states, self._like.get(name))
        _sum_(world, limbs, what)

    def take(self, name: str) -> tuple[Tensor, int]:
        """A sum, float64, and its count; its memory is let go."""
        one = self._sums.pop(name)
        return one.value(), one.count

    def means(self) -> dict[str, Tensor]:
        """Every sum over the number of rounds, in the type of its `like` (float32 at least), else
        float64; their memory is let go."""
        return {name: self._mean(name) for name in list(self._sums)}

    def _mean(self, name: str) -> Tensor:
        mean = self.take(name)[0].div_(self.rounds)
        like = self._like.get(name)
        if like is None:
            return mean
        return mean.to(like.dtype if like.dtype.itemsize >= 4 else torch.float32)


def _sum_(world: World, limbs: Sequence[Tensor], what: str) -> None:
    """Sum over the ranks, small tensors together."""
    small = [limb for limb in limbs if limb.numel() < _SMALL]
    large = [limb for limb in limbs if limb.numel() >= _SMALL]
    if small:
        packed = torch.cat([limb.reshape(-1) for limb in small])
        large.append(packed)
    if large:
        world.sum_(large, what=what)
    if small:
        parts = torch.split(packed, [limb.numel() for limb in small])
        for limb, part in zip(small, parts, strict=True):
            limb.copy_(part.view(limb.shape))


def _largest(tensor: Tensor) -> float:
    """The largest magnitude, NaN where there is one."""
    if not tensor.numel():
        return 0.0
    least, most = torch.stack(torch.aminmax(tensor)).tolist()
    return max(-least, most) if least == least else math.nan


def _bin_of(most: float) -> int:
    """The lowest bin that holds numbers of this magnitude.

    Its unit is ``2 ** (WIDTH * bin)``, and it holds at most half of the next bin's unit, so that a
    number is nothing in all bins above its own:

    >>> _bin_of(2.0**42), _bin_of(2.0**43)
    (0, 1)
    """
    return max(-((WIDTH - 1 - math.frexp(most)[1]) // WIDTH), _LOWEST)


def _step(tensor: Tensor) -> int:
    """Elements that are looked at together."""
    return _CHUNK * torch.get_num_threads() if tensor.device.type == "cpu" else _ELSEWHERE


def _flat(tensor: Tensor) -> Tensor:
    """All elements of a tensor without gaps, in the order of its memory."""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
