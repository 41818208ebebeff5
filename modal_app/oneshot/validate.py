"""Axolotl's own verdict on configs, before anything is started: `python modal_app/run.py validate FOLDER`.

FOLDER/questions.json: a list of {"config", "capabilities"}; the capabilities are what Axolotl would detect on the
requested GPU. "code" is the user's own Python, if there is any: each file's name, and where it is. FOLDER/answers.json,
written last: for each question {"problems", "warnings"}, in Axolotl's words; a problem is {"keys", "message"}, with a
"kind" if it is not the schema's (user_modules: NOT_LOADED, MISSING, UNRESOLVED). Nothing is downloaded or sent: rules
that need the base model's own files are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modal_app.oneshot import refusals
from modal_app.oneshot.named_imports import import_problems, shadowing_problems
from modal_app.oneshot.user_modules import failure, problem
from modal_app.patches.apply import apply_schema_patches, be_offline_as, block_network
from modal_app.process import imports
from modal_app.process.attempt import base_environment
from modal_app.process.forked import leave
from modal_app.store import user_code
from modal_app.store.step import Device, write_atomically

QUESTIONS = "questions.json"
ANSWERS = "answers.json"
TOKENIZER_CLASSES = ("tokenizer_type", "processor_type")
MODEL_CLASSES = ("type_of_model", "model_type")
ACTS_WHEN_REGISTERED = ("axolotl.integrations.nemo_gym.",)
"""Shipped plugins whose `register` does work (clones a repository, starts servers): only their keys are used."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the configs in FOLDER/questions.json against Axolotl's schema.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    os.environ |= base_environment(Device.CPU) | {"HF_HUB_OFFLINE": "1"}
    os.dup2(2, 1)  # so that output of the imports does not reach the launcher
    imports.load(imports.VALIDATE, Device.CPU)
    apply_schema_patches()
    return answered(folder)


Group = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]
"""A list of plugins, and files of Python: what stays in a process that has imported them."""


def answered(folder: Path) -> int:
    """Answer a folder's questions. Whatever a question names stays imported, so each group gets a child process.

    Configs that name no code are checked last, in this process. Returns 0, its exit code.
    """
    questions = json.loads((folder / QUESTIONS).read_text(encoding="utf-8"))
    groups: dict[Group, list[int]] = {}
    for index, question in enumerate(questions):
        groups.setdefault(_group(question), []).append(index)
    answers: list[Mapping[str, Any] | None] = [None] * len(questions)
    for number, (group, indices) in enumerate(sorted(groups.items(), reverse=True)):
        group_questions = [questions[index] for index in indices]
        own = folder / f"group-{number}"
        verdicts = _of_a_child(group, group_questions, own) if any(group) else _verdicts(group, group_questions, folder)
        for index, verdict in zip(indices, verdicts, strict=True):
            answers[index] = verdict
    write_atomically(folder / ANSWERS, json.dumps(answers))
    return 0


def _group(question: Mapping[str, Any]) -> Group:
    return _plugins(question["config"]), tuple(sorted(question.get("code", {}).items()))


def _plugins(config: Mapping[str, Any]) -> tuple[str, ...]:
    listed = config.get("plugins")
    return tuple(map(str, listed)) if isinstance(listed, list) else ()


def _of_a_child(group: Group, questions: Sequence[Mapping[str, Any]], own: Path) -> Sequence[Mapping[str, Any]]:
    """`own`: a folder for this group."""
    own.mkdir()
    pid = os.fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        answers: list[Mapping[str, Any]] = json.loads((own / ANSWERS).read_text(encoding="utf-8")) if code == 0 else []
        return answers or [_died(code)] * len(questions)
    code = 1
    try:
        write_atomically(own / ANSWERS, json.dumps(_verdicts(group, questions, own)))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        leave(code)


def _died(code: int) -> Mapping[str, Any]:
    message = f"Axolotl's validation ended with code {code}; the log says why"
    return {"problems": [{"keys": ["plugins"], "message": message}], "warnings": []}


def _verdicts(group: Group, questions: Sequence[Mapping[str, Any]], folder: Path) -> list[Mapping[str, Any]]:
    be_offline_as({"HF_HUB_OFFLINE": "1"})
    block_network()  # a verdict is made from the config alone
    tempfile.tempdir = str(folder)  # some rules write an edited copy of a DeepSpeed file
    plugins, files = group
    hidden = list(_import_from_copies(files, folder / "code")) if files else []
    if refused := _register(plugins):
        return [{"problems": [*hidden, refused], "warnings": []}] * len(questions)
    found = [_verdict(question["config"], question["capabilities"]) for question in questions]
    return [{**one, "problems": [*hidden, *one["problems"]]} for one in found]


def _import_from_copies(files: Sequence[tuple[str, str]], folder: Path) -> Iterator[Mapping[str, Any]]:
    """Put the user's files where nothing else is, as for a run: what would be missing there is missing here."""
    for name, path in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    user_code.add_to_path(folder)
    yield from shadowing_problems(folder)


def _register(plugins: Sequence[str]) -> Mapping[str, Any] | None:
    """Load the plugins, so that their keys are known. Returns the problem of one that cannot be loaded."""
    from axolotl.integrations.base import PluginManager, normalize_plugin_name

    manager = PluginManager.get_instance()
    for name in plugins:
        normal = normalize_plugin_name(name)
        try:
            if normal not in manager.plugins:
                manager.register(normal, required=True)
        except Exception as error:  # this runs the plugin's code
            return failure("plugins", name, error)
    return None


def _verdict(config: Mapping[str, Any], capabilities: Mapping[str, Any]) -> Mapping[str, Any]:
    """The result of validate_config, called as the trainer does: every error that it raises is a refusal."""
    import torch
    from axolotl.utils.config import validate_config

    on_the_gpu = {
        "capabilities": dict(capabilities),
        "env_capabilities": {"torch_version": torch.__version__.partition("+")[0]},
    }
    with _logged_warnings() as warnings:
        try:
            checked = _registered_with(config)
            validate_config(checked, **on_the_gpu)
            problems = []
        except Exception as error:  # Axolotl's rules and plugins may raise anything
            problems = refusals.explained(error, config, on_the_gpu)
    named = [*_unknown_classes(config), *import_problems(config)]
    return {"problems": [*problems, *named], "warnings": list(dict.fromkeys(warnings))}


def _unknown_classes(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Names that Axolotl's loaders look up in transformers, although the schema accepts any text."""
    import transformers

    own_code = config.get("trust_remote_code") or config.get("gptq")
    for key in TOKENIZER_CLASSES if own_code else (*TOKENIZER_CLASSES, *MODEL_CLASSES):
        name = config.get(key)
        if isinstance(name, str) and not hasattr(transformers, name):
            yield problem([key], f"transformers {transformers.__version__} has no class {name}")


def _registered_with(config: Mapping[str, Any]) -> Any:
    """The config as Axolotl's own dictionary, after its plugins have changed it."""
    from axolotl.integrations.base import PluginManager, get_builtin_plugins, normalize_plugin_name
    from axolotl.utils.dict import DictDefault

    checked = DictDefault(json.loads(json.dumps(config)))
    manager = PluginManager.get_instance()
    listed = [normalize_plugin_name(name) for name in _plugins(config)]
    for name in dict.fromkeys((*get_builtin_plugins(), *listed)):
        ours_to_call = name.startswith("axolotl.") and not name.startswith(ACTS_WHEN_REGISTERED)
        if name in manager.plugins and ours_to_call:
            manager.plugins[name].register(checked)
    return checked


@contextlib.contextmanager
def _logged_warnings() -> Iterator[list[str]]:
    """Collects what Axolotl logs as a warning."""
    from axolotl.utils.logging import MultiProcessAdapter

    messages: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(" ".join(record.getMessage().split()))

    logger, listener = logging.getLogger("axolotl"), Listener(logging.WARNING)
    MultiProcessAdapter.warning_once.cache_clear()
    logger.addHandler(listener)
    try:
        yield messages
    finally:
        logger.removeHandler(listener)
