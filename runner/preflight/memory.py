"""Whether runs fit their GPUs' memory: the estimates, what --force may overrule, and the lines that plan shows."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from modal_app.store.smaller_batch import BATCH, MOST_TIMES, changes_after
from runner.config.gpus import GPUS, GpuKind
from runner.memory.estimate import Estimate, MeasuredPeak, Parts, Verdict, estimate
from runner.memory.ladder import WaysToFit, next_batch, settings_now, ways_out, ways_to_load
from runner.memory.measured import NOTHING_KNOWN, KnownMemory
from runner.memory.model_facts import ShapeAnswer, facts_of
from runner.memory.sharding import with_files
from runner.memory.words import in_words, where
from runner.preflight.findings import Finding, Severity, which_runs
from runner.types import Experiment

Config = Mapping[str, Any]

IRRELEVANT = frozenset(
    "seed learning_rate lora_alpha lr_scheduler num_epochs max_steps warmup_ratio warmup_steps weight_decay "
    "max_grad_norm adam_beta1 adam_beta2".split()
)
"""Keys that sweeps often vary, and that memory never depends on."""


@dataclass(frozen=True, slots=True)
class PrintedMemory:
    """Whether a run fits a kind of card, in the output of `plan --json`."""

    gpu: str
    count: int
    verdict: Verdict
    bytes: int | None
    """What one GPU needs, as measured or otherwise as estimated; null if that is unknown."""
    usable: int
    """Bytes of one GPU."""
    parts: Parts | None
    """Of the estimate."""
    moment: str
    """When it needs the most: `loading`, `training` or `evaluation`."""
    tokens: str
    """How many tokens a GPU processes at a time, and why."""
    host_bytes: int
    """Of the machine's main memory, for offloading."""
    reason: str
    """Why it is unknown."""
    notes: tuple[str, ...]
    """The assumptions."""
    measured: MeasuredPeak | None
    """What an earlier run has shown, which the verdict goes by; null if none has."""


def memory_of(
    experiment: Experiment, longest_row: int | None = None, known: KnownMemory = NOTHING_KNOWN
) -> tuple[Estimate, ...]:
    """One estimate for each kind of card that the run may get; none on a CPU. `longest_row`: tokens of its dataset's
    longest row, if the dataset is prepared. `known`: what earlier runs of its model have shown.
    """
    return tuple(one for one, _ in _weighed(_Question.of(experiment, longest_row, known)))


def memory_findings(
    experiment: Experiment, longest_row: int | None = None, known: KnownMemory = NOTHING_KNOWN
) -> Iterator[Finding]:
    """WON'T FIT is a gate, UNSURE a warning, and so is what on_oom=halve may heal."""
    question = _Question.of(experiment, longest_row, known)
    for one, ways in _weighed(question):
        if one.verdict not in (Verdict.WONT_FIT, Verdict.UNSURE):
            continue
        wont_fit = one.verdict is Verdict.WONT_FIT
        times = _halvings(one, question) if experiment.heals and wont_fit else 0
        healed = f"on_oom=halve then tries {BATCH}={changes_after(experiment.axolotl, times)[BATCH]}." if times else ""
        severity = Severity.GATE if wont_fit and not times else Severity.WARNING
        yield Finding(severity, "gpu", "", f"On {where(one)} {in_words(one)}.", healed or _way_out(one, ways))


def tries_that_fail(experiment: Experiment, longest_row: int | None = None, known: KnownMemory = NOTHING_KNOWN) -> int:
    """How many tries of a run with on_oom=halve are expected to be out of memory, on the card that it asks for, before
    one has a micro batch that may fit."""
    if not experiment.heals:
        return 0
    question = _Question.of(experiment, longest_row, known)
    first = next((one for one, _ in _weighed(question)), None)
    return _halvings(first, question) if first is not None and first.verdict is Verdict.WONT_FIT else 0


def memory_lines(estimates: Sequence[Sequence[Estimate]], names: Sequence[str]) -> list[str]:
    """The verdicts that are not findings, equal ones once. `names`: of the requested runs."""
    runs: dict[str, list[str]] = {}
    for name, of_run in zip(names, estimates, strict=True):
        for one in of_run:
            if one.verdict in (Verdict.FITS, Verdict.UNKNOWN):
                runs.setdefault(f"{where(one)}: {in_words(one)}", []).append(name)
    return [f"memory  {line}{which_runs(having, len(names))}" for line, having in runs.items()]


def printed_memory(estimates: Sequence[Estimate]) -> tuple[PrintedMemory, ...]:
    return tuple(
        PrintedMemory(
            gpu=one.gpu.name,
            count=one.count,
            verdict=one.verdict,
            bytes=one.needed,
            usable=one.usable,
            parts=one.parts,
            moment=one.moment,
            tokens=one.tokens,
            host_bytes=one.host,
            reason=one.reason,
            notes=one.notes,
            measured=one.measured,
        )
        for one in estimates
    )


def facts_for(experiment: Experiment, *, ask_hub: bool = True) -> ShapeAnswer:
    """The model's facts from a file in conf/model, or otherwise from its config.json: on this machine, or (`ask_hub`)
    for a run on GPUs on the hub, at the commit that the run will read."""
    if experiment.model is not None:
        return ShapeAnswer(experiment.model)
    base_model, revision = (experiment.axolotl.get(key) for key in ("base_model", "revision_of_model"))
    return facts_of(str(base_model or ""), None if revision is None else str(revision),
                    ask_hub=ask_hub and experiment.gpu.type != "cpu")  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Question:
    """What the memory of a run depends on. The runs of a sweep mostly differ in other keys."""

    config: str
    """Axolotl's, as JSON."""
    shape: ShapeAnswer
    cards: tuple[str, ...]
    count: int
    longest_row: int | None
    known: KnownMemory

    @classmethod
    def of(cls, experiment: Experiment, longest_row: int | None, known: KnownMemory) -> Self:
        config = {key: value for key, value in with_files(experiment.axolotl).items() if key not in IRRELEVANT}
        if config.get("lora_dropout"):
            config["lora_dropout"] = True  # how much is dropped makes no difference
        cards = tuple(name for name in dict.fromkeys((experiment.gpu.type, *experiment.gpu.fallback)) if name in GPUS)
        shape = facts_for(experiment) if cards else ShapeAnswer(None)
        return cls(json.dumps(config, sort_keys=True), shape, cards, experiment.gpu.count, longest_row, known)

    def estimate(self, axolotl: Config, gpu: GpuKind) -> Estimate:
        """Of this config, or of one with other batches; as measured, where earlier runs have shown it."""
        facts = self.shape.facts
        one = estimate(axolotl, facts, gpu, self.count, self.longest_row)
        one = replace(one, reason=self.shape.problem) if facts is None else one
        return self.known.corrected(one, axolotl, facts, self.longest_row)


@functools.lru_cache(maxsize=4096)
def _weighed(question: _Question) -> tuple[tuple[Estimate, WaysToFit], ...]:
    axolotl, facts = json.loads(question.config), question.shape.facts
    found = []
    for name in question.cards:
        one, ways = question.estimate(axolotl, GPUS[name]), WaysToFit()
        if one.verdict is Verdict.WONT_FIT and one.parts is None:
            smaller = next_batch(axolotl)
            ways = WaysToFit((smaller.words,) if smaller else (), Verdict.UNKNOWN)
        elif one.verdict in (Verdict.WONT_FIT, Verdict.UNSURE) and facts is not None:
            current = settings_now(axolotl, facts, GPUS[name], question.count, question.longest_row, question.known)
            to_load = one.of_weights_alone
            ways = WaysToFit(ways_to_load(current), Verdict.UNKNOWN) if to_load else ways_out(current)
        found.append((one, ways))
    return tuple(found)


def _halvings(one: Estimate, question: _Question) -> int:
    """After how many tries on_oom=halve has a micro batch that may fit; 0 if it never has."""
    axolotl: Config = json.loads(question.config)
    for times in range(1, MOST_TIMES + 1):
        smaller = {**axolotl, **changes_after(axolotl, times)}
        if question.estimate(smaller, one.gpu).verdict is not Verdict.WONT_FIT:
            return times
    return 0


def _way_out(one: Estimate, ways: WaysToFit) -> str:
    lines = " or ".join(f"`{line}`" for line in ways.lines)
    if ways.verdict is Verdict.FITS and lines:
        return f"It would fit with {lines}."
    if one.verdict is Verdict.UNSURE:
        return ""
    if one.parts is None:
        return f"It needs less with {lines}." if lines else ""
    if one.of_weights_alone:
        return (
            f"They would fit with {lines}." if lines else "They do not fit on any card, nor on 8 cards that share them."
        )
    if lines:
        return f"It might fit with {lines}."
    return "Smaller batches, fewer bits or more cards would not make it fit."
