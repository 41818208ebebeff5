"""A scrambled Sobol sequence: points that fill a cube evenly, each prefix as well as it can, equal on every machine.

Sobol's construction with the direction numbers new-joe-kuo-6.21201 of S. Joe and F. Y. Kuo ("Constructing Sobol
sequences with better two-dimensional projections", SIAM J. Sci. Comput. 30, 2008; copyright 2008 Joe and Kuo, BSD
license), in Gray code order (Antonov and Saleev 1979). Scrambled like scipy's `qmc.Sobol`: J. Matousek's random linear
matrices ("On the L2-discrepancy for anchored boxes", J. Complexity 14, 1998), then a digital shift. The random bits are
SHA-512 of the seed and of the dimension's number, so that no library and no platform can change them.

Its own code, since the launcher has no scipy, whose import takes as long as a plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from decimal import Decimal

BITS = 32
"""The sequence has 2^BITS points."""

# For each dimension after the first: its primitive polynomial as bits, and the first direction numbers.
_JOE_KUO: tuple[tuple[int, tuple[int, ...]], ...] = (
    (3, (1,)),
    (7, (1, 3)),
    (11, (1, 3, 1)),
    (13, (1, 1, 1)),
    (19, (1, 1, 3, 3)),
    (25, (1, 3, 5, 13)),
    (37, (1, 1, 5, 5, 17)),
    (41, (1, 1, 5, 5, 5)),
    (47, (1, 1, 7, 11, 19)),
    (55, (1, 1, 5, 1, 1)),
    (59, (1, 1, 1, 3, 11)),
    (61, (1, 3, 5, 5, 31)),
    (67, (1, 3, 3, 9, 7, 49)),
    (91, (1, 1, 1, 15, 21, 21)),
    (97, (1, 3, 1, 13, 27, 49)),
    (103, (1, 1, 1, 15, 7, 5)),
    (109, (1, 3, 1, 15, 13, 25)),
    (115, (1, 1, 5, 5, 19, 61)),
    (131, (1, 3, 7, 11, 23, 15, 103)),
    (137, (1, 3, 7, 13, 13, 15, 69)),
    (143, (1, 1, 3, 13, 7, 35, 63)),
    (145, (1, 3, 5, 9, 1, 25, 53)),
    (157, (1, 3, 1, 13, 9, 35, 107)),
)

MOST_DIMENSIONS = 1 + len(_JOE_KUO)


def sobol(dimensions: int, seed: int) -> Iterator[tuple[Decimal, ...]]:
    """The points, each coordinate at least 0 and less than 1. Another seed scrambles them in another way."""
    columns = [_scrambled(_directions(number), _masks(seed, number)) for number in range(dimensions)]
    shifts = [_bits(seed, number, BITS) for number in range(dimensions)]
    return _points(columns, shifts)


def unscrambled(dimensions: int) -> Iterator[tuple[Decimal, ...]]:
    return _points([_directions(number) for number in range(dimensions)], [0] * dimensions)


def _points(columns: Sequence[Sequence[int]], start: Sequence[int]) -> Iterator[tuple[Decimal, ...]]:
    """In Gray code order: each point differs from the one before by one column in each dimension."""
    scale, current = Decimal(2**BITS), list(start)
    for number in range(2**BITS):
        yield tuple(Decimal(one) / scale for one in current)
        zero = (~number & (number + 1)).bit_length() - 1  # the lowest bit of the number that is not set
        if zero < BITS:
            current = [one ^ column[zero] for one, column in zip(current, columns, strict=True)]


def _directions(dimension: int) -> list[int]:
    """The generating matrix of a dimension, its columns as integers with the first row in the highest bit."""
    if dimension == 0:
        return [1 << (BITS - 1 - number) for number in range(BITS)]
    polynomial, first = _JOE_KUO[dimension - 1]
    degree = polynomial.bit_length() - 1
    columns = [one << (BITS - 1 - number) for number, one in enumerate(first)]
    for number in range(degree, BITS):
        new = columns[number - degree] ^ (columns[number - degree] >> degree)
        for back in range(1, degree):
            if polynomial >> (degree - back) & 1:
                new ^= columns[number - back]
        columns.append(new)
    return columns


def _scrambled(columns: Sequence[int], masks: Sequence[int]) -> list[int]:
    """The product of a matrix, its rows given as masks, and each column, in arithmetic modulo 2."""
    return [sum(((mask & column).bit_count() & 1) << bit for bit, mask in enumerate(masks)) for column in columns]


def _masks(seed: int, dimension: int) -> list[int]:
    """A random lower triangular matrix with ones on its diagonal. The row of a bit reads it and higher bits."""
    return [1 << bit | _bits(seed, dimension, bit) >> (bit + 1) << (bit + 1) for bit in range(BITS)]


def _bits(seed: int, dimension: int, number: int) -> int:
    """BITS random bits."""
    digest = hashlib.sha512(f"sobol {seed} {dimension} {number}".encode()).digest()
    return int.from_bytes(digest[: BITS // 8], "big")
