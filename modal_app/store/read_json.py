"""Small JSON files, as they are read everywhere. Standard library.

One that cannot be read is skipped, and named once on stderr, so that it does not end every command of its store.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_named: set[str] = set()
"""The files that this process has named."""
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


def read_json(path: Path, *, lenient: bool = False) -> dict[str, Any]:
    """A JSON object; empty where there is no file, or one that cannot be read or holds something else.

    `lenient`: such a file is not named, since its facts can be found out again, or a kill may have cut it.
    """
    return parse_json(path, path.read_bytes, lenient=lenient)


def parse_json(place: Path | str, read: Callable[[], bytes], *, lenient: bool = False) -> dict[str, Any]:
    """`read_json` of what `read` returns. `place` names the file for people."""
    try:
        loaded = json.loads(read())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        why = str(error.strerror or error)
    except (ValueError, RecursionError):
        why = "it is not valid JSON"
    else:
        if isinstance(loaded, dict):
            return loaded
        why = "it is not a JSON object"
    if not lenient:
        name_unreadable(place, why)
    return {}


def read_as(path: Path, of: Callable[[dict[str, Any]], T]) -> T | None:
    """The value that `of` returns for a JSON object; None where there is no file, or one that cannot be read."""
    raw = read_json(path)
    return parsed_as(path, raw, of) if raw or path.exists() else None


def parsed_as(place: Path | str, raw: dict[str, Any], of: Callable[[dict[str, Any]], T]) -> T | None:
    """The value that `of` returns for an object that was read from `place`; None where it lacks something."""
    try:
        return of(raw)
    except _MALFORMED as error:
        name_unreadable(place, f"it lacks {error}" if isinstance(error, KeyError) else str(error))
        return None


def fields_of(kind: type, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a dataclass, without what a newer version has written in addition."""
    return {one.name: raw[one.name] for one in fields(kind) if one.name in raw}


def name_unreadable(place: Path | str, why: str) -> None:
    """Print once on stderr that a file is skipped."""
    if str(place) in _named:
        return
    _named.add(str(place))
    sys.stderr.write(f"{place} cannot be read ({why}); it is skipped.\n")
