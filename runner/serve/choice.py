"""Chooses the models that `axosweep serve` serves, and their names: finished runs of one place, and base models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from modal_app.serving.spec import ServedModel
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from modal_app.store.trained_weights import TrainedWeights
from runner.errors import SweepError
from runner.follow_up.steps import merged_model
from runner.follow_up.subjects import Subject, subjects
from runner.store.finding import runs_in

BASE_MODEL_NAME = "base"
BEST = "best"


@dataclass(frozen=True, slots=True)
class ServeSelection:
    """The models to serve, all of one store."""

    store: Store
    subjects: tuple[Subject, ...]
    models: tuple[ServedModel, ...]
    """The base models first."""
    summaries: tuple[str, ...]
    """A description of each model."""


def choose(known: Sequence[Store], requested: Sequence[str | None], *, merged: bool = False) -> ServeSelection:
    """The models of the requested runs and sweeps, each run once. Raises SweepError for a run that is missing or not
    finished, and for runs of this machine together with runs on Modal."""
    found: dict[str, Subject] = {}
    best: list[Subject] = []
    for name in requested:
        found |= {one.key: one for one in subjects(known, name, every=True)}
        if runs_in(known, name)[2] is not None:
            best += _best(known, name)
    chosen = tuple(found.values())
    places = {one.store.root: one.store for one in chosen}
    if len(places) > 1:
        raise SweepError("Some of these runs are on Modal, others here. A server serves runs of one place: name those.")
    (store,) = places.values()
    aliases = {one.key: _alias(one) for one in chosen}
    names = {key: (key, alias) for key, alias in aliases.items() if list(aliases.values()).count(alias) == 1}
    runs = [_model(one, names.get(one.key, (one.key,)), merged=merged) for one in chosen]
    if len(best) == 1:
        runs = [
            replace(model, names=(*model.names, BEST)) if model.names[0] == best[0].key else model for model in runs
        ]
    bases = _bases(chosen, runs)
    descriptions = [f"the base model {_base_name(one)}" for one, _ in bases] + [one.name for one in chosen]
    return ServeSelection(store, chosen, (*(model for _, model in bases), *runs), tuple(descriptions))


def _model(subject: Subject, names: tuple[str, ...], *, merged: bool) -> ServedModel:
    names = tuple(dict.fromkeys(name for name in names if name))
    folder = subject.store.folder(StepKind.TRAIN, subject.key).model
    if merged:
        return ServedModel(names, subject.config, weights=str(_merged(subject)))
    if subject.leaves is TrainedWeights.MODEL:
        return ServedModel(names, subject.config, weights=str(folder))
    return ServedModel(names, subject.config, adapter=str(folder))


def _merged(subject: Subject) -> str:
    folder = merged_model(subject)
    if folder is None:
        raise SweepError(f"The run {subject.key} has no merged model yet. Make it: axosweep merge {subject.key}")
    return str(folder)


def _bases(chosen: Sequence[Subject], runs: Sequence[ServedModel]) -> list[tuple[Subject, ServedModel]]:
    """The base models of runs with adapters, each once; numbered if there are several."""
    distinct: dict[str, Subject] = {}
    for subject, model in zip(chosen, runs, strict=True):
        if model.adapter is not None:
            distinct.setdefault(model.shares, subject)
    if len(distinct) < 2:
        return [(one, ServedModel((BASE_MODEL_NAME,), one.config)) for one in distinct.values()]
    return [
        (one, ServedModel((f"{BASE_MODEL_NAME}-{number}",), one.config))
        for number, one in enumerate(distinct.values(), 1)
    ]


def _best(known: Sequence[Store], sweep: str | None) -> list[Subject]:
    try:
        return subjects(known, sweep)
    except SweepError:
        return []  # its runs cannot be ranked, so none is called best


def _alias(subject: Subject) -> str:
    """What distinguishes a run from the others of its sweep, as one word."""
    return "" if subject.name == subject.key else subject.name.replace(" ", ",")


def _base_name(subject: Subject) -> str:
    named = str(subject.identity.get("axolotl", {}).get("base_model", "")) or str(subject.config["base_model"])
    return "/".join(named.split("/")[-2:])
