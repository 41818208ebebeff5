"""Hugging Face hub names -> commits: asked of the hub, or read from the local hub cache."""

from __future__ import annotations

import functools
import http.client
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

TIMEOUT_S = 5.0
TRUE = frozenset({"1", "TRUE", "YES", "ON"})
"""What switches one of the hub's own variables on."""
TOKENS = ("HF_TOKEN", "HUGGINGFACE_TOKEN")
"""Variables that may hold a token; the second is what the secret on Modal calls it."""
DEFAULT_ENDPOINT = "https://huggingface.co"
_COMMIT = re.compile(r"^[0-9a-f]{40}$")


@dataclass(frozen=True, slots=True)
class Repository:
    kind: Literal["models", "datasets"]
    name: str


@dataclass(frozen=True, slots=True)
class Resolved:
    commit: str | None
    problem: str = ""
    """Why there is no commit."""


@functools.cache
def resolve(repository: Repository, revision: str | None) -> Resolved:
    """The commit that a name stands for now. A full commit is taken at its word.

    Asks HF_ENDPOINT with the user's token; with HF_HUB_OFFLINE, or when the hub does not answer, the local cache's
    `refs` are read. Never raises: what cannot be resolved says why.
    """
    revision = revision or "main"
    if _COMMIT.match(revision):
        return Resolved(revision)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in TRUE:
        answer = Resolved(None, "HF_HUB_OFFLINE is set")
    else:
        answer = _ask(repository, revision)
    cached = None if answer.commit else _from_cache(repository, revision)
    return Resolved(cached) if cached else answer


@dataclass(frozen=True, slots=True)
class Access:
    """Whether the hub can be asked from here."""

    endpoint: str
    reached: bool
    refused: bool = False
    """It does not take the token."""
    problem: str = ""


def look(timeout_s: float) -> Access:
    """Ask the hub who we are, or without a token only whether it answers. Never raises."""
    token = user_token()
    try:
        request = urllib.request.Request(f"{_endpoint()}/api/whoami-v2" if token else _endpoint())
        if token and can_be_sent(token):
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=timeout_s):
            return Access(_endpoint(), reached=True)
    except urllib.error.HTTPError as error:
        return Access(_endpoint(), reached=True, refused=bool(token) and error.code in (401, 403))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Access(_endpoint(), reached=False, problem=str(getattr(error, "reason", error)))


def has_token() -> bool:
    return user_token() is not None


def can_be_sent(token: str) -> bool:
    """Whether a header can hold it: what http.client says of one that cannot would repeat it."""
    return token.isascii() and token.isprintable()


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT).rstrip("/")


def hub_cache() -> Path:
    """The folder of the hub's local cache, by huggingface_hub's own rules."""
    return Path(os.environ.get("HF_HUB_CACHE") or _home() / "hub").expanduser()


def _home() -> Path:
    return Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface"))


def _ask(repository: Repository, revision: str) -> Resolved:
    quoted = urllib.parse.quote(revision, safe="")
    token = user_token()
    if token and not can_be_sent(token):
        return Resolved(None, "the token (HF_TOKEN, `hf auth login`) holds characters that cannot be sent")
    address = f"{_endpoint()}/api/{repository.kind}/{repository.name}/revision/{quoted}"
    try:
        request = urllib.request.Request(address)
        if token:  # for this host only: a redirect elsewhere does not take it along
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            answer = json.load(reply)
    except urllib.error.HTTPError as error:
        return Resolved(None, _refusal(error.code, repository))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Resolved(None, f"the hub did not answer: {getattr(error, 'reason', error)}")
    commit = answer.get("sha") if isinstance(answer, dict) else None
    if isinstance(commit, str) and _COMMIT.match(commit):
        return Resolved(commit)
    return Resolved(None, "the hub's answer held no commit")


def user_token() -> str | None:
    """HF_TOKEN or HUGGINGFACE_TOKEN, or what `hf auth login` has kept."""
    for name in TOKENS:
        if given := os.environ.get(name, "").strip():
            return given
    kept = Path(os.environ.get("HF_TOKEN_PATH") or _home() / "token").expanduser()
    try:
        return kept.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _refusal(code: int, repository: Repository) -> str:
    if code in (401, 403):
        return (
            f"the hub answered {code}: no such name, or it is private or gated and your token (HF_TOKEN, "
            "`hf auth login`) does not open it"
        )
    if code == 404:
        return f"the hub answered 404: it has no {repository.kind.removesuffix('s')} of this name and revision"
    return f"the hub answered {code}"


def _from_cache(repository: Repository, revision: str) -> str | None:
    folder = f"{repository.kind}--{repository.name.replace('/', '--')}"
    try:
        commit = (hub_cache() / folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return commit if _COMMIT.match(commit) else None
