"""Removes paths of this machine from what is published, since a path can name a customer. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from runner.console.redact import redact

_PATH = re.compile(r"(?<![\w.~/:\\-])(?:~[\w-]*|\.{1,2})?/[^\s'\",;\]\[(){}=]+")
"""A path in a line of text: it begins with /, ~/, ./ or ../, unlike a hub name."""
_WINDOWS = re.compile(r"^[A-Za-z]:\\")
_OF_PATHS = ("base", "store")
"""Keys of a command whose values are paths."""


def without_places(value: Any) -> Any:
    """The same JSON value, in which each text that is a path is replaced by its last part.

    >>> without_places({"a": "/srv/acme/model", "b": ["owner/name", "no / path"]})
    {'a': 'model', 'b': ['owner/name', 'no / path']}
    """
    match value:
        case Mapping():
            return {key: without_places(item) for key, item in value.items()}
        case list() | tuple():
            return [without_places(item) for item in value]
        case str() if is_place(value):
            return last_part(value)
    return value


def is_place(text: str) -> bool:
    looks = text.startswith(("/", "~", "./", "../")) or _WINDOWS.match(text) is not None
    return looks and len(text) > 1 and not any(sign in text for sign in "\n{}<>")


def last_part(text: str) -> str:
    """
    >>> last_part("data/acme/rows.jsonl"), last_part("/models/tiny/")
    ('rows.jsonl', 'tiny')
    """
    return PurePath(text.replace("\\", "/")).name or text


def words_without_places(text: str, local: Iterable[str] = ()) -> str:
    """A command without secrets and paths. `local`: texts that are known to be paths, also relative ones.

    >>> words_without_places("axosweep -m base=me/a.yml data.path=acme/b.jsonl model=own/er", ["acme/b.jsonl"])
    'axosweep -m base=a.yml data.path=b.jsonl model=own/er'
    >>> words_without_places("name=it's")
    "name=it's"
    """
    known = "|".join(map(re.escape, sorted({*local, *_paths_in(text)}, key=len, reverse=True)))
    text = re.sub(rf"(?<![\w.~/-])(?:{known})(?![\w./-])", lambda found: last_part(found[0]), text)
    return redact(_PATH.sub(lambda found: last_part(found[0]), text))


def _paths_in(command: str) -> Iterator[str]:
    """The values of the keys that name paths."""
    try:
        words = shlex.split(command)
    except ValueError:  # a single override, which is not quoted for a shell
        words = [command]
    for word in words:
        key, _, values = word.lstrip("+").partition("=")
        if key in _OF_PATHS:
            yield from filter(None, values.split(","))
