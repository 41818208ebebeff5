"""Hugging Face hub names -> commits: from the hub by its own library, or from the local hub cache."""

from __future__ import annotations

import functools
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from modal_app.store.redact import without_passwords

if TYPE_CHECKING:  # imported late: it takes most of a second, and most commands do not need the hub
    from huggingface_hub import HfApi

TIMEOUT_S = 5.0
TRUE = frozenset({"1", "TRUE", "YES", "ON"})
"""Values that switch one of the hub's own variables on."""
TOKENS = ("HF_TOKEN", "HUGGINGFACE_TOKEN")
"""Variables that may contain a token; the second is its name in the secret on Modal."""
DEFAULT_ENDPOINT = "https://huggingface.co"
_COMMIT = re.compile(r"^[0-9a-f]{40}$")


@dataclass(frozen=True, slots=True)
class Repository:
    kind: Literal["model", "dataset"]
    name: str


@dataclass(frozen=True, slots=True)
class Resolution:
    commit: str | None
    problem: str = ""
    """Why there is no commit."""


@functools.cache
def resolve(repository: Repository, revision: str | None) -> Resolution:
    """The commit that a name means now. A full commit is returned unchecked.

    Requests it from HF_ENDPOINT with the user's token. With HF_HUB_OFFLINE, or when the hub does not answer, it reads
    the local cache's `refs`. Never raises: if there is no commit, the resolution has the reason.
    """
    revision = revision or "main"
    if _COMMIT.match(revision):
        return Resolution(revision)
    answer = Resolution(None, "HF_HUB_OFFLINE is set") if is_offline() else _ask(repository, revision)
    cached = None if answer.commit else _from_cache(repository, revision)
    return Resolution(cached) if cached else answer


def hub_api() -> HfApi:
    """The hub's library with the user's endpoint and token. It sends no telemetry, and looks for no other token."""
    from huggingface_hub import HfApi, constants

    # Not by its environment variable, which child processes would inherit: a preloaded trainer is used only by commands
    # with the same variables.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    return HfApi(endpoint=endpoint(), token=user_token() or False)


@dataclass(frozen=True, slots=True)
class Access:
    """Whether this machine reaches the hub."""

    endpoint: str
    """As it may be shown."""
    reached: bool
    refused: bool = False
    """It does not accept the token."""
    problem: str = ""


def look(timeout_s: float) -> Access:
    """Check the token with the hub, or without a token only that the hub answers. Never raises.

    The time that the library takes to import counts, up to half of the limit.
    """
    began = time.monotonic()
    from huggingface_hub import get_session
    from huggingface_hub.utils import httpx

    token = user_token()
    headers = {"authorization": f"Bearer {token}"} if token and can_be_sent(token) else {}
    address = f"{endpoint()}/api/whoami-v2" if token else endpoint()
    try:  # HfApi.whoami takes no timeout
        session = get_session()
        left_s = max(timeout_s - (time.monotonic() - began), timeout_s / 2)
        reply = session.get(address, headers=headers, timeout=left_s)
    except (OSError, ValueError, ImportError, httpx.HTTPError, httpx.InvalidURL) as error:
        return Access(shown_endpoint(), reached=False, problem=_sentence(error))
    return Access(shown_endpoint(), reached=True, refused=bool(token) and reply.status_code in (401, 403))


def has_token() -> bool:
    return user_token() is not None


def user_token() -> str | None:
    """HF_TOKEN or HUGGINGFACE_TOKEN, or the token that `hf auth login` has stored."""
    for name in TOKENS:
        if token := os.environ.get(name, "").strip():
            return token
    file = Path(os.environ.get("HF_TOKEN_PATH") or hub_home() / "token").expanduser()
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def can_be_sent(token: str) -> bool:
    """Whether the token is valid in a header. This is checked since the library's error would print the token."""
    return token.isascii() and token.isprintable()


def is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in TRUE


def endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT).rstrip("/")


def shown_endpoint() -> str:
    return without_passwords(endpoint())


def hub_cache() -> Path:
    """The folder of the hub's local cache, by huggingface_hub's own rules."""
    return Path(os.environ.get("HF_HUB_CACHE") or hub_home() / "hub").expanduser()


def cached_snapshot(model: str, revision: str | None, file: str) -> Path | None:
    """The folder of a model in the hub's cache, if it has this file: of the revision, or without one, the newest."""
    name = f"models--{model.replace('/', '--')}"
    if revision is None:
        found = sorted((hub_cache() / name).glob(f"snapshots/*/{file}"), key=lambda path: path.lstat().st_mtime)
        return found[-1].parent if found else None
    commit = revision if _COMMIT.match(revision) else _from_cache(Repository("model", model), revision)
    folder = hub_cache() / name / "snapshots" / commit if commit else None
    return folder if folder is not None and (folder / file).is_file() else None


def hub_home() -> Path:
    return Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface"))


def _ask(repository: Repository, revision: str) -> Resolution:
    if (token := user_token()) and not can_be_sent(token):
        return Resolution(None, "the token (HF_TOKEN, `hf auth login`) contains characters that cannot be sent")
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import httpx

    try:
        found = hub_api().repo_info(repository.name, repo_type=repository.kind, revision=revision, timeout=TIMEOUT_S)
    except HfHubHTTPError as error:
        return Resolution(None, _refusal(error.response.status_code, repository))
    except HFValidationError as error:
        return Resolution(None, f"this is not a valid name on the hub: {error}")
    except (
        json.JSONDecodeError,
        UnicodeDecodeError,
        KeyError,
        TypeError,
    ):  # the library's errors for an answer in an unknown form
        return Resolution(None, "the hub's answer contains no commit")
    except (OSError, ValueError, ImportError, httpx.HTTPError, httpx.InvalidURL) as error:
        return Resolution(None, f"the hub did not answer: {_sentence(error)}")
    if isinstance(found.sha, str) and _COMMIT.match(found.sha):
        return Resolution(found.sha)
    return Resolution(None, "the hub's answer contains no commit")


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__


def _refusal(code: int, repository: Repository) -> str:
    if code in (401, 403):
        return (
            f"the hub answered {code}: no such name, or it is private or gated and your token (HF_TOKEN, "
            "`hf auth login`) gives no access to it"
        )
    if code == 404:
        return f"the hub answered 404: it has no {repository.kind} of this name and revision"
    return f"the hub answered {code}"


def _from_cache(repository: Repository, revision: str) -> str | None:
    folder = f"{repository.kind}s--{repository.name.replace('/', '--')}"
    try:
        commit = (hub_cache() / folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return commit if _COMMIT.match(commit) else None
