"""Floats that remember the size they were made of.

`head_dim ** -0.5` comes back as a `SizedFloat`: an ordinary float that carries a power of a size.
Where it multiplies a tensor, a `Site` is noted, and `folding` looks for weights that can absorb a
change of that size. A float that goes anywhere else is used in a way that cannot be followed, and
the axes that its size is made of are flagged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(eq=False)
class Conversion:
    """One number that the forward made of a size. followed: every use of it is a `Site`."""

    expression: Any
    where: str
    number: int
    followed: bool = True
    sites: list[Site] = field(default_factory=list)
    folded: bool = False


@dataclass(frozen=True, eq=False)
class Site:
    """Something linear in each of `operands` was multiplied by ``c * size**power``."""

    conversion: Conversion
    power: float
    operands: tuple[Tensor, ...]


class SizedFloat(float):
    """``c * size**power``, for the size of a conversion."""

    conversion: Conversion
    power: float

    def __new__(cls, value: float, conversion: Conversion, power: float) -> SizedFloat:
        self = float.__new__(cls, value)
        self.conversion = conversion
        self.power = power
        return self

    def site(self, operands: Sequence[Any], *, inverse: bool = False) -> None:
        """Note that this number (or its inverse) multiplies what is linear in the operands."""
        tensors = tuple(operand for operand in operands if isinstance(operand, Tensor))
        power = -self.power if inverse else self.power
        self.conversion.sites.append(Site(self.conversion, power, tensors))

    @property
    def plain(self) -> float:
        """The value."""
        return float.__float__(self)

    def lost(self) -> float:
        """The value, for a use that cannot be followed."""
        self.conversion.followed = False
        return self.plain

    __float__ = lost

    def __copy__(self) -> float:
        return self.lost()

    def __deepcopy__(self, memo: dict[int, Any]) -> float:
        return self.lost()

    def __reduce__(self) -> Any:
        return float, (self.lost(),)

    def __neg__(self) -> float:
        return SizedFloat(float.__neg__(self), self.conversion, self.power)

    def __mul__(self, other: Any) -> Any:
        return self._combined(float.__mul__, other, 1)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self._combined(float.__truediv__, other, -1)

    def __rtruediv__(self, other: Any) -> Any:
        if not _plain(other):
            return NotImplemented
        return SizedFloat(float.__rtruediv__(self, other), self.conversion, -self.power)

    def __pow__(self, other: Any, modulus: None = None) -> Any:
        if not _plain(other):
            return float.__pow__(self.lost(), other)
        value = float.__pow__(self, other)
        return SizedFloat(value, self.conversion, self.power * other)

    def _combined(self, apply: Callable[[float, Any], Any], other: Any, sign: int) -> Any:
        if isinstance(other, SizedFloat):
            if other.conversion is not self.conversion:
                return apply(self.lost(), other.lost())
            value = apply(self, other.plain)
            return SizedFloat(value, self.conversion, self.power + sign * other.power)
        if not _plain(other):
            return NotImplemented
        return SizedFloat(apply(self, other), self.conversion, self.power)


def _plain(value: Any) -> bool:
    return type(value) in (int, float)


def _losing(name: str) -> Callable[..., Any]:
    apply = getattr(float, name)

    def operation(self: SizedFloat, *others: Any) -> Any:
        for other in others:
            if isinstance(other, SizedFloat):
                other.lost()
        return apply(self.lost(), *others)

    return operation


for _name in "add radd sub rsub floordiv rfloordiv mod rmod rpow abs int".split():
    setattr(SizedFloat, f"__{_name}__", _losing(f"__{_name}__"))


@contextmanager
def tagged_roots(number: Callable[[Any], Any]) -> Iterator[None]:
    """`math.sqrt` of a sized number stays one while the block runs; `number` makes a sized float
    of a sized integer and leaves everything else alone."""
    plain = math.sqrt

    def sqrt(value: Any, /) -> float:
        value = number(value)
        return value**0.5 if isinstance(value, SizedFloat) else plain(value)

    math.sqrt = sqrt
    try:
        yield
    finally:
        math.sqrt = plain
