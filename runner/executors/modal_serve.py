"""Servers on Modal: deploys one with its token, lists them from the runs Volume, ends them."""

from __future__ import annotations

import io
import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

import modal
import modal.exception

from modal_app.cloud.job import CACHE_MOUNT, RUNS_MOUNT
from modal_app.cloud.vllm_app import FUNCTION, Serve, build_app
from modal_app.serving.spec import SERVED, TOKEN_VARIABLE
from modal_app.serving.vllm import Vllm
from runner.errors import SweepError, did_you_mean
from runner.executors.modal_copies import listed, read_text
from runner.executors.modal_deploy import deploy as deploy_app
from runner.executors.modal_errors import explained
from runner.executors.serve_deployments import ServeDeployment

SECRET = "axosweep-serve"
"""Modal's secret with the token of all servers."""
TOKEN_BYTES = 24


def check(serve: Serve) -> None:
    """Raises SweepError for a model that is no longer on the Volumes, before a GPU is rented for it."""
    places = ((str(CACHE_MOUNT), serve.cache_volume), (str(RUNS_MOUNT), serve.runs_volume))
    with explained():
        for path in folders(serve.served):
            mount, volume = next(place for place in places if PurePosixPath(path).is_relative_to(place[0]))
            there = PurePosixPath(path).relative_to(mount).as_posix()
            if not listed(modal.Volume.from_name(volume), there):
                raise SweepError(
                    f"The Volume {volume} has no {there}, which is to be served. Launch its sweep again to restore "
                    "removed files."
                )


def deploy(serve: Serve, models: Sequence[tuple[tuple[str, ...], str]]) -> ServeDeployment:
    """Deploy, unless the same is deployed already."""
    with explained():
        if (url := _url(serve.app_name)) is None:
            deploy_app(build_app(serve))
            url = _url(serve.app_name)
        assert url is not None, "a web function has an address"
        deployed = ServeDeployment(serve.app_name, url.rstrip("/"), tuple(models), serve.gpu, serve.idle_s, time.time())
        record = io.BytesIO(json.dumps(asdict(deployed), indent=1).encode())
        with modal.Volume.from_name(serve.runs_volume).batch_upload(force=True) as batch:
            batch.put_file(record, f"/{SERVED}/{serve.app_name}.json")
        return deployed


def keep_token(token: str, show: Callable[[str], None]) -> None:
    """Make sure that Modal's secret has a token: the given one, the one it has, or a random one that is shown here and
    never again."""
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
    """End the named servers, or the only one; returns their names. Raises SweepError when none matches."""
    known = [one.app for one in deployments(runs_volume)]
    if not known:
        raise SweepError("Nothing is being served on Modal.")
    if not names and len(known) > 1:
        raise SweepError(f"Several servers run on Modal. Name the one to end: {', '.join(known)}.")
    ended = list(dict.fromkeys(_fitting(name, known) for name in names)) or known
    with explained():
        volume = modal.Volume.from_name(runs_volume)
        for app in ended:
            modal.App.lookup(app).stop()
            volume.remove_file(f"{SERVED}/{app}.json")
    return ended


def deployments(runs_volume: str) -> list[ServeDeployment]:
    """The servers that are still deployed, oldest first."""
    with explained():
        volume = modal.Volume.from_name(runs_volume)
        paths = [entry.path for entry in listed(volume, SERVED) if entry.path.endswith(".json")]
        stored = [_read(json.loads(read_text(volume, path))) for path in paths]
        return sorted((one for one in stored if _url(one.app) is not None), key=lambda one: one.at)


def _read(raw: dict[str, Any]) -> ServeDeployment:
    return ServeDeployment(**{**raw, "models": tuple((tuple(names), what) for names, what in raw["models"])})


def _url(app: str) -> str | None:
    """The address of a deployment; None where there is none."""
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
    """All folders that a server reads, as paths in its container, each once."""
    return list(dict.fromkeys([served.model, served.tokenizer, *served.adapters.values()]))


def _fitting(name: str, known: Sequence[str]) -> str:
    fits = [app for app in known if app == name] or [app for app in known if app.startswith(name)]
    if len(fits) != 1:
        hint = f" It matches {', '.join(fits)}." if fits else did_you_mean(name, known)
        raise SweepError(f"No server is called {name}.{hint} Servers: {', '.join(known)}.")
    return fits[0]
