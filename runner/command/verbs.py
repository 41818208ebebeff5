"""The verbs whose command line is read here: what each takes, and whom it hands that to. The others read their own.

Verbs that compose nothing import neither Hydra nor Modal nor W&B.
"""

from __future__ import annotations

from dataclasses import replace

from runner.console import terminal
from runner.console.parser import VerbParser
from runner.errors import SweepError
from runner.store.stores import STORE_HELP
from runner.types import Experiment, Request, RunResult


def plan_verb(words: list[str]) -> int:
    parser = VerbParser("plan", add_help=False)
    parser.add_argument("--overrides", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--diff", metavar="SWEEP")
    parser.add_argument("--write", metavar="DIR")
    asked, rest = parser.parse_known_args(words)

    def launch(experiments: list[Experiment], request: Request) -> list[RunResult]:
        from runner.launch import sweep

        return sweep.launch(experiments, replace(request, diff=asked.diff, write=asked.write))

    from runner.command import application

    action = "overrides" if asked.overrides else "plan"
    return application.run([*rest, f"action={action}", *(["json=true"] if asked.json else [])], launch)


def status_verb(words: list[str]) -> int:
    from runner.compare.ranking import compare_sweep
    from runner.show import tables
    from runner.show.status import all_sweeps
    from runner.store.finding import sweep_in
    from runner.store.ledger import sweep_ids
    from runner.store.mirror_age import stale
    from runner.store.stores import stores

    parser = _parser("status", "How every sweep stands, or every run of one sweep.")
    parser.add_argument("sweep", nargs="?", help="a sweep's id, or the beginning of it")
    parser.add_argument("--refresh", action="store_true", help="look at Modal first; else its sweeps are as last seen")
    asked = parser.read(words)
    known = stores(asked.store)
    if asked.sweep is None:
        asked_for = [(store, sweep) for store in known for sweep in sweep_ids(store)]
    else:
        found = sweep_in(known, asked.sweep)
        asked_for = [(found.store, found.sweep)]
    old = [(store, sweep) for store, sweep in asked_for if stale(store, sweep)]
    if asked.refresh and old:
        from runner.executors import modal_verbs

        for store, sweep in old:
            modal_verbs.look(store, sweep)
    if asked.sweep is None:
        tables.show_sweeps(all_sweeps(*known), known[0], as_json=asked.json)
    else:
        rows = compare_sweep(found.store, found.sweep)
        tables.show_rows(rows, found.store, found.sweep, as_json=asked.json)
    for text in filter(None, (stale(store, sweep) for store, sweep in old)):
        terminal.message(text)
    return 0


def attach_verb(words: list[str]) -> int:
    from runner.command import attach

    parser = _parser("attach", "Follow a sweep on Modal, from any machine, until it has ended.")
    parser.add_argument("sweep", nargs="?", help="a sweep's id; the newest one on Modal that this machine knows")
    parser.add_argument("--runs-volume", default="axosweep-runs", help="executor.modal.runs_volume of the sweep")
    asked = parser.read(words)
    return attach.attach(asked.store, asked.sweep, asked.runs_volume, as_json=asked.json)


def logs_verb(words: list[str]) -> int:
    from runner.command import logs
    from runner.store.finding import runs_in
    from runner.store.stores import stores

    parser = VerbParser("logs", description="The newest attempt's log of a run.")
    parser.add_argument("run", help="a run's key, or the beginning of it")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run has ended")
    parser.add_argument("--store", help=STORE_HELP)
    asked = parser.read(words)
    store, runs, _ = runs_in(stores(asked.store), asked.run)
    if len(runs) > 1:
        raise SweepError(f"{asked.run} has {len(runs)} runs: {', '.join(run.key for run in runs)}. Name one.")
    logs.show(store, runs[0], follow=asked.follow)
    return 0


def cancel_verb(words: list[str]) -> int:
    from runner.command import cancel
    from runner.store.finding import runs_in
    from runner.store.stores import stores

    parser = VerbParser("cancel", description="End what works on a sweep or a run.")
    parser.add_argument("what", nargs="?", help="a sweep's id or a run's key, or the beginning; the newest sweep")
    parser.add_argument("--store", help=STORE_HELP)
    asked = parser.read(words)
    ended = cancel.cancel(*runs_in(stores(asked.store), asked.what))
    print(f"{ended} ended." if ended else "Nothing was running.")
    return 0


def sync_verb(words: list[str]) -> int:
    from runner.command import sync
    from runner.store.finding import sweep_in
    from runner.store.stores import stores

    parser = _parser("sync", "Bring W&B up to date: offline runs, what killed ones lost, later sweeps, dollars.")
    parser.add_argument("sweep", nargs="?", help="a sweep's id, or the beginning of it; the newest by default")
    asked = parser.read(words)
    found = sweep_in(stores(asked.store), asked.sweep)
    return sync.sync(found.store, found.sweep, as_json=asked.json)


def wandb_view_verb(words: list[str]) -> int:
    from runner.command import wandb_view
    from runner.store.finding import sweep_in
    from runner.store.stores import stores

    parser = _parser("wandb-view", "Make a W&B workspace view of a sweep: its runs beside each other.")
    parser.add_argument("sweep", nargs="?", help="a sweep's id, or the beginning of it; the newest by default")
    parser.add_argument("--dry-run", action="store_true", help="print the view as JSON, save nothing")
    asked = parser.read(words)
    found = sweep_in(stores(asked.store), asked.sweep)
    return wandb_view.show(found.store, found.sweep, dry_run=asked.dry_run, as_json=asked.json)


def report_verb(words: list[str]) -> int:
    from runner.command import report
    from runner.store.finding import sweep_in
    from runner.store.stores import stores

    parser = VerbParser("report", description="A sweep as one HTML file that opens offline.")
    parser.add_argument("sweep", nargs="?", help="a sweep's id, or the beginning of it; the newest by default")
    parser.add_argument("--out", metavar="FILE", help="where to; report.html in the sweep's folder by default")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    parser.add_argument("--store", help=STORE_HELP)
    asked = parser.read(words)
    found = sweep_in(stores(asked.store), asked.sweep)
    return report.report(found.store, found.sweep, asked.out, show=asked.open)


def watch_verb(words: list[str]) -> int:
    from runner.command import watch
    from runner.store.finding import sweep_in
    from runner.store.stores import stores

    parser = VerbParser("watch", description="The report of a sweep in the browser, kept up to date while it runs.")
    parser.add_argument("sweep", nargs="?", help="a sweep's id, or the beginning of it; the newest by default")
    parser.add_argument("--port", type=int, default=0, help="of 127.0.0.1; a free one by default")
    parser.add_argument("--store", help=STORE_HELP)
    asked = parser.read(words)
    found = sweep_in(stores(asked.store), asked.sweep)
    return watch.watch(found.store, found.sweep, asked.port)


def data_verb(words: list[str]) -> int:
    from runner.command import data
    from runner.store.stores import open_store

    parser = _parser("data", "The prepared datasets, or samples of one as the model sees them.")
    parser.add_argument("data", nargs="?", help="a data key, or the beginning of it")
    asked = parser.read(words)
    data.show(open_store(asked.store), asked.data, as_json=asked.json)
    return 0


def import_verb(words: list[str]) -> int:
    from runner.command.import_config import import_config

    parser = VerbParser("import", description="Make an experiment of an Axolotl config: conf/experiment/NAME.yaml.")
    parser.add_argument("file", help="the config, a YAML file")
    parser.add_argument("--name", help="the experiment's name; the file's by default")
    parser.add_argument("--force", action="store_true", help="overwrite an experiment of this name")
    parser.add_argument("-cd", "--config-dir", help="where to write it; ./conf by default")
    asked = parser.read(words)
    print("\n".join(import_config(asked.file, name=asked.name, config_dir=asked.config_dir, force=asked.force)))
    return 0


def init_verb(words: list[str]) -> int:
    from runner.command.init import init

    parser = VerbParser(
        "init", description="Write a small commented start: an experiment, a sweep. Overwrites nothing."
    )
    parser.add_argument("folder", nargs="?", help="where; this folder by default")
    print("\n".join(init(parser.read(words).folder)))
    return 0


def doctor_verb(words: list[str]) -> int:
    from runner.command import doctor

    parser = _parser("doctor", "What a sweep will need of this machine and its accounts; exit code 1 when it lacks it.")
    parser.add_argument("--secret", default="secrets-hf-wandb", help="executor.modal.secret of your sweeps")
    asked = parser.read(words)
    return doctor.doctor(asked.store, asked.secret, as_json=asked.json)


def warm_verb(words: list[str]) -> int:
    from runner.command import warm
    from runner.store.stores import open_store

    parser = _parser("warm", "The preloaded trainers that wait for the next command, or their end.")
    parser.add_argument("what", nargs="?", choices=("status", "stop"), default="status")
    parser.add_argument("--all", action="store_true", help="of all your stores; stop asks first")
    parser.add_argument("--yes", action="store_true", help="stop --all: do not ask")
    asked = parser.read(words)
    here = open_store(asked.store).root
    store = None if asked.all else here
    if asked.what == "stop":
        return warm.stop(store, here=here, confirmed=asked.yes, as_json=asked.json)
    return warm.show(store, as_json=asked.json)


def setup_verb(words: list[str]) -> int:
    from runner.environment import trainer_environment

    parser = VerbParser("setup", description="Build the locked environment that runs Axolotl (about 8 GB).")
    parser.read(words)
    print(trainer_environment.build())
    return 0


def completion_verb(words: list[str]) -> int:
    from runner.command import completion

    parser = VerbParser("completion", description='Print shell completion: eval "$(axosweep completion bash)"')
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    print(completion.script(parser.read(words).shell))
    return 0


def complete_verb(words: list[str]) -> int:
    from runner.command import completion

    print("\n".join(completion.complete(words[0], int(words[1]))))
    return 0


def _parser(verb: str, description: str) -> VerbParser:
    parser = VerbParser(verb, description=description)
    parser.add_argument("--store", help=STORE_HELP)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
