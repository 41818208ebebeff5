"""Durations as people write them."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours if there are any.

    >>> clock(5.9), clock(192), clock(7384)
    ('0:05', '3:12', '2:03:04')
    """
    minutes, rest = divmod(int(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def about(seconds: float) -> str:
    """An estimate, no more exact than it is.

    >>> about(3), about(34), about(70), about(370), about(8000)
    ('under 10 s', 'about 30 s', 'about 70 s', 'about 6 min', 'about 2.2 h')
    """
    if seconds < 10:
        return "under 10 s"
    if seconds < 95:
        return f"about {round(seconds / 10) * 10:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.2g} h"
