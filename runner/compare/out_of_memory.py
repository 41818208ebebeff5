"""A failed run in a store -> what would have fitted, if it was out of memory on a GPU. Only reads."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from modal_app.store.facts import DataManifest, TrainFacts
from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.step import FailureReason, Outcome, StepKind
from runner.config.known_names import facts_named
from runner.cost.model_names import identity_of_model
from runner.cost.prices import Rates
from runner.cost.rates_in_files import rates_in_files
from runner.memory.advice import MemoryAdvice, advice_for, ready_line, sentences
from runner.memory.measured import NO_EFFECT, OF_EVALUATION
from runner.memory.model_facts import facts_here
from runner.memory.sharding import with_files
from runner.types import ModelFacts


def advice_lines(store: Store, key: str, outcome: Outcome | None, rates: Rates | None) -> tuple[str, ...]:
    """What would have fitted, in sentences, and a command for it; nothing for a run that ended otherwise, or that the
    kernel has killed for the machine's memory. `rates`: those of its sweep."""
    if outcome is None or outcome.reason is not FailureReason.OOM:
        return ()
    if TrainFacts.of(outcome.facts).out_of_memory_on is None:
        return ()
    identity = read_json(store.folder(StepKind.TRAIN, key).identity, lenient=True)
    gpu, axolotl = identity.get("gpu"), identity.get("axolotl")
    if not isinstance(gpu, dict) or not isinstance(axolotl, dict):
        return ()
    longest = DataManifest.read(store.manifest(str(identity.get("data_key")))).longest_row
    advice = _advice(
        _relevant({**axolotl, **TrainFacts.of(outcome.facts).smaller_batch}),
        _facts(axolotl, identity.get("inputs") or ()),
        str(gpu.get("type")),
        int(gpu.get("count") or 1),
        longest,
        tuple(sorted(_prices(rates).items())),
    )
    line = ready_line(advice, [str(one) for one in identity.get("overrides") or ()])
    return (sentences(advice), *([line] if line else []))


@functools.lru_cache(maxsize=1024)
def _advice(
    config: str,
    facts: ModelFacts | None,
    gpu: str,
    count: int,
    longest_row: int | None,
    rates: tuple[tuple[str, float], ...],
) -> MemoryAdvice:
    """Cached, since many runs of a sweep fail alike."""
    return advice_for(json.loads(config), facts, gpu, count, longest_row, dict(rates))


def _relevant(axolotl: Mapping[str, Any]) -> str:
    left_out = NO_EFFECT - OF_EVALUATION
    return json.dumps({key: value for key, value in with_files(axolotl).items() if key not in left_out}, sort_keys=True)


def _facts(axolotl: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> ModelFacts | None:
    """The facts of the run's model, as far as this machine has them."""
    base_model, revision = str(axolotl.get("base_model") or ""), axolotl.get("revision_of_model")
    named = facts_named(base_model)
    return named or facts_here(base_model, None if revision is None else str(revision), identity_of_model(inputs))


def _prices(rates: Rates | None) -> Mapping[str, float]:
    if rates is None:
        return rates_in_files()
    return {name: rate.dollars for name, rate in rates.rates.items()}
