"""What is wrong with the runs of a sweep, before any starts: every problem of every run, reported at once.

`config_findings` and `rule_findings` need neither Axolotl nor the network and take a few milliseconds a run;
runner.preflight.schema uses Axolotl's own schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runner.preflight.data import data_findings
from runner.preflight.findings import Finding, Severity
from runner.preflight.gpu import gpu_findings, optimizer_findings
from runner.preflight.keys import key_findings
from runner.preflight.model import model_findings
from runner.preflight.nodes import node_findings
from runner.preflight.own_data import own_data_findings, row_file_findings
from runner.preflight.pairs import pair_findings
from runner.preflight.rules import rule_findings
from runner.preflight.rules.run_facts import RunFacts
from runner.preflight.values import value_findings
from runner.types import Experiment


def quick_findings(experiment: Experiment) -> tuple[Finding, ...]:
    """All findings about one composed job whose dataset is not prepared yet."""
    wrong = config_findings(experiment)
    return (*wrong, *run_findings(RunFacts(experiment), wrong))


def config_findings(experiment: Experiment, *, optimizer_swept: bool = False) -> tuple[Finding, ...]:
    """What is wrong with the values of a composed job, once each. `optimizer_swept`: whether the jobs of its sweep
    request different optimizers.
    """
    return tuple(dict.fromkeys((*_of_config(experiment), *optimizer_findings(experiment, swept=optimizer_swept))))


def run_findings(run: RunFacts, wrong: Sequence[Finding]) -> tuple[Finding, ...]:
    """What the rules say about a run. `wrong`: its config_findings. With an error among them there is nothing, since
    findings about the run would only report the consequences of a wrong value.
    """
    if any(one.severity is Severity.ERROR for one in wrong):
        return ()
    return tuple(dict.fromkeys(rule_findings(run)))


def _of_config(experiment: Experiment) -> Iterator[Finding]:
    axolotl = experiment.axolotl
    yield from key_findings(axolotl)
    yield from value_findings(axolotl)
    yield from node_findings(experiment)
    yield from gpu_findings(axolotl, experiment.gpu, experiment.executor.type, experiment.model)
    yield from data_findings(axolotl, experiment.data)
    yield from own_data_findings(experiment)
    yield from row_file_findings(axolotl)
    yield from model_findings(axolotl)
    if isinstance(experiment.gpu.count, int):  # another one is a finding of its own
        yield from pair_findings(axolotl, experiment.gpu.count)
