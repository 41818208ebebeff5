"""What serves on Modal: deployed with its token, found again from the runs Volume, ended."""

from __future__ import annotations

import io
import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import modal
import modal.exception

from modal_app.cloud.container import CACHE_MOUNT, RUNS_MOUNT
from modal_app.cloud.vllm_app import FUNCTION, Serve, build_app
from modal_app.serving.spec import SERVED, TOKEN_VARIABLE
from modal_app.serving.vllm import Vllm
from runner.errors import SweepError, did_you_mean
from runner.executors.modal_copies import listed, read_text
from runner.executors.modal_errors import explained

SECRET = "axosweep-serve"
"""Modal's secret with the token of all that is served."""
TOKEN_BYTES = 24


@dataclass(frozen=True, slots=True)
class ServeDeployment:
    """What is served, as the runs Volume keeps it."""

    app: str
    url: str
    models: tuple[tuple[tuple[str, ...], str], ...]
    """Of each model its names, and what it is."""
    gpu: str
    idle_s: int
    at: float
    """Unix seconds."""


def check(serve: Serve) -> None:
    """Raises SweepError for what is not on the Volumes any more: a rented GPU would find that out."""
    places = ((str(CACHE_MOUNT), serve.cache_volume), (str(RUNS_MOUNT), serve.runs_volume))
    with explained():
        for path in folders(serve.served):
            mount, volume = next(place for place in places if PurePosixPath(path).is_relative_to(place[0]))
            there = PurePosixPath(path).relative_to(mount).as_posix()
            if not listed(modal.Volume.from_name(volume), there):
                raise SweepError(
                    f"The Volume {volume} has no {there}, which is to be served. The line that asked for its sweep "
                    "brings back what was removed."
                )


def deploy(serve: Serve, models: Sequence[tuple[tuple[str, ...], str]]) -> ServeDeployment:
    """Deploy, unless the very same is there already."""
    with explained():
        if (url := _url(serve.app_name)) is None:
            build_app(serve).deploy()
            url = _url(serve.app_name)
        assert url is not None, "a web function has an address"
        deployed = ServeDeployment(serve.app_name, url.rstrip("/"), tuple(models), serve.gpu, serve.idle_s, time.time())
        record = io.BytesIO(json.dumps(asdict(deployed), indent=1).encode())
        with modal.Volume.from_name(serve.runs_volume).batch_upload(force=True) as batch:
            batch.put_file(record, f"/{SERVED}/{serve.app_name}.json")
        return deployed


def keep_token(token: str, show: Callable[[str], None]) -> None:
    """See to it that Modal's secret has a token: the one given, the one it has, or one that is drawn and shown once,
    here and nowhere else."""
    with explained():
        if not token and _has_token():
            return
        if not token:
            token = secrets.token_urlsafe(TOKEN_BYTES)
            show(token)
        try:
            modal.Secret.from_name(SECRET).hydrate().update({TOKEN_VARIABLE: token})
        except modal.exception.NotFoundError:
            modal.Secret.objects.create(SECRET, {TOKEN_VARIABLE: token})


def stop(names: Sequence[str], runs_volume: str) -> list[str]:
    """End what is named, or the only one there is; what was ended. Raises SweepError when nothing fits."""
    known = [one.app for one in deployments(runs_volume)]
    if not known:
        raise SweepError("Nothing is being served on Modal.")
    if not names and len(known) > 1:
        raise SweepError(f"Name what is to end: {', '.join(known)}.")
    ended = list(dict.fromkeys(_fitting(name, known) for name in names)) or known
    with explained():
        volume = modal.Volume.from_name(runs_volume)
        for app in ended:
            modal.App.lookup(app).stop()
            volume.remove_file(f"{SERVED}/{app}.json")
    return ended


def deployments(runs_volume: str) -> list[ServeDeployment]:
    """What was deployed to serve, and still is. Oldest first."""
    with explained():
        volume = modal.Volume.from_name(runs_volume)
        paths = [entry.path for entry in listed(volume, SERVED) if entry.path.endswith(".json")]
        kept = [_read(json.loads(read_text(volume, path))) for path in paths]
        return sorted((one for one in kept if _url(one.app) is not None), key=lambda one: one.at)


def _read(raw: dict[str, Any]) -> ServeDeployment:
    return ServeDeployment(**{**raw, "models": tuple((tuple(names), what) for names, what in raw["models"])})


def _url(app: str) -> str | None:
    """Where a deployment answers; None where there is none."""
    try:
        return modal.Function.from_name(app, FUNCTION).hydrate().get_web_url()
    except modal.exception.NotFoundError:
        return None


def _has_token() -> bool:
    try:
        modal.Secret.from_name(SECRET, required_keys=[TOKEN_VARIABLE]).hydrate()
    except (modal.exception.NotFoundError, modal.exception.InvalidError):
        return False
    return True


def folders(served: Vllm) -> list[str]:
    """All that a server reads, as a container's paths, each once."""
    return list(dict.fromkeys([served.model, served.tokenizer, *served.adapters.values()]))


def _fitting(name: str, known: Sequence[str]) -> str:
    fits = [app for app in known if app == name] or [app for app in known if app.startswith(name)]
    if len(fits) != 1:
        meant = f" It fits {', '.join(fits)}." if fits else did_you_mean(name, known)
        raise SweepError(f"Nothing is served as {name}.{meant} There is: {', '.join(known)}.")
    return fits[0]
