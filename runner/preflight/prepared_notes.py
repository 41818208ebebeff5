"""Findings of the rules that need a prepared dataset, when it has just been prepared."""

from __future__ import annotations

from collections.abc import Sequence

from modal_app.store.facts import DataManifest
from runner.preflight.findings import Finding, lines, together
from runner.preflight.rules import rule_findings
from runner.preflight.rules.run_facts import RunFacts
from runner.types import Experiment


def prepared_notes(experiments: Sequence[Experiment], manifest: DataManifest) -> list[str]:
    """For people, in the words of a plan. `experiments`: of the runs that read the dataset."""
    found = together([_new(experiment, manifest) for experiment in experiments])
    names = [" ".join(experiment.overrides) or "the defaults" for experiment in experiments]
    return [line.replace("- ", "note: ", 1) for line in lines(found, names)]


def _new(experiment: Experiment, manifest: DataManifest) -> list[Finding]:
    """The findings that were not printed before the dataset was prepared: those were about as true then."""
    before = {(one.key, one.source) for one in rule_findings(RunFacts(experiment))}
    return [one for one in rule_findings(RunFacts(experiment, manifest)) if (one.key, one.source) not in before]
