"""A sweep's jobs -> experiments: each job composed once, and the problems of all jobs in one error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from runner.composing.axes import Job
from runner.composing.experiment import experiment_of, is_of_request, unresolved
from runner.composing.fast_compose import ComposedJob, Composer, compose_all
from runner.composing.hydra_errors import COMPOSITION_ERRORS, explained, unread_key
from runner.composing.hydra_inside import show_to_resolvers
from runner.config.overrides import parts, spoken
from runner.config.project import SWEEPS, current_project
from runner.config.sweep_file import body_keys
from runner.config.vocabulary import Vocabulary
from runner.errors import SweepError
from runner.preflight import quick_findings
from runner.preflight.findings import Severity
from runner.types import Experiment


def compose_jobs(
    config: DictConfig,
    jobs: Sequence[Job],
    loader: ConfigLoader,
    vocabulary: Vocabulary,
    first: int = 0,
    *,
    by_hydra: bool = False,
    composer: Composer | None = None,
) -> list[tuple[Experiment, ComposedJob]]:
    """Each job composed once; `by_hydra`: by Hydra alone. Raises SweepError with the problems of all jobs together."""
    composed: list[tuple[Experiment, ComposedJob]] = []
    problems: dict[str, list[Job]] = {}
    found = compose_all(config, jobs, loader, first, by_hydra=by_hydra, composer=composer)
    show_to_resolvers(config.hydra, config)
    for job, one in zip(jobs, found, strict=True):
        try:
            if isinstance(one, Exception):
                raise one
            composed.append((_experiment(one, job, vocabulary), one))
        except COMPOSITION_ERRORS as error:
            problems.setdefault(explained(error, vocabulary), []).append(job)
    if problems:
        for job, (experiment, _) in zip(_others(jobs, problems), composed, strict=True):
            for finding in quick_findings(experiment):
                if finding.severity is Severity.ERROR:
                    problems.setdefault(finding.text, []).append(job)
        raise SweepError(_problem_list(problems, len(jobs), vocabulary))
    return composed


def _experiment(composed: ComposedJob, job: Job, vocabulary: Vocabulary) -> Experiment:
    if composed.sets is not None:  # this comes too late: Hydra 1.3 ignores it, 1.4 refuses it
        raise SweepError(
            f"A swept choice sets hydra.{composed.sets}, which is fixed before the sweep starts. "
            "Set it in a sweep file or on the command line; set what a run needs with gpu=..."
        )
    _refuse_unread(composed, vocabulary)
    if composed.unresolved is not None:
        raise SweepError(unresolved(composed.unresolved))
    return experiment_of(composed.node, in_users_words(job, vocabulary), composed.choices)


def _others(jobs: Sequence[Job], problems: Mapping[str, list[Job]]) -> list[Job]:
    """The jobs that could be composed."""
    failed = {id(job) for found in problems.values() for job in found}
    return [job for job in jobs if id(job) not in failed]


def _refuse_unread(composed: ComposedJob, vocabulary: Vocabulary) -> None:
    """Refuse keys that nothing reads, most often of a config file whose first line does not say where they belong."""
    unread = composed.node.keys() - vocabulary.read
    name = composed.choices.get(SWEEPS)
    if unread and isinstance(name, str):
        unread -= body_keys(current_project().sweep_files()[name])
    if unread:
        raise SweepError("\n".join(unread_key(key, vocabulary) for key in sorted(unread)))


def _problem_list(problems: dict[str, list[Job]], total: int, vocabulary: Vocabulary) -> str:
    """Equal problems once, each with the jobs that have it."""
    if total == 1:
        return next(iter(problems))
    failing = sum(len(jobs) for jobs in problems.values())
    lines = [f"{failing} of {total} runs cannot start, so none was started."]
    for problem, jobs in problems.items():
        first = " ".join(in_users_words(jobs[0], vocabulary))
        where = "all of them" if len(jobs) == total else first if len(jobs) == 1 else f"{len(jobs)}, first {first}"
        lines.append(f"- {problem}\n  ({where})")
    return "\n".join(lines)


def in_users_words(job: Sequence[str], vocabulary: Vocabulary) -> tuple[str, ...]:
    """A job's overrides in the user's words, without those that describe the whole command."""
    return tuple(spoken(one, vocabulary) for one in job if describes_run(one, vocabulary))


def describes_run(override: str, vocabulary: Vocabulary) -> bool:
    parsed = parts(override)
    if parsed.key == SWEEPS:
        return parsed.value not in vocabulary.pure_sweeps
    return not is_of_request(parsed.key)
