"""The winner of a comparison: its config as one file, its adapter or model, and the commands to run next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modal_app.store.layout import Store
from modal_app.store.start_checkpoint import CONFIG_KEY as START_CHECKPOINT
from modal_app.store.step import StepKind, write_atomically
from modal_app.store.user_code import CONFIG_KEY as USER_CODE
from runner.compare.comparison import model_of
from runner.compare.params import label
from runner.compare.ranking import EVAL_LOSS, Metric, Row
from runner.compare.settings import without_seeds
from runner.compare.table import heading_of, tables_of
from runner.compare.verdict_types import Verdict
from runner.console import terminal
from runner.console.numbers import counted, loss
from runner.errors import SweepError
from runner.keys.content import ContentHashes
from runner.store.ledger import SweepRun
from runner.store.run_config import read_config, read_identity
from runner.store.run_state import RunStatus, status_text
from runner.store.stores import is_mirror

CONFIG_FILE = "best.yml"
UNLIMITED = (None, -1, 0)
"""What max_steps is when it does not end a run."""


@dataclass(frozen=True, slots=True)
class Next:
    """A command, and what it is for."""

    command: str
    why: str


@dataclass(frozen=True, slots=True)
class Best:
    metric: str
    maximize: bool
    run: Row
    config: Mapping[str, Any]
    """The config for Axolotl: local inputs are the store's copies, hub inputs have their commits."""
    config_file: str | None
    """Where it was written."""
    model: str
    """The folder of its adapter or model, or the command that downloads it."""
    kind: str
    """adapter or model"""
    next: tuple[Next, ...]
    version: int = 2
    verdict: Verdict | None = None
    """Which settings are the best, as far as the losses of held-out rows tell; null where that is unknown."""
    undecided: str = ""
    """Why it is not shown that its setting is better than all others; empty if it is. `--decided` then ends with exit
    code 3."""


def winner(rows: Sequence[Row], metric: Metric) -> Row:
    """The best run. Raises SweepError when there is none, or one in each of several tables."""
    winners = [row for row in rows if row.is_best]
    if rows and all(row.status is RunStatus.SUCCEEDED and not row.eval_fingerprint for row in rows):
        raise SweepError(
            "These runs have finished without held-out rows, so none of them is the best. Hold some out "
            "(val_set_size=0.05), or measure the runs on tasks: axosweep eval --tasks."
        )
    if not winners:
        counts = ", ".join(sorted({status_text(row.status, row.reason, row.rung or 0) for row in rows}))
        raise SweepError(
            f"No run has finished with {metric.name} yet (their status: {counts}). axosweep compare shows them."
        )
    if len(winners) > 1:
        lines = "\n".join(_table_line(row, rows) for row in winners)
        raise SweepError(
            f"These runs are evaluated on {len(tables_of(rows))} different sets of held-out rows, so none is the best "
            f"of all:\n{lines}\nChoose a set: --where eval_fingerprint=..., as above."
        )
    return winners[0]


def best_run(runs: Sequence[SweepRun], rows: Sequence[Row]) -> SweepRun:
    """The run that a sweep's name stands for where one run is needed: its only run, which needs no loss, or its best.

    Raises SweepError when there is no overall best.
    """
    if len(runs) == 1:
        return runs[0]
    try:
        best = winner(rows, EVAL_LOSS)
    except SweepError as error:
        raise SweepError(f"{error} Or name one of its runs.") from error
    return next(run for run in runs if run.key == best.key)


def best_of(
    row: Row, metric: Metric, write: str | None, store_arg: str | None = None, *, cheapest: bool = False,
    verdict: Verdict | None = None, undecided: str = "",
) -> Best:  # fmt: skip
    """`store_arg`: the store as it was named on the command line. `cheapest`: whether the row was chosen as the
    cheapest of the best. Raises SweepError when the file to write exists with other content.
    """
    assert row.store is not None, "a row of a store"
    store = Store(Path(row.store))
    config = runnable_config(store, row.key)
    written = _write(config, row, metric, write) if write else None
    kind, model = model_of(row)
    return Best(
        metric=metric.name,
        maximize=metric.maximize,
        run=row,
        config=config,
        config_file=str(written) if written else None,
        model=model,
        kind=kind,
        next=tuple(_next(store, row, config, _chosen_by(metric, cheapest=cheapest), write, store_arg)),
        verdict=verdict,
        undecided=undecided,
    )


def best_line(row: Row, verdicts: Sequence[Verdict] = ()) -> str:
    """The winner; if several seeds of its setting have finished, the setting with its mean and spread. It is called the
    best only as long as no verdict says that others may be as good."""
    run = f"{row.key}  {label(row.params)}".rstrip()
    best = all(one.is_decided_for(row.key) for one in verdicts)
    if (seeds := row.over_seeds) is None:
        what = "Cheapest of the best" if not row.is_best else "Best" if best else "Lowest eval loss"
        return f"{what}: {run}"
    what = "Cheapest of the best" if not row.is_best else "Best setting" if best else "Lowest mean eval loss"
    setting = label(without_seeds(row.params)) or "these runs"
    return f"{what}: {setting}  {loss(seeds.mean)} +- {loss(seeds.sd)} over {seeds.n} seeds. Its best run: {run}"


def show_best(best: Best) -> None:
    row, metric = best.run, Metric(best.metric, best.maximize)
    lines = [
        *(best.verdict.sentences if best.verdict else ()),
        best_line(row, [best.verdict] if best.verdict else ()),
        _figure(row, metric),
        *([f"Flags: {', '.join(row.flags)}"] if row.flags else []),
        f"Its {best.kind}: {best.model}",
        f"Its config: {best.config_file or f'{row.folder}/config.yml'}",
        "Next:",
        *_aligned(best.next),
    ]
    for line in lines:
        terminal.result(line)


def _figure(row: Row, metric: Metric) -> str:
    """A metric that was measured after the training has no first value and no step."""
    final = f"{heading_of(metric)}: {loss(row.final)}"
    return final if row.first is None else f"{final} at step {row.step}, from {loss(row.first)}"


def runnable_config(store: Store, key: str, *, by_origin: bool = False) -> dict[str, Any]:
    """The keyed config of a run. Local inputs are named by their copies in this store, or by their original paths if
    there is no copy; with `by_origin`, also while the content there is still the same.
    """
    folder = store.folder(StepKind.TRAIN, key)
    identity = read_identity(folder.identity)
    config = read_config(folder.config)
    if config is None:
        composed: dict[str, Any] = identity.get("axolotl", {})
        return composed
    config.pop(START_CHECKPOINT, None)  # `where_it_ran` adds it as from=RUN@STEP
    hashes = ContentHashes(store.cache / "hashes.json")
    config.pop(USER_CODE, None)  # the modules are found by their names again
    for found in (one for one in identity.get("inputs", ()) if one["at"] not in (START_CHECKPOINT, USER_CODE)):
        *parents, last = found["at"].split(".")
        node: Any = config
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node[name]
        place: Any = int(last) if isinstance(node, list) else last
        stored = store.root / str(node[place])
        if stored.parent == store.inputs:
            kept = stored.exists() and not (by_origin and _is_unchanged(found, hashes))
            node[place] = str(stored if kept else found["text"])
    return config


def _is_unchanged(found: Mapping[str, Any], hashes: ContentHashes) -> bool:
    path = Path(str(found["text"])).expanduser()
    return path.exists() and hashes.of(path) == found["identity"]


def _table_line(row: Row, rows: Sequence[Row]) -> str:
    count = sum(one.eval_fingerprint == row.eval_fingerprint for one in rows)
    runs = counted(count, "run")
    return f"  eval_fingerprint={str(row.eval_fingerprint)[:8]}  {runs}, best {row.key}  {label(row.params)}".rstrip()


def _write(config: Mapping[str, Any], row: Row, metric: Metric, where: str) -> Path:
    path = Path(where).expanduser().absolute()
    about = f"# Run {row.key}: {label(row.params)}; {metric.name} {row.final}\n"
    text = about + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    try:
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise SweepError(f"{path} already exists with other content. Name another file, or remove it.")
        write_atomically(path, text)
    except OSError as error:
        raise SweepError(f"{path} cannot be written: {error.strerror}.") from error
    return path


def _next(
    store: Store, row: Row, config: Mapping[str, Any], chosen_by: Sequence[str], written: str | None,
    store_arg: str | None,
) -> list[Next]:  # fmt: skip
    """The commands to run next; `axosweep best` among them chooses the same winner."""
    file = written or CONFIG_FILE
    flag, key = (["--store", store_arg], [f"store={store_arg}"]) if store_arg else ([], [])
    words = [f"base={file}", *where_it_ran(store, row.key), *key]
    write = Next(_command("best", row.sweeps[0], *chosen_by, "--write", file, *flag), "its config as one file")
    return [
        *([] if written else [write]),
        Next(_command(*words, _longer(config)), "the same, for longer"),
        Next(_command("plan", *words, "--write", "configs"), "for plain `axolotl train`"),
        Next(_command("logs", row.key, *flag), "Axolotl's output"),
    ]


def _chosen_by(metric: Metric, *, cheapest: bool) -> list[str]:
    return [
        *(["--metric", metric.name] if metric.name != EVAL_LOSS.name else []),
        *(["--maximize"] if metric.maximize else []),
        *(["--cheapest-of-best"] if cheapest else []),
    ]


def _command(*words: str) -> str:
    return shlex.join(["axosweep", *words])


def _longer(config: Mapping[str, Any]) -> str:
    """The override that doubles the length of the run, in steps or epochs."""
    steps, epochs = config.get("max_steps"), config.get("num_epochs")
    if isinstance(steps, int) and steps not in UNLIMITED:
        return f"max_steps={2 * steps}"
    return f"num_epochs={2 * epochs:g}" if isinstance(epochs, int | float) else "num_epochs=2"


def where_it_ran(store: Store, key: str) -> list[str]:
    """The overrides that the config does not contain: GPU, data seed, start checkpoint, executor."""
    identity = read_identity(store.folder(StepKind.TRAIN, key).identity)
    gpu, data = identity.get("gpu", {}), identity.get("data", {})
    words = [f"gpu={gpu['type']}"] if gpu.get("type", "cpu") != "cpu" else []
    words += [f"gpu.count={gpu['count']}"] if gpu.get("count", 1) != 1 else []
    seed = data.get("seed")  # base=FILE has the file's own seed
    words += [f"data.seed={seed}"] if seed not in (None, identity.get("axolotl", {}).get("seed")) else []
    words += [f"from={start['run']}@{start['step']}"] if (start := identity.get("from")) else []
    return [*words, *(["executor=modal"] if is_mirror(store) else [])]


def _aligned(commands: Sequence[Next]) -> list[str]:
    width = max(len(one.command) for one in commands)
    return [f"  {one.command:<{width}}  # {one.why}" for one in commands]
