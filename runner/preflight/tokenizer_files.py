"""What the tokenizer of a model on this machine has: its special tokens, and whether a token is in its vocabulary."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modal_app.store.read_json import read_json
from runner.keys.hub_commits import cached_snapshot

VOCABULARY = "tokenizer.json"
SETTINGS = "tokenizer_config.json"


def tokenizer_folder(axolotl: Mapping[str, Any]) -> Path | None:
    """The folder with tokenizer.json of a config's tokenizer; None if it is not on this machine."""
    named, revision = axolotl.get("tokenizer_config"), None
    if not named:
        named, revision = axolotl.get("base_model"), axolotl.get("revision_of_model")
    name = str(named or "")
    if not name:
        return None
    own = Path(name).expanduser()
    if own.is_dir():
        return own if (own / VOCABULARY).is_file() else None
    return cached_snapshot(name, None if revision is None else str(revision), VOCABULARY)


def special_token(folder: Path, name: str) -> str | None:
    """The tokenizer's own `eos_token` or the like."""
    given = read_json(folder / SETTINGS, lenient=True).get(name)
    if isinstance(given, dict):
        given = given.get("content")
    return given if isinstance(given, str) else None


@dataclass(frozen=True, slots=True)
class Vocabulary:
    pieces: frozenset[str]
    """What ordinary text is made of."""
    added: Mapping[str, int]
    """Tokens that are one token whatever the text around them, with their numbers."""
    by_bytes: bool
    """Whether every text can be made of the pieces, so that none becomes an unknown token."""

    def has(self, token: str) -> bool:
        return token in self.pieces or token in self.added

    def is_in_three_or_more(self, text: str) -> bool:
        """Whether a text of plain ASCII without spaces certainly becomes more than two tokens."""
        if not self.by_bytes or not text.isascii() or " " in text or self.has(text):
            return False
        spellings = (text, f"\u0120{text}")  # with the space that some tokenizers put in front
        halves = ((one[:at], one[at:]) for one in spellings for at in range(1, len(one)))
        return not any(first in self.pieces and second in self.pieces for first, second in halves) and not any(
            token in text for token in self.added
        )


def vocabulary(folder: Path) -> Vocabulary | None:
    """None where its files are of another form."""
    path = folder / VOCABULARY
    stat = path.stat()
    return _vocabulary(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=8)  # a vocabulary has up to 30 MB
def _vocabulary(path: Path, size: int, changed: int) -> Vocabulary | None:
    raw, settings = read_json(path, lenient=True), read_json(path.parent / SETTINGS, lenient=True)
    model, listed = raw.get("model"), raw.get("added_tokens")
    pieces = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(pieces, dict) or not isinstance(model, dict):
        return None
    try:
        added = _added(listed, settings.get("added_tokens_decoder"))
    except (TypeError, ValueError):  # not a valid number
        return None
    by_bytes = model.get("type") == "BPE" and "ByteLevel" in json.dumps(raw.get("pre_tokenizer"))
    return Vocabulary(frozenset(pieces), added, by_bytes)


def _added(listed: Any, decoder: Any) -> dict[str, int]:
    """Token -> its number, by tokenizer.json and then by the settings."""
    found = {str(one.get("content")): int(one.get("id", -1)) for one in listed or () if isinstance(one, dict)}
    for number, one in decoder.items() if isinstance(decoder, dict) else ():
        found.setdefault(str(one.get("content")) if isinstance(one, dict) else str(one), int(number))
    return found
