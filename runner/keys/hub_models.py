"""What the hub says of a model at one commit: its config.json and the number of its weights.

Each is requested once, and stored with the commit.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from modal_app.store.read_json import read_json
from modal_app.store.step import write_atomically
from runner.keys.hub_commits import (
    Repository,
    can_be_sent,
    endpoint,
    hub_home,
    is_offline,
    resolve,
    shown_endpoint,
    user_token,
)

TIMEOUT_S = 5.0
MOST_BYTES = 2**20
"""The most that is read of an answer: the config.json of a large model has some kilobytes."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""The types of numbers that are one weight each. Others may hold several, packed."""


@dataclass(frozen=True, slots=True)
class HubModel:
    name: str
    commit: str
    config: Mapping[str, Any]
    """Its config.json."""
    weights: int | None = None
    """As the hub counts them; None without a request, or without an answer."""
    counted: bool = False
    """Whether the hub got a request."""

    @property
    def source(self) -> str:
        return f"{shown_endpoint()}/{self.name}/blob/{self.commit}/config.json"


@functools.cache
def hub_model(name: str, revision: str | None) -> HubModel | str:
    """The model that a name means now, or the reason why it is unknown. Never raises."""
    resolved = resolve(Repository("model", name), revision)
    if resolved.commit is None:
        return resolved.problem
    if (known := stored_model(name, resolved.commit)) is not None:
        return known
    config = _get(f"{endpoint()}/{quote(name)}/resolve/{resolved.commit}/config.json", "config.json")
    if isinstance(config, str):
        return config
    return _store(HubModel(name, resolved.commit, config))


def with_weights(model: HubModel) -> HubModel:
    """The same with the number of its weights, if the hub says it."""
    if model.counted:
        return model
    answer = _get(f"{endpoint()}/api/models/{quote(model.name)}/revision/{model.commit}", "its number of weights")
    if isinstance(answer, str):
        return model
    return _store(replace(model, weights=weights_in(answer.get("safetensors")), counted=True))


def weights_in(summary: Any) -> int | None:
    """The number of weights in the hub's summary of safetensors files: numbers by their type."""
    numbers = summary.get("parameters") if isinstance(summary, dict) else None
    if not isinstance(numbers, dict) or not numbers or not set(numbers) <= FLOATS:
        return None
    right = all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in numbers.values())
    return sum(numbers.values()) or None if right else None


def _get(address: str, what: str) -> dict[str, Any] | str:
    """A JSON object from the hub, or the reason why there is none."""
    if is_offline():
        return "HF_HUB_OFFLINE is set"
    if (token := user_token()) and not can_be_sent(token):
        return "the token (HF_TOKEN, `hf auth login`) contains characters that cannot be sent"
    from huggingface_hub import get_session
    from huggingface_hub.utils import httpx

    headers = {"authorization": f"Bearer {token}"} if token else {}
    body, ends = b"", time.monotonic() + 2 * TIMEOUT_S
    try:
        with get_session().stream("GET", address, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as reply:
            if reply.status_code != 200:
                return _refusal(reply.status_code, what)
            for piece in reply.iter_bytes():
                body += piece
                if time.monotonic() > ends:
                    return f"the hub did not answer within {TIMEOUT_S * 2:.0f} s"
                if len(body) > MOST_BYTES:
                    return f"the hub's answer for {what} is larger than {MOST_BYTES:,} bytes"
        content = json.loads(body)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return f"the hub's answer for {what} is not valid JSON"
    except (OSError, ValueError, ImportError, httpx.HTTPError, httpx.InvalidURL) as error:
        return f"the hub did not answer: {str(error) or type(error).__name__}"
    return content if isinstance(content, dict) else f"the hub's answer for {what} is not a JSON object"


def _refusal(code: int, what: str) -> str:
    if code in (401, 403):
        return (
            f"the hub answered {code} for {what}: the model is gated or private. Accept its terms on its page, and set "
            "HF_TOKEN or run `hf auth login`"
        )
    return f"the hub answered {code} for {what}"


def _file(name: str, commit: str) -> Path:
    """The file for a model, in the folder that the hub's library provides for other programs' caches."""
    assets = os.environ.get("HF_ASSETS_CACHE") or hub_home() / "assets"
    return Path(assets).expanduser() / "axosweep" / "models" / name.replace("/", "--") / f"{commit}.json"


def stored_model(name: str, commit: str) -> HubModel | None:
    """A model that was requested from the hub earlier, as stored on this machine; None if there is none."""
    stored = read_json(_file(name, commit), lenient=True)
    config, weights, counted = (stored.get(key) for key in ("config", "weights", "counted"))
    if not isinstance(config, dict) or not isinstance(counted, bool) or not isinstance(weights, int | None):
        return None
    return HubModel(name, commit, config, weights, counted)


def _store(model: HubModel) -> HubModel:
    """Returns the model. Stores it if its folder can be written to."""
    file = _file(model.name, model.commit)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        content = {"config": dict(model.config), "weights": model.weights, "counted": model.counted}
        write_atomically(file, json.dumps(content))
    return model
