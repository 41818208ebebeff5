"""A notice that something has ended (a sweep, a run, most of a budget). Standard library.

It goes to a webhook, whose address is a secret. The address is only ever in an environment variable: what is stored,
sent to Modal or printed is the variable's name. No message here repeats what may be an address.
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from modal_app.store.redact import is_secret_variable, redacted

VARIABLE = "AXOSWEEP_NOTIFY_URL"
"""A good name for the environment variable."""
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


class NoticeKind(StrEnum):
    DONE = "sweep done"
    FAILED = "run failed"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class Notice:
    id: str
    """Identifies the event: every attempt to send it has the same id, whichever process sends it."""
    event: NoticeKind
    sweep: str
    text: str
    """One line for people. Slack shows this and ignores the rest."""
    run: str = ""
    """The run that failed, or the dataset or follow-up step."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Of a sweep that is done: status -> number of runs."""

    def body(self) -> str:
        """What a webhook gets: small, and without secrets."""
        fields = {name: value for name, value in asdict(self).items() if value}
        return json.dumps(redacted({**fields, "at": round(time.time(), 3)}))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Notice:
        raw = json.loads(text)
        return cls(**raw | {"event": NoticeKind(raw["event"])})


def done(sweep: str, fingerprint: str, counts: Mapping[str, int]) -> Notice:
    """`fingerprint`: of how every step has ended, so that a sweep that is done again has another id."""
    listed = ", ".join(f"{number} {status}" for status, number in counts.items())
    text = f"axosweep: {sweep} is done{f': {listed}' if listed else ''}"
    return Notice(f"{sweep}/done/{fingerprint}", NoticeKind.DONE, sweep, text, counts=dict(counts))


def failed(sweep: str, step: str, attempt: str, why: str) -> Notice:
    """`step`: such as `train/<key>`; `attempt`: what distinguishes this failure from an earlier one."""
    kind, _, key = step.partition("/")
    what = {"train": "run", "preprocess": "dataset"}.get(kind, kind)
    text = f"axosweep: {sweep}: {what} {key} failed: {' '.join(why.split())}"
    return Notice(f"{sweep}/failed/{step}/{attempt}", NoticeKind.FAILED, sweep, text, run=key)


def budget(sweep: str, dollars: float, spent: float) -> Notice:
    percent = f"{spent / dollars:.0%}"
    text = f"axosweep: {sweep} has spent {percent} of its budget: ${spent:.2f} of ${dollars:.2f}"
    return Notice(f"{sweep}/budget/{dollars:g}", NoticeKind.BUDGET, sweep, text)


def name_problem(name: str) -> str:
    """What is wrong with the name of a variable; empty if nothing is. Does not repeat what may be an address."""
    if not _NAME.match(name):
        return (
            "notify= takes the name of an environment variable that has the webhook's address, and this is no such "
            "name. The address itself is a secret, which the shell's history and the ledger would have. Write:\n"
            f"  export {VARIABLE}=...\n"
            f"  axosweep ... notify={VARIABLE}"
        )
    if not is_secret_variable(name):
        return (
            f"notify={name}: expected a name that ends in _NOTIFY_URL, _WEBHOOK, _WEBHOOK_URL or _SECRET, such as "
            f"{VARIABLE}. By these endings, axosweep knows what must not be printed."
        )
    return ""


def address_problem(name: str) -> str:
    """What is wrong with the address in a variable; empty if nothing is."""
    address = os.environ.get(name, "")
    if not address:
        return f"the environment variable {name} is not set"
    try:
        parsed = urllib.parse.urlsplit(address)
        valid = parsed.scheme in ("http", "https") and bool(parsed.hostname)
    except ValueError:
        valid = False
    return "" if valid else f"the value of {name} is not an address that begins with http:// or https://"
