"""Numbers as people read them, the same on the page and in the terminal.

Three significant digits, decimal prefixes, a dash for what was not measured.
"""

from __future__ import annotations

DASH = "\u2013"
TIMES = "\u00d7"
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def amount(value: float | None) -> str:
    """A count with a decimal prefix.

    >>> amount(1_043_210), amount(52_300), amount(987), amount(None)[:1] == DASH
    ('1.04 M', '52.3 k', '987', True)
    """
    if value is None:
        return DASH
    for scale, prefix in _PREFIXES:
        if abs(value) >= 0.9995 * scale:
            return f"{significant(value / scale)} {prefix}"
    return f"{value:.0f}"


def size(value: float | None) -> str:
    """Bytes with a decimal prefix.

    >>> size(4_172_840), size(512)
    ('4.17 MB', '512 B')
    """
    if value is None:
        return DASH
    text = amount(value)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"


def milliseconds(value: float | None) -> str:
    """A duration.

    >>> milliseconds(12.345), milliseconds(0.02511), milliseconds(2345.6)
    ('12.3 ms', '0.0251 ms', '2346 ms')
    """
    return DASH if value is None else f"{significant(value)} ms"


def percent(value: float | None) -> str:
    """A share with one decimal.

    >>> percent(0.9861)
    '98.6 %'
    """
    return DASH if value is None else f"{100 * value:.1f} %"


def rate(value: float | None) -> str:
    """Samples per second.

    >>> rate(15_320.0)
    '15.3 k/s'
    """
    return DASH if value is None else f"{amount(value)}/s"


def factor(ratio: float) -> str:
    """A ratio above one.

    >>> factor(5.312), factor(1.043), factor(143.2)
    ('5.3', '1.04', '143')
    """
    if ratio >= 99.95:
        return f"{ratio:.0f}"
    return f"{ratio:.1f}" if ratio >= 1.495 else f"{ratio:.2f}"


def change(value: float | None, dense: float | None) -> str:
    """How a figure compares with the dense model's.

    >>> change(20.0, 100.0), change(99.97, 100.0), change(243.0, 100.0)
    ('-80 %', '-0.03 %', '+143 %')
    """
    if value is None or not dense:
        return ""
    if value == dense:
        return "="
    share = 100 * (value / dense - 1)
    return f"{share:+.0f} %" if abs(share) >= 10 else f"{share:+.2g} %"


def points(value: float | None, dense: float | None) -> str:
    """The difference of two shares in percentage points.

    >>> points(0.986, 0.989), points(0.5, 0.5)
    ('-0.3 points', '=')
    """
    if value is None or dense is None:
        return ""
    difference = round(100 * (value - dense), 1)
    return f"{difference:+.1f} points" if difference else "="


def plural(number: int, noun: str) -> str:
    """
    >>> plural(1, "group"), plural(3, "group")
    ('1 group', '3 groups')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def significant(value: float) -> str:
    """Three significant digits without an exponent.

    >>> [significant(x) for x in (0.0, 0.01234, 1.234, 12.34, 123.4, 1234.0)]
    ['0', '0.0123', '1.23', '12.3', '123', '1234']
    """
    if value == 0:
        return "0"
    digits = 0
    while abs(value) * 10**digits < 99.95 and digits < 8:
        digits += 1
    return f"{value:.{digits}f}"


def scientific(value: float) -> str:
    """A small error.

    >>> scientific(2.384e-07), scientific(0.0)
    ('2.4e-07', '0')
    """
    return f"{value:.1e}" if value else "0"
