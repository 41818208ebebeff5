"""The Hydra application: translates overrides into Hydra's form, lets Hydra run them, and explains Hydra's errors."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import hydra
import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from modal_app.patches.apply import apply_launcher_patches
from modal_app.store.notice import name_problem
from runner.api.arguments import MULTIRUN, RUN, Arguments, take_apart
from runner.composing.axes import AxisRules
from runner.composing.base_option import forget_bases, with_bases
from runner.composing.hydra_errors import check_override, explained
from runner.composing.hydra_inside import (
    circular_files,
    is_about_a_plugin,
    multirun,
    refused_override,
    unreadable_file,
)
from runner.composing.hydra_sweep import LaunchSweep, RunFailed, Task, command_line
from runner.composing.resolvers import register_resolvers
from runner.composing.searched import SearchInput
from runner.config.known_names import forget_files
from runner.config.overrides import canonical_all, parts
from runner.config.project import SWEEPS, Origin, Project, find_project, foreign_note, using
from runner.config.shipped import shipped_root
from runner.config.vocabulary import Vocabulary, read_vocabulary
from runner.console import terminal
from runner.errors import ExitCode, SweepError
from runner.keys.hub_commits import resolve
from runner.keys.hub_models import hub_model
from runner.memory.counted_weights import weights_in_folder
from runner.request import Request
from runner.types import Experiment, RunResult

NAME = "axosweep"
CONFIG = "config"


Page = Callable[[Arguments], str | None]


def run(
    arguments: Sequence[str],
    launch: LaunchSweep | None = None,
    page: Page = lambda _: None,
    search: str | None = None,
) -> int:
    """One command line without a verb. Exit code 0, or 1 when a run failed; SweepError for a user's mistake.

    `page`: what a flag asks to print instead, such as the versions; None for a command line without such a flag.
    `search`: the id that the search of this command line must have.
    """
    _forget_names()
    args, config_dir = take_apart(arguments).split_off("--config-dir", "-cd")
    project = replace(find_project(config_dir), find_origin=_find_origin)
    with using(project):
        try:
            texts = {**args.texts, "sweep": search} if search else args.texts
            return _run(replace(args, texts=texts), arguments, project, launch, page)
        finally:
            forget_bases()


def _forget_names() -> None:
    """Forget what names meant to an earlier command line of this process, as in a notebook: that may have changed."""
    forget_files()
    for looked_up in (resolve, hub_model, weights_in_folder):
        looked_up.cache_clear()


def _run(args: Arguments, arguments: Sequence[str], project: Project, launch: LaunchSweep | None, page: Page) -> int:
    vocabulary = read_vocabulary()
    if (text := page(args)) is not None:
        print(text)
        return 0
    if project.foreign is not None:
        terminal.message(foreign_note(project.foreign))
    words = _for_hydra(args, vocabulary)
    task = Task(launch or _launch, _search, arguments, args.texts, AxisRules(args.zips, args.excludes))
    register_resolvers()
    apply_launcher_patches()
    try:
        with command_line(words), _full_errors():
            _start_hydra(words, task)
    except (HydraException, OmegaConfBaseException) as error:
        raise SweepError(explained(error, vocabulary)) from error
    except yaml.YAMLError as error:
        raise SweepError(f"A config file is not valid YAML: {error}") from error
    except RecursionError as error:
        if not (files := circular_files(error)):
            raise
        through = f" through {', '.join(files[1:])}" if files[1:] else ""
        raise SweepError(
            f"The defaults list of {files[0]} leads back to this file{through}. Remove the entry that does."
        ) from error
    except (ValueError, OSError) as error:
        if (file := unreadable_file(error)) is not None:
            raise SweepError(f"The config file {file} cannot be used: {str(error).rstrip('.')}.") from error
        if not isinstance(error, ValueError) or (override := refused_override(error)) is None:
            raise
        raise SweepError(f"Hydra cannot use {override}: {str(error).rstrip('.')}.") from error
    except (RuntimeError, ImportError) as error:
        if not is_about_a_plugin(error):
            raise
        raise SweepError(
            f"Hydra cannot use this sweeper or launcher: {str(error).splitlines()[0]}. Choose one with "
            "hydra/sweeper=NAME or hydra/launcher=NAME; without these, axosweep uses its own."
        ) from error
    except RunFailed:
        return ExitCode.FAILED
    return ExitCode.SUCCEEDED if not any(result.failed for result in task.results) else ExitCode.FAILED


def _start_hydra(words: Sequence[str], task: Task) -> None:
    """A sweep without other flags goes straight to Hydra's multirun. hydra.main would compose its config twice, the
    first time only to find out whether it is a sweep.
    """
    conf = str(shipped_root() / "conf")
    sweeps, *overrides = words
    if sweeps in MULTIRUN and not any(word.startswith("-") for word in overrides):
        with hydra.initialize_config_dir(conf, job_name=NAME, **_version_base()):
            multirun(CONFIG, overrides, task)
    else:
        hydra.main(config_path=conf, config_name=CONFIG, **_version_base())(task)()


def _launch(experiments: list[Experiment], request: Request) -> list[RunResult]:
    from runner.launch.sweep import launch_sweep  # imported late: --cfg and --info need no executor

    return launch_sweep(experiments, request)


def _search(searched: SearchInput, request: Request, launch: LaunchSweep) -> list[RunResult]:
    from runner.search.rounds import run_search  # imported late: only two methods need it

    return run_search(searched, request, launch)


def _find_origin(run: str, store: str | None) -> Origin:
    from runner.launch.origin import find_origin  # imported late: only from= needs it

    return find_origin(run, store)


def _for_hydra(args: Arguments, vocabulary: Vocabulary) -> list[str]:
    """Every override in Hydra's own form; without -m, a run becomes a sweep of one run."""
    for override in args.overrides:
        _refuse_address(override)
        parts(override)
        check_override(override)
    overrides = canonical_all(args.overrides, vocabulary)
    if not args.shows_only and not args.multirun:
        _refuse_sweep_without_m(args)
    overrides = with_bases(overrides, vocabulary)
    if args.shows_only:
        return [*(flag for flag in args.flags if flag not in MULTIRUN), *overrides]
    if args.multirun:
        return [*args.flags, *overrides]
    if not any(parts(override).key == "hydra/sweeper" for override in overrides):
        overrides.append("hydra.sweeper.single=true")
    return [*(flag for flag in args.flags if flag not in RUN), "-m", *overrides]


def _refuse_address(override: str) -> None:
    """Refuse an address where `notify=` takes a name, before any other message repeats the word."""
    key, _, value = override.partition("=")
    if key.lstrip("+") == "notify" and value != "null" and (problem := name_problem(value)):
        raise SweepError(problem)


def _refuse_sweep_without_m(args: Arguments) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(args.overrides))
    swept = next((one.input_line for one in parsed if one.is_sweep_override() or one.key_or_group == SWEEPS), None)
    if swept is not None:
        verb = "plan " if "action=plan" in args.overrides else ""
        words = shlex.join(one for one in args.overrides if one != "action=plan")
        rules = AxisRules(args.zips, args.excludes).words
        raise SweepError(f"{swept} asks for several runs, which need -m:\n  axosweep {verb}-m {words} {rules}".rstrip())


@contextmanager
def _full_errors() -> Iterator[None]:
    """In the block, Hydra raises its exceptions instead of printing them and exiting."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _version_base() -> dict[str, str]:
    """Hydra 1.3 warns when it is left out, 1.4 when it is given."""
    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
