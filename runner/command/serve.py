"""`axosweep serve`: an OpenAI-compatible server of finished runs and their base model, here or on Modal."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from modal_app.serving import peers
from modal_app.serving.spec import MAX_BODY, TOKEN_VARIABLE
from runner.config.gpus import gpu_kind, modal_gpu
from runner.console import terminal
from runner.console.parser import Names, VerbParser, port_number
from runner.console.print_json import print_json
from runner.errors import SweepError
from runner.executors.modal_submission import read_submission, submitted_as
from runner.executors.serve_deployments import EndedDeployments, ServeDeployments
from runner.serve import here as serve_here
from runner.serve.choice import ServeSelection, choose
from runner.serve.vllm import gpu_of, vllm_of
from runner.serve.words import Address, how_to_ask, show_deployed
from runner.store.stores import is_mirror, stores

STOP, LIST = "stop", "list"
RUNS_VOLUME = "axosweep-runs"
IDLE_MINUTES, LONGEST_IDLE_MINUTES = 5.0, 20.0
"""The second is Modal's limit."""
LARGEST_BODY_MIB = 1024.0
SHORTEST_TOKEN = 16
"""For a server that other machines can reach."""


def parser() -> VerbParser:
    verb = VerbParser(
        "serve",
        description="An OpenAI-compatible server of runs and their base model: on this machine, or on Modal for runs "
        "on Modal.",
        epilog=f"`axosweep serve {LIST}` lists the deployments on Modal, `axosweep serve {STOP} [NAME]` ends one.",
    )
    names, which = [Names.RUN, LIST, STOP], "runs, or a sweep: all its finished runs; the newest sweep by default"
    verb.add("runs", nargs="*", metavar="RUN", names=names, help=which)
    verb.add_argument("--merged", action="store_true", help="serve the merged models of the runs")
    verb.add_argument("--token", help=f"the token that clients must send ({TOKEN_VARIABLE} is safer)")
    verb.add_argument("--port", type=port_number, help="on this machine: a free port by default")
    verb.add_argument("--host", help=f"on this machine: {serve_here.LOOPBACK} by default; any other needs a token")
    verb.add_argument(
        "--max-body",
        type=float,
        metavar="MIB",
        help=f"on this machine: the largest request ({MAX_BODY >> 20} by default)",
    )
    verb.add_argument("--gpu", help="on Modal: a GPU of conf/gpu, with :N for several; that of the runs by default")
    verb.add_argument(
        "--idle-minutes",
        type=float,
        help=f"on Modal: keep the GPU so long after a request ({IDLE_MINUTES:g} by default)",
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
        _refuse("on this machine", args, ("port", "host", "max_body"))
        return _serve_on_modal(chosen, token, args)
    _refuse("on Modal", args, ("gpu", "idle_minutes"))
    host, port = args.host or serve_here.LOOPBACK, args.port or 0
    if not serve_here.is_loopback(host, port):
        _refuse_short(token, f"--host {host} lets other machines connect", "leave --host out")
    elif not token and not peers.are_known():
        raise SweepError(
            "Every user of this machine can connect to the server, and this system does not say who has connected. "
            f"Set a token: export {TOKEN_VARIABLE}=..."
        )
    return serve_here.serve(chosen, token, host, port, max_body=_max_body(args.max_body), as_json=args.json)


def _serve_on_modal(chosen: ServeSelection, token: str, args: argparse.Namespace) -> int:
    """Deploys. All checks come first, before anything is created on Modal."""
    name, count = gpu_of(chosen, args.gpu)
    served = vllm_of(chosen, count, half=not gpu_kind(name).bf16)
    idle = IDLE_MINUTES if args.idle_minutes is None else args.idle_minutes
    if not 0 < idle <= LONGEST_IDLE_MINUTES:
        raise SweepError(f"--idle-minutes {idle:g}: more than 0, at most {LONGEST_IDLE_MINUTES:g} (Modal's limit).")
    if token:
        _refuse_short(token, "A server on Modal has a public address", f"unset {TOKEN_VARIABLE} for a generated one")
    first = chosen.subjects[0]
    names, _ = read_submission(first.store, submitted_as(first.store, first.key, first.sweep))
    from modal_app.cloud.vllm_app import Serve
    from runner.executors import modal_serve

    plan = Serve(
        served, modal_gpu(name, count), round(idle * 60), names.cache_volume, names.runs_volume, modal_serve.SECRET
    )
    modal_serve.check(plan)
    modal_serve.keep_token(token, _show_token)
    models = [(model.names, what) for model, what in zip(chosen.models, chosen.summaries, strict=True)]
    deployed = modal_serve.deploy(plan, models)
    how = (
        f"`axosweep serve {STOP} {deployed.app}` ends it; a {plan.gpu} is rented when a request arrives, until "
        f"{idle:g} min"
    )
    how_to_ask(chosen, Address(deployed.url, True, f"{how} after the last one"), as_json=args.json)
    return 0


def _stop(args: argparse.Namespace) -> int:
    from runner.executors import modal_serve

    ended = modal_serve.stop(args.runs[1:], args.runs_volume)
    if args.json:
        print_json(EndedDeployments(tuple(ended)))
        return 0
    for app in ended:
        terminal.result(f"{app} has ended.")
    return 0


def _list(args: argparse.Namespace) -> int:
    if args.runs[1:]:
        raise SweepError(f"`axosweep serve {LIST}` takes no names: it lists everything that is deployed.")
    from runner.executors import modal_serve

    deployed = ServeDeployments(tuple(modal_serve.deployments(args.runs_volume)))
    show_deployed(deployed, as_json=args.json)
    return 0


def _show_token(token: str) -> None:
    """On a terminal only: piped output is often saved."""
    if not sys.stderr.isatty():
        raise SweepError(
            f"There is no token on Modal yet, and a generated one is shown only on a terminal. Set {TOKEN_VARIABLE} "
            f"to one of your own, of at least {SHORTEST_TOKEN} characters."
        )
    terminal.message(
        f"The token of the server, shown only once and stored on Modal:\n  export {TOKEN_VARIABLE}={token}"
    )


def _token(given: str | None) -> str:
    token = given if given is not None else os.environ.get(TOKEN_VARIABLE, "")
    if any(not "!" <= letter <= "~" for letter in token):
        raise SweepError("A token consists of letters, digits and punctuation, without spaces: it is sent in a header.")
    return token


def _max_body(mib: float | None) -> int:
    if mib is None:
        return MAX_BODY
    if not 0 < mib <= LARGEST_BODY_MIB:
        raise SweepError(f"--max-body {mib:g}: expected MiB, more than 0, at most {LARGEST_BODY_MIB:g}.")
    return int(mib * (1 << 20))


def _refuse_short(token: str, why: str, otherwise: str) -> None:
    if len(token) < SHORTEST_TOKEN:
        raise SweepError(
            f"{why}: set a token of at least {SHORTEST_TOKEN} characters, export {TOKEN_VARIABLE}=..., or {otherwise}."
        )


def _refuse(place: str, args: argparse.Namespace, names: Sequence[str]) -> None:
    for name in names:
        if getattr(args, name) is not None:
            raise SweepError(f"--{name.replace('_', '-')} is for runs {place}, and these are not.")
