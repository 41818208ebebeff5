"""`axosweep serve`: an OpenAI-compatible server of finished runs and their base model, here or on Modal."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from modal_app.serving.spec import TOKEN_VARIABLE
from runner.config.gpus import gpu_kind, modal_gpu
from runner.console import terminal
from runner.console.parser import Names, VerbParser
from runner.errors import SweepError
from runner.executors.modal_submission import read_submission, submitted_as
from runner.serve import here as serve_here
from runner.serve.choice import ServeSelection, choose
from runner.serve.vllm import gpu_of, vllm_of
from runner.serve.words import Address, how_to_ask, show_deployed
from runner.store.stores import is_mirror, stores

STOP, LIST = "stop", "list"
RUNS_VOLUME = "axosweep-runs"
IDLE_MINUTES, LONGEST_IDLE_MINUTES = 5.0, 20.0
"""Modal's limit is the latter."""
SHORTEST_TOKEN = 16
"""Of one that others than this machine may try."""


def parser() -> VerbParser:
    verb = VerbParser(
        "serve",
        description="An OpenAI-compatible server of runs and their base model: on this machine, or on Modal for runs "
        "that are there.",
        epilog=f"`axosweep serve {LIST}` lists what is deployed on Modal, `axosweep serve {STOP} [NAME]` ends it.",
    )
    names = [Names.RUN, LIST, STOP]
    verb.add("runs", nargs="*", metavar="RUN", names=names, help="runs; of a sweep (the newest) all that have finished")
    verb.add_argument("--merged", action="store_true", help="serve what `axosweep merge` has made of the runs")
    verb.add_argument("--token", help=f"what whoever asks must know; {TOKEN_VARIABLE} keeps it from other eyes")
    verb.add_argument("--port", type=int, help="here: a free one by default")
    verb.add_argument("--host", help=f"here: {serve_here.LOOPBACK} by default; any other needs a token")
    verb.add_argument("--gpu", help="on Modal: a GPU of conf/gpu, with :N for several; the runs' own by default")
    verb.add_argument(
        "--idle-minutes", type=float, help=f"on Modal: the wait for another question ({IDLE_MINUTES:g} by default)"
    )
    verb.add_argument("--runs-volume", default=RUNS_VOLUME, help=f"{LIST}, {STOP}: executor.modal.runs_volume")
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    if args.runs and args.runs[0] in (STOP, LIST):
        return _stop(args) if args.runs[0] == STOP else _list(args)
    token = _token(args.token)
    chosen = choose(stores(args.store), args.runs or [None], merged=args.merged)
    if is_mirror(chosen.store):
        _refuse("on this machine", args, ("port", "host"))
        return _serve_on_modal(chosen, token, args)
    _refuse("on Modal", args, ("gpu", "idle_minutes"))
    host, port = args.host or serve_here.LOOPBACK, args.port or 0
    if not serve_here.is_loopback(host, port):
        _refuse_short(token, f"--host {host} lets other machines ask", "leave --host out")
    return serve_here.serve(chosen, token, host, port, as_json=args.json)


def _serve_on_modal(chosen: ServeSelection, token: str, asked: argparse.Namespace) -> int:
    """Deploys. Everything that can be refused is, before anything is made there."""
    name, count = gpu_of(chosen, asked.gpu)
    served = vllm_of(chosen, count, half=not gpu_kind(name).bf16)
    idle = IDLE_MINUTES if asked.idle_minutes is None else asked.idle_minutes
    if not 0 < idle <= LONGEST_IDLE_MINUTES:
        raise SweepError(f"--idle-minutes {idle:g}: more than 0, at most {LONGEST_IDLE_MINUTES:g} (Modal's limit).")
    if token:
        _refuse_short(token, "A server on Modal has a public address", f"unset {TOKEN_VARIABLE} for one that is drawn")
    first = chosen.subjects[0]
    names, _ = read_submission(first.store, submitted_as(first.store, first.key, first.sweep))
    from modal_app.cloud.vllm_app import Serve
    from runner.executors import modal_serve

    plan = Serve(
        served, modal_gpu(name, count), round(idle * 60), names.cache_volume, names.runs_volume, modal_serve.SECRET
    )
    modal_serve.check(plan)
    modal_serve.keep_token(token, _show_token)
    models = [(model.names, what) for model, what in zip(chosen.models, chosen.told, strict=True)]
    deployed = modal_serve.deploy(plan, models)
    how = f"`axosweep serve {STOP} {deployed.app}` ends it; a {plan.gpu} is rented from a question until {idle:g} min"
    how_to_ask(chosen, Address(deployed.url, True, f"{how} after the last"), as_json=asked.json)
    return 0


def _stop(asked: argparse.Namespace) -> int:
    from runner.executors import modal_serve

    for app in modal_serve.stop(asked.runs[1:], asked.runs_volume):
        print(f"{app} has ended.")
    return 0


def _list(asked: argparse.Namespace) -> int:
    if asked.runs[1:]:
        raise SweepError(f"`axosweep serve {LIST}` takes no names: it lists all that is deployed.")
    from runner.executors import modal_serve

    show_deployed(modal_serve.deployments(asked.runs_volume), as_json=asked.json)
    return 0


def _show_token(token: str) -> None:
    """On a terminal only: what is piped is often kept."""
    if not sys.stderr.isatty():
        raise SweepError(
            f"There is no token at Modal yet, and one that is drawn is shown on a terminal only. Set {TOKEN_VARIABLE} "
            f"to one of your own, of at least {SHORTEST_TOKEN} characters."
        )
    terminal.message(
        f"The token of what is served, shown this once and kept at Modal:\n  export {TOKEN_VARIABLE}={token}"
    )


def _token(given: str | None) -> str:
    token = given if given is not None else os.environ.get(TOKEN_VARIABLE, "")
    if any(not "!" <= letter <= "~" for letter in token):
        raise SweepError("A token is letters, digits and signs, without spaces: it is sent in a header.")
    return token


def _refuse_short(token: str, why: str, otherwise: str) -> None:
    if len(token) < SHORTEST_TOKEN:
        raise SweepError(
            f"{why}: set a token of at least {SHORTEST_TOKEN} characters, export {TOKEN_VARIABLE}=..., or {otherwise}."
        )


def _refuse(place: str, asked: argparse.Namespace, names: Sequence[str]) -> None:
    for name in names:
        if getattr(asked, name) is not None:
            raise SweepError(f"--{name.replace('_', '-')} is for runs {place}, and these are not.")
