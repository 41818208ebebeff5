"""The Hydra application: names people know -> Hydra's own, run by Hydra, mistakes told in a sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import hydra
import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from modal_app.patches.apply import apply_launcher_patches
from runner.command import help as help_page
from runner.command.arguments import COMPLETION, HELP, MULTIRUN, Arguments, take_apart
from runner.composing.base_option import forget_bases, with_bases
from runner.composing.hydra_errors import check_grammar, explained
from runner.composing.hydra_inside import multirun
from runner.composing.hydra_sweep import LaunchSweep, RunFailed, Task, command_line
from runner.composing.resolvers import register_resolvers
from runner.config.fields import axolotl_fields
from runner.config.overrides import canonical_all, parts
from runner.config.project import SWEEPS, Project, find_project, foreign_note, using
from runner.config.shipped import shipped_root
from runner.config.vocabulary import Vocabulary, read_vocabulary
from runner.console import terminal
from runner.errors import SweepError
from runner.types import Experiment, Request, RunResult

EXIT_FAILED_RUN = 1
NAME = "axosweep"
CONFIG = "config"


def run(arguments: Sequence[str], launch: LaunchSweep | None = None) -> int:
    """One command line without a verb. Exit code 0, or 1 when a run failed; SweepError for a user's mistake."""
    asked, config_dir = take_apart(arguments).split_off("--config-dir", "-cd")
    project = find_project(config_dir)
    with using(project):
        try:
            return _run(asked, arguments, project, launch)
        finally:
            forget_bases()


def _run(asked: Arguments, arguments: Sequence[str], project: Project, launch: LaunchSweep | None) -> int:
    vocabulary = read_vocabulary()
    if (page := _page(asked)) is not None:
        print(page)
        return 0
    if project.foreign is not None:
        terminal.message(foreign_note(project.foreign))
    words = _for_hydra(asked, vocabulary)
    task = Task(launch or _launch, arguments)
    register_resolvers()
    apply_launcher_patches()
    try:
        with command_line(words), _full_errors():
            _start_hydra(words, task)
    except (HydraException, OmegaConfBaseException) as error:
        raise SweepError(explained(error, vocabulary)) from error
    except yaml.YAMLError as error:
        raise SweepError(f"A config file is not valid YAML: {error}") from error
    except RunFailed:
        return EXIT_FAILED_RUN
    return 0 if all(result.succeeded for result in task.results) else EXIT_FAILED_RUN


def _start_hydra(words: Sequence[str], task: Task) -> None:
    """A sweep without more flags goes straight to Hydra's multirun: hydra.main would compose its config twice, once to
    find out whether it is one.
    """
    conf = str(shipped_root() / "conf")
    sweeps, *overrides = words
    if sweeps in MULTIRUN and not any(word.startswith("-") for word in overrides):
        with hydra.initialize_config_dir(conf, job_name=NAME, **_version_base()):
            multirun(CONFIG, overrides, task)
    else:
        hydra.main(config_path=conf, config_name=CONFIG, **_version_base())(task)()


def _page(asked: Arguments) -> str | None:
    """Help, the versions, or the script of `-sc install=bash`, Hydra's own way to ask for completion."""
    if any(flag in HELP for flag in asked.flags):
        return help_page.text()
    if "--version" in asked.flags:
        import importlib.metadata

        versions = f"Axolotl {axolotl_fields().version}, Hydra {hydra.__version__}"
        return f"axosweep {importlib.metadata.version('axosweep')} ({versions})"
    if not any(flag in COMPLETION for flag in asked.flags):
        return None
    if len(asked.overrides) != 1 or not asked.overrides[0].startswith("install="):
        raise SweepError('Shell completion: eval "$(axosweep completion bash)", or -sc install=bash.')
    from runner.command import completion

    return completion.script(asked.overrides[0].removeprefix("install="))


def _launch(experiments: list[Experiment], request: Request) -> list[RunResult]:
    from runner.launch.sweep import launch_sweep  # late: --cfg and --info need no executor

    return launch_sweep(experiments, request)


def _for_hydra(asked: Arguments, vocabulary: Vocabulary) -> list[str]:
    """Every override in Hydra's own form; without -m, a run goes the same way as a sweep of one."""
    for override in asked.overrides:
        parts(override)
        check_grammar(override)
    overrides = canonical_all(asked.overrides, vocabulary)
    if not asked.shows_only and not asked.multirun:
        _refuse_sweep_without_m(asked)
    overrides = with_bases(overrides, vocabulary)
    if asked.shows_only:
        return [*(flag for flag in asked.flags if flag not in MULTIRUN), *overrides]
    if asked.multirun:
        return [*asked.flags, *overrides]
    if not any(parts(override).key == "hydra/sweeper" for override in overrides):
        overrides.append("hydra.sweeper.single=true")
    return [*(flag for flag in asked.flags if flag not in ("-r", "--run")), "-m", *overrides]


def _refuse_sweep_without_m(asked: Arguments) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(asked.overrides))
    swept = next((one.input_line for one in parsed if one.is_sweep_override() or one.key_or_group == SWEEPS), None)
    if swept is not None:
        verb = "plan " if "action=plan" in asked.overrides else ""
        words = " ".join(one for one in asked.overrides if one != "action=plan")
        raise SweepError(f"{swept} asks for several runs; that takes -m:\n  axosweep {verb}-m {words}")


@contextmanager
def _full_errors() -> Iterator[None]:
    """Hydra hands its exceptions on, instead of printing them and leaving."""
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
