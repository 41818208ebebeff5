"""Axolotl's own schema, asked about every run: remembered verdicts, and a process that is asked for the rest."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from modal_app.oneshot.validate import ANSWERS, NOT_LOADED, QUESTIONS
from runner.environment.verdicts import SchemaQuestion, SchemaVerdict, Verdicts
from runner.keys.identity import keyed_config
from runner.keys.inputs import look_for_inputs
from runner.preflight.findings import Finding, Severity, shown
from runner.preflight.gpu import capabilities
from runner.preflight.keys import without_secrets
from runner.types import Experiment, InputKind

SOME_COMMIT = "0" * 40
"""Stands for the hub commit that a run is pinned to: some rules ask whether there is one."""
QUIET = ("Auto-enabling LoRA kernel optimizations",)
"""What Axolotl logs as a warning at nearly every run and is none."""
AT_MOST_ONE = re.compile(r"mutually exclusive|cannot be (used together|combined)|only one of")
LONGEST = 120
"""Characters of a value that are shown."""


class Validator(Protocol):
    """A process with Axolotl in it."""

    @property
    def is_up(self) -> bool:
        """Whether it has imported Axolotl already, most likely."""
        ...

    def validate(self, folder: Path) -> None:
        """Answer a folder's questions (modal_app.oneshot.validate). Raises SweepError when the process ends without."""
        ...


def questions_of(experiment: Experiment) -> list[SchemaQuestion]:
    """One for each GPU that the run may get."""
    found, _ = look_for_inputs(experiment.axolotl)
    pinned = [replace(one, identity=SOME_COMMIT) for one in found if one.kind is InputKind.HUB]
    config = without_secrets(keyed_config(experiment.axolotl, pinned))
    return [SchemaQuestion(config, one) for one in capabilities(experiment.gpu)]


def unasked(questions: Iterable[SchemaQuestion], verdicts: Verdicts) -> list[SchemaQuestion]:
    """Those whose answer is not known yet, once each."""
    open_questions: dict[str, SchemaQuestion] = {}
    for question in questions:
        if verdicts.get(question) is None:
            open_questions.setdefault(question.text, question)
    return list(open_questions.values())


def ask(questions: Sequence[SchemaQuestion], verdicts: Verdicts, validator: Validator) -> None:
    """Ask, and remember the answers."""
    with tempfile.TemporaryDirectory(prefix="axosweep-") as name:
        folder = Path(name)
        asked = json.dumps([question.as_dict() for question in questions])
        (folder / QUESTIONS).write_text(asked, encoding="utf-8")
        validator.validate(folder)
        answers = json.loads((folder / ANSWERS).read_text(encoding="utf-8"))
    for question, answer in zip(questions, answers, strict=True):
        verdicts.put(question, answer)
    verdicts.save()


def schema_findings(
    experiment: Experiment, questions: Iterable[SchemaQuestion], verdicts: Verdicts, told: Sequence[Finding] = ()
) -> tuple[Finding, ...]:
    """What is known of Axolotl's verdict on a run by its questions, without what was told already (`told`) in our own
    words.
    """
    found: list[Finding] = []
    for question in questions:
        answer = verdicts.get(question)
        if answer is not None:
            found += _findings(experiment, answer, told)
    return tuple(dict.fromkeys(found))


def _findings(experiment: Experiment, answer: SchemaVerdict, told: Sequence[Finding]) -> Iterator[Finding]:
    known = {one.key for one in told}
    for problem in answer["problems"]:
        keys = [key for key in problem["keys"] if key not in ("capabilities", "env_capabilities")]
        if not _is_told(keys, known, told):
            yield _of_problem(experiment, keys, problem["message"], problem.get("kind"))
    for text in answer["warnings"]:
        if not text.startswith(QUIET) and not any(_names(text, key) for key in known):
            key = next((key for key in experiment.axolotl if _names(text, key)), "axolotl")
            yield Finding(Severity.WARNING, key, "(Axolotl says)", text)


def _is_told(keys: Sequence[str], known: set[str], told: Sequence[Finding]) -> bool:
    """Whether one of ours is about all that Axolotl's refusal is about."""
    if len(keys) < 2:
        return keys[0] in known if keys else False
    return any(all(_names(one.text, key) for key in keys) for one in told)


def _names(text: str, key: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key.rpartition('.')[2])}(?!\w)", text) is not None


def _of_problem(experiment: Experiment, keys: Sequence[str], message: str, kind: str | None) -> Finding:
    seen = without_secrets(experiment.axolotl)
    severity = Severity.ERROR
    if kind == NOT_LOADED and _adds_packages(experiment):
        severity = Severity.WARNING  # what Modal's image has beyond the lock is not here to be asked
    if len(keys) == 1:
        return Finding(severity, keys[0], _seen(seen, keys[0]), _expected(message))
    pairs = [f"{key}={_seen(seen, key)}" for key in keys]
    told = f"{', '.join(pairs) or 'axolotl'}: {_expected(message)}"
    way_out = _way_out(experiment, keys) if AT_MOST_ONE.search(message) else ""
    return Finding(severity, keys[0] if keys else "axolotl", "", told, way_out)


def _way_out(experiment: Experiment, keys: Sequence[str]) -> str:
    """What nobody asked for by name is taken out: a recipe's key, where another one was given beside it."""
    asked = {override.partition("=")[0].lstrip("+~") for override in experiment.overrides}
    not_asked = [key for key in keys if key not in asked]
    return f"Take one out: ~{(not_asked or list(keys))[0]}."


def _adds_packages(experiment: Experiment) -> bool:
    """Whether the run's trainer has more than the lock."""
    deployment = experiment.executor.modal
    return deployment is not None and (bool(deployment.packages) or deployment.trainer == "image")


def _expected(message: str) -> str:
    """pydantic's words in ours."""
    text = message.replace("Input should be", "expected").replace(" or expected", " or")
    return "expected a value: Axolotl needs one" if text == "Field required" else text


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
