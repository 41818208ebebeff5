"""Checks what W&B needs before anything starts: a key for runs that are tracked online, and valid tags."""

from __future__ import annotations

import configparser
import netrc
import os
import urllib.parse
from pathlib import Path

from modal_app.process.tracking import LONGEST_TAG
from runner.errors import SweepError
from runner.types import Plan

CLOUD = "https://api.forge.coreweave.com"
"""The same as wandb.sdk.lib.urls, which is not imported here."""
FORMER_CLOUD = "api.wandb.ai"
"""The machine under which earlier versions of the SDK saved the key of the same cloud. The SDK still reads it."""
KEY_VARIABLE = "WANDB_API_KEY"


def base_url() -> str:
    """The address of W&B, found like its SDK does: the environment, then its settings file, then W&B's own cloud."""
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    settings = configparser.ConfigParser()
    try:
        settings.read(folder / "settings")
    except configparser.Error:
        settings.clear()
    configured = settings.get("default", "base_url", fallback="")
    return os.environ.get("WANDB_BASE_URL") or configured or CLOUD


def host() -> str:
    return urllib.parse.urlsplit(base_url()).hostname or ""


def has_key() -> bool:
    """Whether this machine has a key for it: in the environment, or where `wandb login` saves it."""
    machines = [urllib.parse.urlsplit(base_url()).netloc]  # with its port, as `wandb login` writes it
    if base_url().rstrip("/") == CLOUD:
        machines.append(FORMER_CLOUD)
    return bool(os.environ.get(KEY_VARIABLE)) or any(map(_in_netrc, machines))


def tracks_online(plan: Plan) -> bool:
    """Whether a pending run needs a key."""
    return any(planned.step.tracking.mode == "online" for planned in plan.pending)


def check_tags(plan: Plan) -> None:
    """Raises SweepError for a tag that W&B would refuse when its run starts."""
    tags = {tag for planned in plan.pending for tag in planned.step.tracking.tags}
    for tag in sorted(tags):
        if not 1 <= len(tag) <= LONGEST_TAG or "," in tag:
            raise SweepError(f"tracking.tags has {tag!r}, but W&B expects 1 to {LONGEST_TAG} characters and no comma.")


def check_key() -> None:
    """Raises SweepError when this machine has no key."""
    if not has_key():
        raise SweepError(
            f"tracking=wandb uploads to W&B during training, but there is no key for {host()} here. Run `wandb login` "
            f"or set {KEY_VARIABLE}. With tracking=offline, the runs stay here until `axosweep sync`."
        )


def _in_netrc(machine: str) -> bool:
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return netrc.netrc(path).authenticators(machine) is not None
    except (OSError, netrc.NetrcParseError):
        return False
