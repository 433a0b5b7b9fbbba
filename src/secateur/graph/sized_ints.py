"""Integers that remember where they came from.

While a model is traced, sizes read from shapes and integer attributes read from modules are
`SizedInt`s: ordinary ints that carry an expression. Arithmetic builds larger expressions,
comparisons are noted as relations, and a conversion to float (`head_dim ** -0.5`) becomes a
scale (`scales`). The `Ledger` collects all that; once it is closed its integers are plain again,
even where a cache of the model kept one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from secateur.core.expressions import COMPARISONS, OPERATORS, Binary, Field
from secateur.graph.scales import Conversion, SizedFloat
from secateur.graph.types import Product


@dataclass(frozen=True, slots=True, eq=False)
class LiveSize:
    """The size of a dimension whose type is still being inferred."""

    product: Product


_NOT_THE_MODEL = frozenset({"torch", "secateur", "jaxtyping", "beartype"})
_TAKING_SYMBOLS = frozenset({"einops"})
_EQUALITIES = (("eq", True), ("ne", False))
LiveExpression = int | LiveSize | Field | Binary


@dataclass(frozen=True, slots=True)
class Note:
    """`left op right` came out as `holds` at `where`."""

    op: str
    left: Any
    right: Any
    holds: bool
    where: str


@dataclass
class Ledger:
    """What the integers of one trace told: relations, literals, scales."""

    notes: list[Note] = field(default_factory=list)
    literals: list[tuple[Product, str]] = field(default_factory=list)
    conversions: list[Conversion] = field(default_factory=list)
    open: bool = True

    def tag(self, value: int, expression: Any) -> int:
        """`value` with an expression; sizes of 0 and 1 stay plain."""
        return SizedInt(value, expression, self) if value > 1 else value

    def size(self, value: int, product: Product) -> int:
        """`value` as the size of a dimension."""
        return self.tag(value, LiveSize(product))

    def arrive(self, value: Any, product: Product, what: str) -> None:
        """An integer of the model's code became the size of `product`.

        A tagged one is an equation; a plain one is a literal, and pins the dimension.
        """
        if isinstance(value, SizedInt) and value.live_in(self):
            left = value.expression
            if not (isinstance(left, LiveSize) and left.product == product):
                self.notes.append(Note("eq", left, LiveSize(product), True, what))
        elif isinstance(value, int) and value > 1:
            self.literals.append((product, what))

    def number(self, value: Any, what: str) -> Any:
        """A sized integer that is used as a number, not as a size, by `what`: a sized float. Any
        other value as it is."""
        if not (isinstance(value, SizedInt) and value.live_in(self)):
            return value
        return self.scale(int(value), value.expression, f"{what} at {location(2)}")

    def scale(self, value: int, expression: Any, where: str) -> float:
        """The number that the model makes of an expression of this value."""
        conversion = Conversion(expression, where, len(self.conversions))
        self.conversions.append(conversion)
        return SizedFloat(value, conversion, 1)


def location(depth: int = 1) -> str:
    """`file.py:line` of the nearest caller outside torch and this package."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _NOT_THE_MODEL:
            return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        frame = frame.f_back
    return "torch"


def _asker() -> str:
    """The package whose code compares: the nearest frame outside this file and type checkers."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        package = module.partition(".")[0]
        if module != __name__ and package not in ("jaxtyping", "beartype"):
            return package
        frame = frame.f_back
    return ""


class SizedInt(int):
    """An int with an expression, alive while its ledger is open."""

    expression: Any
    ledger: Ledger

    def __new__(cls, value: int, expression: Any, ledger: Ledger) -> SizedInt:
        self = int.__new__(cls, value)
        self.expression = expression
        self.ledger = ledger
        return self

    def live_in(self, ledger: Ledger) -> bool:
        """Whether the tag belongs to this trace and the trace is still on."""
        return ledger is self.ledger and ledger.open

    def __repr__(self) -> str:
        return int.__repr__(self)

    __str__ = __repr__

    def __hash__(self) -> int:
        # einops keeps what it computed for equal sizes, and computes anew where a size has no hash,
        # as symbols have none: what it kept knows nothing of where this size came from
        if self.ledger.open and _asker() in _TAKING_SYMBOLS:
            raise TypeError("a size that is being traced is a symbol here")
        return int.__hash__(self)

    def __copy__(self) -> int:
        return int(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)

    def __reduce__(self) -> Any:
        return int, (int(self),)

    def __float__(self) -> float:
        return float(self.number())

    def number(self) -> Any:
        """As a number that remembers this size; the plain value once the ledger is closed."""
        value = self.ledger.number(self, "a conversion to float")
        return int(value) if isinstance(value, SizedInt) else value

    def __truediv__(self, other: Any) -> Any:
        return self.number() / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / self.number()

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        if isinstance(other, int) and 0 <= other <= 4 and modulus is None:
            power: Any = 1
            for _ in range(other):
                power = power * self
            return power
        return self.number() ** other


def sized_number(value: Any) -> Any:
    """A sized integer as a number that remembers its size; any other value as it is."""
    return value.number() if isinstance(value, SizedInt) else value


def _expression_of(value: int, ledger: Ledger) -> Any:
    if isinstance(value, SizedInt) and value.live_in(ledger):
        return value.expression
    return int(value)


def _arithmetic(name: str, apply: Callable[[int, int], int]) -> tuple[Any, Any]:
    def forward(self: SizedInt, other: Any) -> Any:
        if not isinstance(other, int) or isinstance(other, bool):
            return apply(int(self), other) if not isinstance(other, float) else _scaled(self, other)
        result = apply(int(self), int(other))
        if not self.ledger.open:
            return result
        ledger = self.ledger
        return ledger.tag(result, Binary(name, self.expression, _expression_of(other, ledger)))

    def reflected(self: SizedInt, other: Any) -> Any:
        if not isinstance(other, int) or isinstance(other, bool):
            return (
                apply(other, int(self)) if not isinstance(other, float) else _rscaled(other, self)
            )
        result = apply(int(other), int(self))
        if not self.ledger.open:
            return result
        ledger = self.ledger
        return ledger.tag(result, Binary(name, _expression_of(other, ledger), self.expression))

    def _scaled(self: SizedInt, other: float) -> float:
        return apply(self.number(), other)  # type: ignore[arg-type]

    def _rscaled(other: float, self: SizedInt) -> float:
        return apply(other, self.number())  # type: ignore[arg-type]

    return forward, reflected


def _comparison(name: str, apply: Callable[[int, int], bool]) -> Any:
    def compare(self: SizedInt, other: Any) -> Any:
        if not isinstance(other, int):
            return apply(int(self), other)
        result = apply(int(self), int(other))
        ledger = self.ledger
        if ledger.open and not isinstance(other, bool):
            left, right = self.expression, _expression_of(other, ledger)
            asker = _asker()
            # torch's own checks that do not end in an error decide nothing about the model
            decides = (name, result) in _EQUALITIES or asker != "torch"
            if left is not right and decides and asker != "secateur":
                ledger.notes.append(Note(name, left, right, result, location(2)))
        return result

    return compare


for _name, _apply in OPERATORS.items():
    _forward, _reflected = _arithmetic(_name, _apply)
    setattr(SizedInt, f"__{_name}__", _forward)
    setattr(SizedInt, f"__r{_name}__", _reflected)
for _name, _compare in COMPARISONS.items():
    setattr(SizedInt, f"__{_name}__", _comparison(_name, _compare))
