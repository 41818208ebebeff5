"""How numbers are written, on the terminal and in the report alike.

The report writes its numbers in the browser, with the same functions in JavaScript (html_report/page/format.js). A test
compares the two, number by number.
"""

from __future__ import annotations

import math
from typing import Literal

MOST_DIGITS = 1e15
"""From here on, not every whole number is a float, so all digits of one would claim too much."""
NO_DIFFERENCE = 1e-9
"""Below, two losses may differ by rounding alone."""


def number(value: float) -> str:
    """Six digits; a whole number with all of them.

    >>> number(0.0003), number(0.00001), number(2000000.0), number(1 / 3)
    ('0.0003', '1e-05', '2000000', '0.333333')
    """
    if math.isfinite(value) and abs(value) < MOST_DIGITS and value == int(value):
        return str(int(value))
    return f"{value:g}"


def loss(value: float | None) -> str:
    """A loss, or another value that runs are compared by: four decimals; empty if there is none.

    >>> loss(1.23456), loss(0.00002), loss(None)
    ('1.2346', '0.0000', '')
    """
    return "" if value is None else f"{value:.4f}"


def difference(value: float | None, sign: Literal["", "+"] = "") -> str:
    """The difference of two losses: written like a loss, with more decimals if it would otherwise look like zero.

    >>> difference(0.00123), difference(-0.00002), difference(0.0), difference(0.00004, "+")
    ('0.0012', '-0.000020', '0.0000', '+0.000040')
    """
    if value is None:
        return ""
    hidden = abs(value) >= NO_DIFFERENCE and not float(loss(value))
    decimals = 1 - int(f"{value:.1e}".partition("e")[2]) if hidden else 4
    return f"{value:{sign}.{decimals}f}"


def counted(number: int, noun: str) -> str:
    """
    >>> counted(1, "run"), counted(2, "further run")
    ('1 run', '2 further runs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def ordinal(number: int) -> str:
    """
    >>> [ordinal(one) for one in (1, 2, 3, 4, 11, 12, 13, 21, 112)]
    ['1st', '2nd', '3rd', '4th', '11th', '12th', '13th', '21st', '112th']
    """
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
