"""`axosweep data`: the prepared datasets of a store, and samples in which the trained text is marked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.text import Text

from modal_app.store.facts import DataManifest
from modal_app.store.layout import SAMPLES, Store
from modal_app.store.read_json import name_unreadable, read_json
from modal_app.store.state import observe
from modal_app.store.step import StepKind
from runner.compare.table import Column, fitted, not_shown, status_column, table
from runner.console import terminal
from runner.console.parser import Names, VerbParser
from runner.console.print_json import print_json
from runner.errors import SweepError, did_you_mean
from runner.store.run_state import reason_of, status_of
from runner.store.stores import open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedDataset(DataManifest):
    """A prepared dataset, or one in preparation, of which only the key is known."""

    key: str
    attempt: int | None
    started_at: float | None
    """Unix seconds."""
    finished_at: float | None
    given_rows: int | None
    """Rows of its sources; null if they were not counted."""
    files: Mapping[str, Mapping[str, Any]]
    """Name -> bytes and sha256."""
    hashes: Mapping[str, str]
    """Split -> Axolotl's own name for it."""


@dataclass(frozen=True, slots=True)
class DatasetList:
    """What `data --json` prints, the newest first."""

    datasets: tuple[PreparedDataset, ...]


@dataclass(frozen=True, slots=True)
class SampleSegment:
    text: str
    trained: bool
    """Whether the loss sees it."""


@dataclass(frozen=True, slots=True)
class Sample:
    split: str
    row: int
    segments: tuple[SampleSegment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledDataset(PreparedDataset):
    """What `data KEY --json` prints."""

    samples: tuple[Sample, ...]


def parser() -> VerbParser:
    verb = VerbParser("data", description="The prepared datasets, or samples of one as the model sees them.")
    verb.add("data", nargs="?", names=[Names.DATASET], help="a data key, or the beginning of it")
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    show(open_store(args.store), args.data, as_json=args.json)
    return 0


def show(store: Store, beginning: str | None, *, as_json: bool) -> None:
    """List every prepared dataset, or show samples of the one whose key begins with `beginning`.

    Raises SweepError unless exactly one dataset fits.
    """
    manifests = {key: read_json(store.manifest(key), lenient=True) for key in _keys(store)}
    known = {key: DataManifest.of(manifest) for key, manifest in manifests.items()}
    if beginning is None:
        if as_json:
            print_json(
                DatasetList(tuple(PreparedDataset(**_described(key, manifest)) for key, manifest in manifests.items()))
            )
        else:
            _show_list(store, known)
        return
    key = _find(beginning, list(manifests), store)
    samples = _samples(store, key)
    if as_json:
        described = _described(key, manifests[key])
        print_json(SampledDataset(**described, samples=tuple(samples)))
    else:
        _show_samples(key, known[key], samples)


def _described(key: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: manifest.get(name) for name in ("attempt", "started_at", "finished_at", "given_rows")}
    found = {name: manifest.get(name) or {} for name in ("files", "hashes")}
    return {**asdict(DataManifest.of(manifest)), "key": key, **own, **found}


def _keys(store: Store) -> list[str]:
    """Prepared or in preparation, the newest first."""
    folders = sorted(store.prepared.glob("[!.]*"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return list(dict.fromkeys(path.name.removesuffix(".work") for path in folders if path.is_dir()))


def _find(word: str, keys: Sequence[str], store: Store) -> str:
    fits = [key for key in keys if key.startswith(word)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise SweepError(
            f"{word} is the beginning of several datasets' keys: {', '.join(fits)}. Write more of the key."
        )
    raise SweepError(
        f"There is no dataset {word} in {store.prepared}.{did_you_mean(word, keys)} `axosweep data` lists them."
    )


def _show_list(store: Store, manifests: Mapping[str, DataManifest]) -> None:
    console = terminal.results()
    shown, dropped = fitted(_columns(store, manifests), console.width)
    console.print(table(shown, "", [False] * len(manifests)), crop=False)
    if dropped:
        console.print(f"{not_shown(dropped)} Use a wider terminal or `--json` to see them.", soft_wrap=True)


def _columns(store: Store, manifests: Mapping[str, DataManifest]) -> list[Column]:
    """The key and the status are never dropped: the next command needs the key."""

    def column(heading: str, value: Callable[[DataManifest], float | None], drop: int) -> Column:
        return Column(heading, tuple(_cell(value(one)) for one in manifests.values()), drop)

    states = [observe(store, StepKind.PREPROCESS, key) for key in manifests]
    held_out = tuple((one.eval_fingerprint or "")[:8] for one in manifests.values())
    return [
        Column("data", tuple(manifests), left=True),
        status_column([(status_of(state), reason_of(state), 0) for state in states]),
        column("train rows", lambda one: one.rows, 1),
        column("eval rows", lambda one: one.eval_rows, 2),
        column("tokens", lambda one: one.tokens, 6),
        column("trained on", lambda one: one.trained_tokens, 3),
        column("dropped", lambda one: one.dropped_rows, 4),
        column("eval in train", lambda one: one.eval_rows_in_training, 5),
        column("seconds", lambda one: one.seconds, 8),
        Column("held-out rows", held_out, 7, left=True),
    ]


def _cell(value: float | None) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else ""


def _samples(store: Store, key: str) -> list[Sample]:
    path = store.prepared_dataset(key) / SAMPLES
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        name_unreadable(path, str(error))
        return []
    rows = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return [Sample(one["split"], one["row"], tuple(SampleSegment(**part) for part in one["segments"])) for one in rows]


def _show_samples(key: str, manifest: DataManifest, samples: Sequence[Sample]) -> None:
    console = terminal.results()
    console.print(Text(f"{key}: {_cell(manifest.rows)} rows, {_cell(manifest.tokens)} tokens"))
    console.print(Text.assemble("The text that is trained on is ", ("marked", TRAINED), "; in a pipe, it is in [[ ]]."))
    for sample in samples:
        console.print(Text(f"\n{sample.split} row {sample.row}", style="bold"))
        text = Text()
        for segment in sample.segments:
            marked = segment.text if console.is_terminal or not segment.trained else f"[[{segment.text}]]"
            text.append(marked, style=TRAINED if segment.trained else "dim")
        console.print(text, soft_wrap=True)
    if overlap := manifest.eval_rows_in_training:
        console.print(Text(f"\n{overlap} eval rows also occur in training.", style="yellow"))


TRAINED = "black on green"
