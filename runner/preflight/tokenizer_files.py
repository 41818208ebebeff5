"""What the tokenizer of a model on this machine has: its special tokens, and whether a token is in its vocabulary."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path

from modal_app.store.read_json import read_json
from runner.keys.hub_commits import hub_cache

VOCABULARY = "tokenizer.json"
SETTINGS = "tokenizer_config.json"


def tokenizer_folder(name: str) -> Path | None:
    """The folder with tokenizer.json of a model, which is a folder or a hub name; None if it is not on this machine."""
    if not name:
        return None
    own = Path(name).expanduser()
    if own.is_dir():
        return own if (own / VOCABULARY).is_file() else None
    snapshots = hub_cache() / f"models--{name.replace('/', '--')}" / "snapshots"
    found = sorted(snapshots.glob(f"*/{VOCABULARY}"), key=lambda path: path.lstat().st_mtime)
    return found[-1].parent if found else None


def special_token(folder: Path, name: str) -> str | None:
    """The tokenizer's own `eos_token` or the like."""
    given = read_json(folder / SETTINGS, lenient=True).get(name)
    if isinstance(given, dict):
        given = given.get("content")
    return given if isinstance(given, str) else None


def tokens_lacking(folder: Path, tokens: Sequence[str]) -> list[str]:
    """Those of the tokens that its files do not contain as a text of its own."""
    stats = [(path, path.stat()) for path in (folder / VOCABULARY, folder / SETTINGS) if path.is_file()]
    files = tuple((path, one.st_size, one.st_mtime_ns) for path, one in stats)
    return [token for token in tokens if not _contained(files, token)]


@functools.lru_cache(maxsize=1024)  # a vocabulary has up to 30 MB: it is searched, not parsed
def _contained(files: tuple[tuple[Path, int, int], ...], token: str) -> bool:
    spellings = {json.dumps(token, ensure_ascii=ascii_only).encode() for ascii_only in (True, False)}
    contents = [path.read_bytes() for path, *_ in files]
    return any(spelling in content for content in contents for spelling in spellings)
