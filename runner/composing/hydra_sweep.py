"""What the Hydra plugins do: axes -> jobs -> composed once -> one launch. The plugins only adapt."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from runner.composing.axes import NO_RULES, AxisRules, Job, SearchSpace
from runner.composing.base_option import with_bases
from runner.composing.compose_jobs import compose_jobs, describes_run, in_users_words
from runner.composing.experiment import experiment_from, request_from, search_of
from runner.composing.fast_compose import Composer
from runner.composing.hydra_inside import plain
from runner.composing.points import DECIDED_BY_RESULTS, points_of, space_of
from runner.composing.read_axes import canonical_axes, refuse_swept_request
from runner.composing.search_node import check_axes, refuse_beside_others
from runner.composing.searched import SearchInput
from runner.config.overrides import base_spoken, canonical_all, parts
from runner.config.project import SWEEPS, current_project
from runner.config.sweep_file import body_keys, body_overrides
from runner.config.vocabulary import EXPERIMENT, FROM, Vocabulary, read_vocabulary
from runner.console import terminal
from runner.errors import SweepError
from runner.request import Action, Request
from runner.types import Experiment, RunResult

NONE: Mapping[str, str] = {}
LaunchSweep = Callable[[list[Experiment], Request], list[RunResult]]
LaunchSearch = Callable[[SearchInput, Request, LaunchSweep], list[RunResult]]
"""Runs a search whose points depend on results, with a LaunchSweep for each of its rounds."""

_OUR_SWEEPER = "hydra_plugins.axosweep.sweeper.AxosweepSweeper"
_OUR_LAUNCHER = "hydra_plugins.axosweep.launcher.AxosweepLauncher"


class RunFailed(Exception):
    """A run's failure, for a third-party sweeper or launcher. The run itself is recorded in the store."""


class Task:
    """Hydra's task function: what is done with composed jobs. `texts`: fields of the request that Hydra does not know.

    Our sweeper and launcher pass all jobs of a sweep at once; a third-party launcher calls it once per job.
    """

    def __init__(
        self,
        launch: LaunchSweep,
        search: LaunchSearch,
        command_line: Sequence[str],
        texts: Mapping[str, str] = NONE,
        rules: AxisRules = NO_RULES,
    ) -> None:
        self.rules = rules
        """Of the flags --zip and --exclude."""
        self._launch = launch
        self._search = search
        self._command_line = list(command_line)
        self._texts: dict[str, Any] = dict(texts)
        self.results: list[RunResult] = []

    def launch(self, experiments: list[Experiment], request: Request) -> list[RunResult]:
        with command_line(self._command_line):  # as the user wrote it: it is recorded
            results = self._launch(experiments, replace(request, **self._texts))
        self.results += results
        return results

    def search(self, searched: SearchInput, request: Request) -> None:
        with command_line(self._command_line):
            self.results += self._search(searched, replace(request, **self._texts), self._launch)

    def __call__(self, config: DictConfig) -> float | None:
        hydra = HydraConfig.get()
        if hydra.sweeper._target_ != _OUR_SWEEPER:
            refuse_beside_others(plain(config.search, resolve=True), self.rules)
        job = OmegaConf.to_container(hydra.overrides.task)
        assert isinstance(job, list)
        choices = hydra.runtime.choices
        experiment = experiment_from(config, in_users_words(job, read_vocabulary()), choices)
        request = request_from(config, choices, map(_key, job))
        if hydra.sweeper._target_ != _OUR_SWEEPER:
            _refuse_json(request, choices)
        results = self.launch([experiment], request)
        for result in results:
            if not result.succeeded:
                raise RunFailed(result.message)
        return results[0].objective if results else None


def _refuse_json(request: Request, choices: Mapping[str, Any]) -> None:
    """Raises SweepError if one sweep is to be printed or returned, and a third-party launcher makes several."""
    if request.json:
        raise SweepError(
            f"hydra/launcher={choices['hydra/launcher']} launches each run as a sweep of its own, but --json prints "
            "one sweep, and axosweep.plan and axosweep.launch return one. Leave out hydra/launcher=, or use the "
            "command line without --json."
        )


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """Sets sys.argv in the block: Hydra and W&B read it, and the ledger records it."""
    before = sys.argv
    sys.argv = [before[0], *words]
    try:
        yield
    finally:
        sys.argv = before


def run_sweep(
    config: DictConfig, arguments: Sequence[str], context: HydraContext, task: TaskFunction, *, single: bool
) -> Sequence[Any]:
    """Our sweeper. `arguments`: the command line's overrides, which win over the sweep file's axes."""
    vocabulary = read_vocabulary()
    overrides, choices = _overrides(config, arguments, vocabulary), config.hydra.runtime.choices
    vocabulary = replace(vocabulary, bases=current_project().bases)
    refuse_swept_request(overrides, context.config_loader)
    search = search_of(config)
    rules = task.rules if isinstance(task, Task) else NO_RULES
    space = space_of(config, overrides, arguments, rules, search.method, context.config_loader, vocabulary)
    check_axes(search, space.axes, single=single)
    swept = [one.head.lstrip("+~") for one in space.axes]
    if search.method in DECIDED_BY_RESULTS:
        return _searched(config, space, context, task, vocabulary, request_from(config, choices, swept))
    points = points_of(space, search)
    if points.note:
        terminal.message(f"note: {points.note}")
    if single and len(points.jobs) > 1:
        raise SweepError(f"This asks for {len(points.jobs)} runs, swept over {', '.join(swept)}. A sweep needs -m.")
    request = request_from(config, choices, swept or [_key(argument) for argument in arguments])
    if request.action is Action.OVERRIDES:
        _print_overrides(points.jobs, vocabulary)
        return []
    if config.hydra.launcher._target_ != _OUR_LAUNCHER:
        if search.rungs:
            raise SweepError(
                "search.rungs compares runs while they train, so axosweep launches them: leave out search.rungs or "
                "hydra/launcher=."
            )
        if len(points.jobs) > 1:
            _refuse_json(request, choices)
        return _launched_by_another(config, points.jobs, context, task)
    experiments = compose_jobs(config, points.jobs, context.config_loader, vocabulary)
    assert isinstance(task, Task)
    left_out = tuple(replace(one, overrides=in_users_words(one.overrides, vocabulary)) for one in points.left_out)
    return task.launch([experiment for experiment, _ in experiments], replace(request, left_out=left_out))


def _overrides(config: DictConfig, arguments: Sequence[str], vocabulary: Vocabulary) -> list[str]:
    """All overrides of a sweep, canonical: those of its file, the body first, then those of the command line."""
    params = OmegaConf.to_container(config.hydra.sweeper.params, resolve=True)
    assert isinstance(params, dict)
    of_file = {} if config.hydra.sweeper.alone else {str(key): value for key, value in params.items()}
    axes = canonical_axes(of_file, vocabulary)
    choices, words = config.hydra.runtime.choices, canonical_all(arguments, vocabulary)
    if not isinstance(name := choices.get(SWEEPS), str):
        return with_bases([*axes, *words], vocabulary)
    file = current_project().sweep_files()[name]
    overrides = with_bases([*body_overrides(file, vocabulary), *axes, *words], vocabulary)
    _refuse_late_from(file, overrides, choices.get(EXPERIMENT))
    return overrides


def _refuse_late_from(file: Path, overrides: Sequence[str], chosen: str | None) -> None:
    """Raises SweepError for `from: RUN` in the body of a sweep file, unless something else gives its runs their config:
    Hydra reads the body when it is too late for RUN's. `chosen`: the experiment of the config.
    """
    options = [chosen, *(parts(one).value for one in overrides if _key(one) == EXPERIMENT)]
    runs = [one for one, source in current_project().bases.items() if source.key == FROM]
    if FROM in body_keys(file) and all(one is None or one in runs for one in options):
        raise SweepError(
            f"{file}: from: in the body gives the runs a checkpoint, but not the config of the run that has left it. "
            "Write it under hydra.sweeper.params (`from: [RUN@STEP]`), or choose a config for the runs: "
            "`- override /experiment: NAME` in the defaults list, or `base: FILE`."
        )


def _searched(
    config: DictConfig,
    space: SearchSpace,
    context: HydraContext,
    task: TaskFunction,
    vocabulary: Vocabulary,
    request: Request,
) -> Sequence[Any]:
    """A search whose points depend on results."""
    if request.action is Action.OVERRIDES:
        raise SweepError(f"search={request.search.method} chooses its runs by results, so they are not known before.")
    if config.hydra.launcher._target_ != _OUR_LAUNCHER:
        raise SweepError(
            f"search={request.search.method} launches round after round with axosweep's own launcher, and "
            "hydra/launcher= chooses another one. Leave out one of the two."
        )

    composer = Composer(config, context.config_loader, remember=True)

    def compose(jobs: Sequence[Job]) -> list[Experiment]:
        composed = compose_jobs(config, jobs, context.config_loader, vocabulary, composer=composer)
        return [experiment for experiment, _ in composed]

    assert isinstance(task, Task)
    task.search(SearchInput(space, compose), request)
    return []


def run_batch(
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    context: HydraContext,
    task: TaskFunction,
) -> list[JobReturn]:
    """Our launcher, called by a third-party sweeper."""
    setup_globals()
    assert isinstance(task, Task)
    refuse_beside_others(plain(config.search, resolve=True), task.rules)
    vocabulary = read_vocabulary()
    jobs = [tuple(job) for job in job_overrides]
    keys = [_key(override) for override in jobs[0]] if jobs else []
    request = request_from(config, config.hydra.runtime.choices, keys)
    composed = compose_jobs(config, jobs, context.config_loader, vocabulary, first, by_hydra=True)
    results: Sequence[RunResult] = []
    if request.action is Action.OVERRIDES:
        _print_overrides(jobs, vocabulary)
    else:
        results = task.launch([experiment for experiment, _ in composed], request)
    returns = [_job_return(job, one.config) for job, (_, one) in zip(jobs, composed, strict=True) if one.config]
    for job_return, result in zip(returns, results, strict=False):  # a plan has no results
        job_return.status = JobStatus.COMPLETED if result.succeeded else JobStatus.FAILED
        job_return._return_value = result.objective if result.succeeded else RunFailed(result.message)
    return returns


def _launched_by_another(
    config: DictConfig, jobs: Sequence[Job], context: HydraContext, task: TaskFunction
) -> Sequence[Any]:
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    returns = launcher.launch([list(job) for job in jobs], initial_job_idx=0)
    for job_return in returns:
        _ = job_return.return_value  # raises the job's own error
    return returns


def _print_overrides(jobs: Sequence[Job], vocabulary: Vocabulary) -> None:
    """One job a line, once, in the form that any Hydra sweeper takes."""
    for job in dict.fromkeys(jobs):
        print(shlex.join(base_spoken(one, vocabulary) for one in job if describes_run(one, vocabulary)))


def _key(override: str) -> str:
    return parts(override).key


def _job_return(job: Job, config: DictConfig) -> JobReturn:
    task_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return JobReturn(
        overrides=list(job),
        cfg=task_config,
        hydra_cfg=OmegaConf.masked_copy(config, ["hydra"]),
        task_name=config.hydra.job.name,
        status=JobStatus.COMPLETED,
    )
