"""Whether runs fit their GPUs' memory: the estimates, what --force may overrule, and the lines that plan shows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.gpus import GPUS
from runner.memory import Estimate, Verdict, estimate
from runner.memory_ladder import Asked, ways_out
from runner.memory_words import told, where
from runner.model_facts import facts_of
from runner.preflight.findings import Finding, gate, warning
from runner.types import Experiment, ModelFacts

Config = Mapping[str, Any]


def memory_of(experiment: Experiment, longest_row: int | None = None) -> tuple[Estimate, ...]:
    """One estimate for each card that the run may get; none on a CPU. `longest_row`: tokens of its dataset's longest
    row, where that is prepared.
    """
    facts, config = facts_for(experiment), with_files(experiment.axolotl)
    names = dict.fromkeys((experiment.gpu.type, *experiment.gpu.fallback))
    return tuple(
        estimate(config, facts, GPUS[name], experiment.gpu.count, longest_row) for name in names if name in GPUS
    )


def memory_findings(experiment: Experiment, longest_row: int | None = None) -> Iterator[Finding]:
    """WON'T FIT stops a launch unless forced; UNSURE is told."""
    for one in memory_of(experiment, longest_row):
        if one.verdict in (Verdict.WONT_FIT, Verdict.UNSURE):
            say = gate if one.verdict is Verdict.WONT_FIT else warning
            yield say("gpu", "", f"On {where(one)} {told(one)}.", _way_out(experiment, one, longest_row))


def memory_lines(estimates: Sequence[Sequence[Estimate]], names: Sequence[str]) -> list[str]:
    """The verdict of each run, equal ones once. `names`: what each asked run is called."""
    runs: dict[str, list[str]] = {}
    for name, of_run in zip(names, estimates, strict=True):
        for one in of_run:
            runs.setdefault(f"{where(one)}: {told(one)}", []).append(name)
    return [f"memory  {line}{_whose(having, len(names))}" for line, having in runs.items()]


def _whose(having: Sequence[str], asked: int) -> str:
    if len(having) == asked:
        return ""
    return f"  ({having[0]})" if len(having) == 1 else f"  ({len(having)} runs, first {having[0]})"


def _way_out(experiment: Experiment, one: Estimate, longest_row: int | None) -> str:
    facts = facts_for(experiment)
    if facts is None:
        return ""
    ways = ways_out(Asked(with_files(experiment.axolotl), facts, one.gpu, one.count, longest_row))
    if not ways.lines:
        return "" if one.verdict is Verdict.UNSURE else "No smaller batch, fewer bits or more cards would make it fit."
    lines = " or ".join(f"`{line}`" for line in ways.lines)
    if one.verdict is Verdict.UNSURE:
        return "" if ways.verdict is Verdict.UNSURE else f"It would fit with {lines}."
    return f"It would fit with {lines}." if ways.verdict is Verdict.FITS else f"It might with {lines}."


def facts_for(experiment: Experiment) -> ModelFacts | None:
    """What the model's file says of it, else its config.json on this machine."""
    return experiment.model or facts_of(str(experiment.axolotl.get("base_model") or ""))


def with_files(config: Config) -> Config:
    """The config with its DeepSpeed settings in place of the file that holds them."""
    named = config.get("deepspeed")
    if not isinstance(named, str):
        return config
    try:
        settings = json.loads(Path(named).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return config
    return {**config, "deepspeed": settings}
