"""What is wrong with the runs of a sweep, before any starts: every problem of every run, reported at once.

`quick_findings` needs neither Axolotl nor the network and takes about a millisecond a run; runner.preflight.schema uses
Axolotl's own schema.
"""

from __future__ import annotations

from collections.abc import Iterator

from runner.cost.length import data_ranks
from runner.preflight.data import batch_findings, data_findings, evaluation_findings, steps_of
from runner.preflight.findings import Finding, Severity
from runner.preflight.gpu import gpu_findings, optimizer_findings
from runner.preflight.keys import key_findings
from runner.preflight.model import model_findings
from runner.preflight.nodes import node_findings
from runner.preflight.own_data import own_data_findings, row_file_findings
from runner.preflight.pairs import pair_findings
from runner.preflight.values import value_findings
from runner.types import Experiment


def quick_findings(experiment: Experiment, *, optimizer_swept: bool = False) -> tuple[Finding, ...]:
    """All findings about a composed job that do not need Axolotl, once each. `optimizer_swept`: whether the jobs of its
    sweep request different optimizers.
    """
    found = list(dict.fromkeys((*_of_config(experiment), *optimizer_findings(experiment, swept=optimizer_swept))))
    # With a wrong value, findings about sizes would only report its consequences.
    if not any(one.severity is Severity.ERROR for one in found):
        found += dict.fromkeys(_of_sizes(experiment))
    return tuple(found)


def _of_config(experiment: Experiment) -> Iterator[Finding]:
    axolotl = experiment.axolotl
    yield from key_findings(axolotl)
    yield from value_findings(axolotl)
    yield from node_findings(experiment)
    yield from gpu_findings(axolotl, experiment.gpu, experiment.executor.type, experiment.model)
    yield from data_findings(axolotl, experiment.data)
    yield from own_data_findings(experiment)
    yield from row_file_findings(axolotl)
    yield from model_findings(axolotl, experiment.model)
    yield from evaluation_findings(axolotl)
    yield from pair_findings(axolotl)


def _of_sizes(experiment: Experiment) -> Iterator[Finding]:
    ranks = data_parallel_ranks(experiment)
    if steps := steps_of(experiment.axolotl, ranks, experiment.sizes):
        yield from batch_findings(experiment.axolotl, steps, ranks)


def data_parallel_ranks(experiment: Experiment) -> int:
    return data_ranks(experiment.axolotl, experiment.gpu.count)
