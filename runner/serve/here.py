"""Serves models on this machine: binds the port, starts the server's process, prints how to use it, ends it."""

from __future__ import annotations

import errno
import ipaddress
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modal_app.store.pins import InputChanged, check_config
from modal_app.store.verified import model_damage
from runner.console import terminal
from runner.console.interrupts import terminate_as_interrupt
from runner.environment import trainer_environment
from runner.errors import SweepError
from runner.serve.choice import ServeSelection
from runner.serve.process import serving
from runner.serve.words import Address, how_to_ask
from runner.store.served import noted

LOOPBACK = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "[::]")
"""Addresses that mean all addresses of this machine. A client cannot use them."""
LOG = "log.txt"
SHOWN_LINES = 12


@terminate_as_interrupt()
def serve(chosen: ServeSelection, token: str, host: str, port: int, *, max_body: int, as_json: bool) -> int:
    """Serve until Ctrl-C. `port` 0 means any free port; with an empty token, only processes of this user may use the
    server; `max_body` is the largest request, in bytes.

    Raises SweepError when the port cannot be bound, a base model has changed, or the models cannot be loaded.
    """
    _check_inputs(chosen)
    python = trainer_environment.find()
    listening = bind(host, port)
    place = Path(tempfile.mkdtemp(prefix="axosweep-serve-"))
    try:
        note = noted(chosen.store, [one.key for one in chosen.subjects])
        with listening, note, serving(python, chosen, place, listening, token, max_body) as events:
            address = Address(_url(listening), bool(token))
            for event in events:
                if event["event"] == "ready":
                    how_to_ask(chosen, address, as_json=as_json)
                elif event["event"] == "failed":
                    raise SweepError(_failure(event["message"], place / LOG))
                elif not as_json:
                    _say(event)
            raise AssertionError("a server that has ended has failed")
    except KeyboardInterrupt:
        terminal.message("The server has ended.")
        return 0
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _check_inputs(chosen: ServeSelection) -> None:
    try:
        for one in chosen.models:
            check_config(one.config, chosen.store.inputs)
    except InputChanged as error:
        raise SweepError(f"Nothing is served: {error}.") from error
    for folder in (one.adapter or one.weights for one in chosen.models):
        if folder and (damage := model_damage(chosen.store, Path(folder))):
            raise SweepError(f"Nothing is served: the model in {folder} is damaged: {damage}.")


def is_loopback(host: str, port: int) -> bool:
    """Whether only this machine can reach it. Raises SweepError for an unknown address."""
    return ipaddress.ip_address(_resolved(host, port)[1][0]).is_loopback


def bind(host: str, port: int) -> socket.socket:
    """A socket that is bound, but not yet listening, so that early requests are refused and do not wait."""
    family, where = _resolved(host, port)
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.set_inheritable(True)
    except OSError as error:
        listening.close()
        raise SweepError(_unbound(host, port, error)) from error
    return listening


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise SweepError(f"--host {host} cannot be resolved on this machine. Name one of its addresses.") from error
    return family, where


def _unbound(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host} is not an address of this machine. Name one of its addresses."
    return f"Port {port} cannot be used ({error.strerror}). Leave out --port to use any free port."


def _say(event: Mapping[str, Any]) -> None:
    text = "Starting Axolotl; its imports take a few seconds." if event["event"] == "importing" else ""
    terminal.message(text or f"Loading {event['model']}")


def _url(listening: socket.socket) -> str:
    address, port = listening.getsockname()[:2]
    name = f"[{address}]" if ":" in address else address
    return f"http://{LOOPBACK if name in EVERYWHERE else name}:{port}"


def _failure(message: str, log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    last = "\n".join(f"  {line}" for line in text.splitlines()[-SHOWN_LINES:])
    return f"The models could not be served: {message}. The server's last output:\n{last}"
