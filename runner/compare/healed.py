"""Rows, some of them healed after an out-of-memory error -> a note on how to read their table. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from runner.compare.ranking import Row

MOST_NAMED = 3


def healed_notes(rows: Sequence[Row]) -> list[str]:
    """How the batches of runs differ from the requested ones, equal changes once; and that others are as requested."""
    changes: dict[str, list[str]] = {}
    for row in rows:
        if row.healed:
            changes.setdefault(row.healed, []).append(row.key)
    notes = [f"{_named(keys)}: {change}." for change, keys in changes.items()]
    if changes and any(row.final is not None and not row.healed for row in rows):
        notes.append(
            "Runs with a smaller micro batch take the same rows in each step, but are not exactly the requested "
            "runs: small differences from the others mean nothing."
        )
    return notes


def _named(keys: Sequence[str]) -> str:
    """`3f2a91bc04d7`, or `5 runs (3f2a91bc04d7, ...)`."""
    if len(keys) == 1:
        return keys[0]
    return f"{len(keys)} runs ({', '.join(keys[:MOST_NAMED])}{', ...' if len(keys) > MOST_NAMED else ''})"
