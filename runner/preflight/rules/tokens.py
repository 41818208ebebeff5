"""Rules about the tokens that the loss sees: none of them, only the ends of turns, or all of them by mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modal_app.store.own_data import own_data_of
from runner.preflight.findings import Finding, Severity, shown, warning
from runner.preflight.jsonl import LocalRows, properties_of
from runner.preflight.rules.datasets import may_take_null
from runner.preflight.rules.run_facts import ListedDataset, RunFacts

CONVERSATIONS = "https://docs.axolotl.ai/docs/dataset-formats/conversation.html"
INSTRUCTIONS = "https://docs.axolotl.ai/docs/dataset-formats/inst_tune.html"
ROLES: Mapping[str, str] = {
    "human": "user",
    "user": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
    "tool": "tool",
}
"""As the rows spell them -> as chat templates do, where a dataset has no `roles`."""


def no_role_to_train(run: RunFacts) -> Iterator[Finding]:
    """No message or segment is trained, so every token is masked and the loss is NaN."""
    if run.axolotl.get("rl") or run.axolotl.get("train_on_inputs") or own_data_of(run.axolotl):
        return
    silent = [(one, problem) for one in run.training if (problem := _untrained(one)) is not None]
    ends = [one for one, _ in silent if "all" in (one.entry.get("train_on_eos"), one.entry.get("train_on_eot"))]
    severity = Severity.ERROR if len(silent) == len(run.training) and not ends else Severity.WARNING
    for one, (key, seen, what) in silent:
        only = "only the tokens that end turns are trained" if one in ends else "none of its tokens is trained"
        if one.entry.get("train_on_eos") == "last":
            only += ", and train_on_eos=last trains the end of no other turn"
        elif one in ends:
            only += " (train_on_eos=all)"
        yield Finding(
            severity,
            f"{one.at}.{key}",
            seen,
            f"{what}, so {only}",
            f"Name a role of the rows, or map one: {one.at}.roles={{assistant: [NAME]}}."
            if key == "roles_to_train"
            else "Mark what is to be trained.",
            CONVERSATIONS,
        )


def inputs_trained_against_the_data(run: RunFacts) -> Iterator[Finding]:
    """`train_on_inputs` trains on complete rows, even if the config or the rows say that only a part is trained."""
    if not run.axolotl.get("train_on_inputs"):
        return
    value = run.axolotl["train_on_inputs"]
    if run.axolotl.get("rl"):
        without = f"Axolotl does not read it with rl={run.axolotl['rl']}, whose loss is computed on complete answers"
        yield warning("train_on_inputs", value, without, "Remove it.", INSTRUCTIONS)
        return
    for one in run.training:
        labels = set(one.rows.roles) if one.rows and one.entry.get("type") == "input_output" else set()
        named = one.entry.get("roles_to_train") if one.entry.get("type") == "chat_template" else None
        if named:
            what = f"it trains on every turn, so {one.at}.roles_to_train={shown(named)} has no effect"
            yield warning("train_on_inputs", value, what, "Remove one of the two.", CONVERSATIONS)
        elif {"True", "False"} <= labels:
            what = f"it trains on every segment, so the labels of the segments in {one.path} have no effect"
            yield warning("train_on_inputs", value, what, "Remove it, so that the labels decide.", INSTRUCTIONS)


def no_output_to_train(run: RunFacts) -> Iterator[Finding]:
    """The answers are empty or missing: the rows are computed, but nothing of them is trained."""
    if run.axolotl.get("rl") or run.axolotl.get("train_on_inputs") or own_data_of(run.axolotl):
        return
    for one in run.training:
        yield from _empty_turns(run, one)
        column = _output_column(one.entry)
        if one.rows is None or column is None or one.rows.tokenized:
            continue
        rows = one.rows
        without = rows.count - rows.columns.get(column, 0) + rows.empty.get(column, 0)
        if without * 5 < rows.count or (without == rows.count and column not in rows.columns and _by_type(one.entry)):
            continue
        alone = without == rows.count and len(run.training) == 1
        yield Finding(
            Severity.ERROR if alone else Severity.WARNING,
            f"{one.at}.type.field_output" if isinstance(one.entry.get("type"), Mapping) else f"{one.at}.path",
            column if isinstance(one.entry.get("type"), Mapping) else one.path,
            f"the run trains on `{column}`, which is empty in {without} of the {rows.count} rows of {one.path}, and "
            "these rows teach nothing",
            "Remove these rows, or name the column with the answers.",
            INSTRUCTIONS,
        )


def _empty_turns(run: RunFacts, one: ListedDataset) -> Iterator[Finding]:
    """The same for the answers of conversations: messages of the roles that are trained."""
    rows, roles = one.rows, _roles(one.entry)
    if one.entry.get("type") != "chat_template" or rows is None or rows.tokenized or _marks(one, rows):
        return
    trained = {roles.get(role, role) for role in _trained(one.entry)}
    turns = {role: number for role, number in rows.roles.items() if roles.get(role, role) in trained}
    total = sum(turns.values())
    counted = [rows.empty_content, *([rows.without_content] if may_take_null(run, one) else [])]
    empty = sum(counts.get(role, 0) for counts in counted for role in turns)
    if not total or empty * 5 < total:
        return
    ends = "all" in (one.entry.get("train_on_eos"), one.entry.get("train_on_eot"))
    alone = empty == total and len(run.training) == 1 and not ends
    yield Finding(
        Severity.ERROR if alone else Severity.WARNING,
        f"{one.at}.path",
        one.path,
        f"the `{properties_of(one.entry)['content']}` of {empty} of the {total} messages that are trained "
        f"({', '.join(turns)}) is empty, and these messages teach nothing",
        "Remove these rows, or name the property with the answers (message_property_mappings.content).",
        CONVERSATIONS,
    )


Untrained = tuple[str, str, str]
"""The key that decides what is trained, its value, and why it trains nothing."""


def _untrained(one: ListedDataset) -> Untrained | None:
    """None where something is trained, or that is unknown."""
    entry, rows = one.entry, one.rows
    if rows is None or rows.tokenized or not rows.messages or rows.parts:
        return None
    if entry.get("type") == "input_output":
        masked = not set(rows.roles) - {"False", "0", ""}
        return ("path", one.path, "no label of its segments is true") if masked else None
    if entry.get("type") != "chat_template" or not rows.roles:
        return None
    mark = str(entry.get("message_field_training") or "")
    if mark and rows.properties.get(mark) == rows.messages and not entry.get("message_field_training_detail"):
        false = f"it is false in all {rows.messages} messages of {one.path}"
        return None if rows.marked else ("message_field_training", mark, false)
    return _without_trained_role(one, rows)


def _without_trained_role(one: ListedDataset, rows: LocalRows) -> Untrained | None:
    roles, named = _roles(one.entry), _trained(one.entry)
    trained = {roles.get(role, role) for role in named}
    if _marks(one, rows) or trained & {roles.get(role, role) for role in rows.roles}:
        return None
    seen = ", ".join(f"{name} ({count})" for name, count in rows.roles.items())
    return "roles_to_train", shown(named), f"no message of {one.path} has such a role; it has the roles {seen}"


def _marks(one: ListedDataset, rows: LocalRows) -> bool:
    """Whether messages say for themselves what of them is trained."""
    mapped = one.entry.get("message_property_mappings")
    marks = [one.entry.get("message_field_training"), one.entry.get("message_field_training_detail")]
    marks += [mapped.get(key) for key in ("training", "training_detail")] if isinstance(mapped, Mapping) else []
    return any(mark in rows.properties for mark in marks if mark)


def _roles(entry: Mapping[str, Any]) -> Mapping[str, str]:
    own = entry.get("roles")
    if not isinstance(own, Mapping) or not own:
        return ROLES
    return {str(source): str(role) for role, sources in own.items() if isinstance(sources, list) for source in sources}


def _trained(entry: Mapping[str, Any]) -> Sequence[str]:
    named = entry.get("roles_to_train")
    return [str(one) for one in named] if isinstance(named, list) else ["assistant"]


def _output_column(entry: Mapping[str, Any]) -> str | None:
    match entry.get("type"):
        case "alpaca":
            return "output"
        case Mapping() as kind:
            return str(kind.get("field_output") or "output")
    return None


def _by_type(entry: Mapping[str, Any]) -> bool:
    """Whether another check reports a missing column."""
    return isinstance(entry.get("type"), str)


RULES = (
    no_role_to_train,
    inputs_trained_against_the_data,
    no_output_to_train,
)
