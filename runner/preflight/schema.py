"""Check every run against Axolotl's own schema: verdicts are remembered; a process gives those that are missing."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from modal_app.oneshot.user_modules import MISSING, NOT_LOADED
from modal_app.oneshot.validate import ANSWERS, QUESTIONS
from runner.environment.verdicts import SchemaQuestion, SchemaVerdict, Verdicts
from runner.keys.code import code_input
from runner.keys.identity import keyed_config
from runner.keys.inputs import look_for_inputs
from runner.preflight.findings import Finding, Severity, shown
from runner.preflight.gpu import capabilities
from runner.preflight.keys import without_secrets
from runner.preflight.packages import adds_packages, missing_package
from runner.types import Experiment, InputKind

SOME_COMMIT = "0" * 40
"""A placeholder for the hub commit that a run is pinned to, since some rules check whether there is one."""
QUIET = ("Auto-enabling LoRA kernel optimizations",)
"""The beginning of warnings that Axolotl logs for nearly every run, and that do not matter."""
AT_MOST_ONE = re.compile(r"mutually exclusive|cannot be (used together|combined)|only one of")
LONGEST = 120
"""A longer value is shown only up to this number of characters."""


class Validator(Protocol):
    """A process that runs Axolotl's schema."""

    @property
    def is_up(self) -> bool:
        """Whether it has most likely imported Axolotl already."""
        ...

    def validate(self, folder: Path) -> None:
        """Answer a folder's questions (modal_app.oneshot.validate). Raises SweepError if it ends without an answer."""
        ...


def questions_of(experiment: Experiment) -> list[SchemaQuestion]:
    """One for each GPU that the run may get."""
    found, _ = look_for_inputs(experiment.axolotl)
    pinned = [replace(one, identity=SOME_COMMIT) for one in found if one.kind is InputKind.HUB]
    config = without_secrets(keyed_config(experiment.axolotl, pinned))
    code = code_input(experiment)
    files, identity = (dict(code.files), str(code.identity)) if code else ({}, "")
    return [SchemaQuestion(config, one, files, identity) for one in capabilities(experiment.gpu)]


def unanswered(questions: Iterable[SchemaQuestion], verdicts: Verdicts) -> list[SchemaQuestion]:
    """The questions without a remembered answer, once each."""
    open_questions: dict[str, SchemaQuestion] = {}
    for question in questions:
        if verdicts.get(question) is None:
            open_questions.setdefault(question.text, question)
    return list(open_questions.values())


def ask(questions: Sequence[SchemaQuestion], verdicts: Verdicts, validator: Validator) -> None:
    """Ask the validator, and remember the answers."""
    with tempfile.TemporaryDirectory(prefix="axosweep-") as name:
        folder = Path(name)
        text = json.dumps([question.as_dict() for question in questions])
        (folder / QUESTIONS).write_text(text, encoding="utf-8")
        validator.validate(folder)
        answers = json.loads((folder / ANSWERS).read_text(encoding="utf-8"))
    for question, answer in zip(questions, answers, strict=True):
        verdicts.put(question, answer)
    verdicts.save()


def schema_findings(
    experiment: Experiment, questions: Iterable[SchemaQuestion], verdicts: Verdicts, own: Sequence[Finding] = ()
) -> tuple[Finding, ...]:
    """The remembered verdicts on a run's questions, as findings. Problems that are among our own findings (`own`) are
    left out.
    """
    found: list[Finding] = []
    for question in questions:
        answer = verdicts.get(question)
        if answer is not None:
            found += _findings(experiment, answer, own)
    return tuple(dict.fromkeys(found))


def _findings(experiment: Experiment, answer: SchemaVerdict, own: Sequence[Finding]) -> Iterator[Finding]:
    known = {one.key for one in own}
    stops = [one for one in own if one.severity is not Severity.WARNING]  # a warning does not replace a refusal
    for problem in answer["problems"]:
        keys = [key for key in problem["keys"] if key not in ("capabilities", "env_capabilities")]
        if not _is_reported(keys, stops):
            if problem.get("kind") != MISSING:
                yield _of_problem(experiment, keys, problem["message"], problem.get("kind"))
                continue
            seen = _seen(without_secrets(experiment.axolotl), keys[0])
            if found := missing_package(experiment, keys[0], seen, problem["message"], problem["package"]):
                yield found
    for text in answer["warnings"]:
        if not text.startswith(QUIET) and not any(_names(text, key) for key in known):
            key = next((key for key in experiment.axolotl if _names(text, key)), "axolotl")
            yield Finding(Severity.WARNING, key, "(Axolotl says)", text)


def _is_reported(keys: Sequence[str], own: Sequence[Finding]) -> bool:
    """Whether one of our own findings names all keys of Axolotl's refusal."""
    if len(keys) < 2:
        return bool(keys) and any(one.key == keys[0] for one in own)
    return any(all(_names(one.text, key) for key in keys) for one in own)


def _names(text: str, key: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key.rpartition('.')[2])}(?!\w)", text) is not None


def _of_problem(experiment: Experiment, keys: Sequence[str], message: str, kind: str | None) -> Finding:
    seen = without_secrets(experiment.axolotl)
    severity = Severity.ERROR
    if kind == NOT_LOADED and adds_packages(experiment):
        severity = Severity.WARNING  # Modal's image may have packages that this machine does not
    if len(keys) == 1:
        return Finding(severity, keys[0], _seen(seen, keys[0]), _expected(message))
    pairs = [f"{key}={_seen(seen, key)}" for key in keys]
    expected = f"{', '.join(pairs) or 'axolotl'}: {_expected(message)}"
    way_out = _way_out(experiment, keys) if AT_MOST_ONE.search(message) else ""
    return Finding(severity, keys[0] if keys else "axolotl", "", expected, way_out)


def _way_out(experiment: Experiment, keys: Sequence[str]) -> str:
    """Proposes to remove a key that the request does not name, such as a recipe's key."""
    requested = {override.partition("=")[0].lstrip("+~") for override in experiment.overrides}
    others = [key for key in keys if key not in requested]
    return f"Remove one: ~{(others or list(keys))[0]}."


def _expected(message: str) -> str:
    """pydantic's message in our words."""
    text = message.replace("Input should be", "expected").replace(" or expected", " or")
    return "expected a value, since Axolotl requires one" if text == "Field required" else text


def _seen(axolotl: Mapping[str, Any], key: str) -> str:
    node: Any = axolotl
    for part in key.split("."):
        if isinstance(node, Mapping) and part in node:
            node = node[part]
        elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            return "(not set)"
    text = shown(node)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
