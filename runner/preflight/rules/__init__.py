"""Rules about runs: what an experienced practitioner would say about a run before it is paid for.

Each rule is one function that gets a run's facts and yields findings: an error if the run is certain to fail, a warning
if it would waste money. It names its source. A rule that reports a sensible run is wrong. tests/preflight/rules has the
cases of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from runner.preflight.findings import Finding
from runner.preflight.rules import (
    adapters,
    attention,
    datasets,
    evaluation,
    layers,
    lengths,
    optimizers,
    partners,
    precision,
    prepared,
    rates,
    rl_batches,
    rows,
    saving,
    schedule,
    selection,
    sharding,
    tokens,
    vocabulary,
)
from runner.preflight.rules.run_facts import RunFacts

Rule = Callable[[RunFacts], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    *adapters.RULES,
    *attention.RULES,
    *datasets.RULES,
    *evaluation.RULES,
    *layers.RULES,
    *lengths.RULES,
    *optimizers.RULES,
    *partners.RULES,
    *precision.RULES,
    *prepared.RULES,
    *rates.RULES,
    *rl_batches.RULES,
    *rows.RULES,
    *saving.RULES,
    *schedule.RULES,
    *selection.RULES,
    *sharding.RULES,
    *tokens.RULES,
    *vocabulary.RULES,
)


def rule_findings(run: RunFacts) -> Iterator[Finding]:
    for rule in RULES:
        yield from rule(run)
