"""Puts files into a repository of the Hugging Face hub as one commit: `python modal_app/run.py push < upload.json`.

Its Python has the hub's library, which the launcher's has not. The answer is JSON on standard output: exit code 0, or 3
with the `problem`. The token is the library's business (HF_TOKEN, or what `hf auth login` keeps) and in nothing said.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modal_app.process import stop

REFUSED = 3
MAIN = "main"
RECORD = "axosweep.json"
"""In the repository: which run its files are of, and which files those are."""
CARD = "README.md"
GIVEN = frozenset({".gitattributes"})
"""What the hub itself puts into a new repository."""


class Refused(Exception):
    """It was not pushed, for the reason that this says."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What is to be in a repository."""

    repo: str
    """owner/name"""
    branch: str
    public: bool
    force: bool
    """Put it beside, or in place of, files that are not this run's."""
    message: str
    run: str
    """The run's key and what it is pushed as: RECORD has them, and what is of the same is replaced."""
    kind: str
    files: Mapping[str, str]
    """Paths in the repository, and where they lie here."""
    texts: Mapping[str, str]
    """Those that are made for it."""


@dataclass(frozen=True, slots=True)
class Pushed:
    url: str
    commit: str
    created: bool
    """Whether the repository is new."""
    changed: bool
    """Whether there was anything to commit."""
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    """Files of an earlier push that this one does not have."""
    kept: tuple[str, ...]
    """Files of the repository that are not axosweep's."""


def main() -> int:
    """The process boundary: whatever the hub's library raises becomes a sentence."""
    stop.end_with_parent(signal.SIGTERM)
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print
    upload = Upload(**json.load(sys.stdin))
    try:
        json.dump(asdict(push(upload)), answers)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # the hub's, httpx's and Xet's have no other base
        json.dump({"problem": str(error) if isinstance(error, Refused) else problem_of(error, upload.repo)}, answers)
        return REFUSED
    return 0


def push(upload: Upload) -> Pushed:
    """One commit on the branch, or none where all is there already. Raises Refused, and what the library raises.

    The commit names its parent: what somebody else has pushed since we looked is not overwritten.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    api.whoami()  # else a token that is not taken reads like a repository that is not there
    created = _make(api, upload)
    there = api.model_info(upload.repo, revision=upload.branch)
    names = {one.rfilename for one in there.siblings or ()}
    ours = {*upload.files, *upload.texts}
    before = _record(api, upload, there.sha) if RECORD in names else {}
    _refuse_others(upload, names - GIVEN, before)
    earlier = set(before.get("files", ()))
    removed = sorted((earlier & names) - ours - GIVEN)
    done = api.create_commit(
        upload.repo,
        [
            *(CommitOperationAdd(name, path) for name, path in sorted(upload.files.items())),
            *(CommitOperationAdd(name, text.encode()) for name, text in sorted(upload.texts.items())),
            *(CommitOperationDelete(name) for name in removed),
        ],
        commit_message=upload.message,
        revision=upload.branch,
        parent_commit=there.sha,
    )
    return Pushed(
        url=f"{api.endpoint}/{upload.repo}" + ("" if upload.branch == MAIN else f"/tree/{upload.branch}"),
        commit=done.oid,
        created=created,
        changed=done.oid != there.sha,
        replaced=tuple(sorted(names & ours)),
        removed=tuple(removed),
        kept=tuple(sorted(names - ours - earlier - GIVEN)),
    )


def _make(api: Any, upload: Upload) -> bool:
    """The repository and the branch, made unless they are there; whether the repository is new."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        private, created = api.model_info(upload.repo).private, False
    except RepositoryNotFoundError:
        api.create_repo(upload.repo, private=not upload.public)
        private, created = not upload.public, True
    if not private and not upload.public:
        raise Refused(
            f"{upload.repo} is public, and a push is private unless it is said otherwise. Say it: --public. Or name "
            "another repository, or make this one private in its settings on the hub."
        )
    if upload.branch != MAIN:
        api.create_branch(upload.repo, branch=upload.branch, exist_ok=True)
    return created


def _record(api: Any, upload: Upload, commit: str | None) -> dict[str, Any]:
    """What an earlier push says of itself; empty where that is no record of ours."""
    with tempfile.TemporaryDirectory() as cache:
        path = api.hf_hub_download(upload.repo, RECORD, revision=commit, cache_dir=cache)
        try:
            read = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError:
            return {}
    return read if isinstance(read, dict) else {}


def _refuse_others(upload: Upload, names: set[str], before: Mapping[str, Any]) -> None:
    if not names or upload.force or (before.get("run"), before.get("kind")) == (upload.run, upload.kind):
        return
    replaced = sorted(names & {*upload.files, *upload.texts})
    gone = sorted((names & set(before.get("files", ()))) - set(replaced))
    kept = sorted(names - set(replaced) - set(gone))
    holds = f"the {before['kind']} of run {before['run']}" if before.get("run") else "something else"
    told = [f"replace {_listed(replaced)}" if replaced else "", f"remove {_listed(gone)}" if gone else ""]
    told += [f"keep {_listed(kept)}" if kept else ""]
    raise Refused(
        f"{upload.repo} holds {holds} on {upload.branch}. --force would {' and '.join(filter(None, told))}; the hub "
        "keeps the earlier commits. Or name another repository, or another branch: --revision NAME."
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def problem_of(error: BaseException, repo: str) -> str:
    """A sentence on what the hub's library has raised."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    status = _status(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and a push asks the hub."
    if _is(error, "TransportError") and status is None:
        return f"The hub does not answer at {_endpoint()} ({_innermost(error)}). Run it again: it goes on from here."
    match status:
        case 401:
            return "The hub does not take the token (401). `hf auth login`, or HF_TOKEN with a token that may write."
        case 403:
            return (
                f"The token may not write to {repo} (403): it needs the role write, and you the right to that name. "
                "`hf auth login`, or HF_TOKEN."
            )
        case 404:
            return f"The hub has no {repo}, or the token does not open it (404)."
        case 409 | 412:
            return f"{repo} was changed while this was pushed, so nothing was committed ({status}). Run it again."
        case int():
            return f"The hub answered {status}. What was uploaded is not uploaded again: run it again."
    return f"It could not be pushed: {_innermost(error)}"


def _status(error: BaseException | None) -> int | None:
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__ or error.__context__
    return None


def _is(error: BaseException | None, kind: str) -> bool:
    """Whether it is one of httpx's kind, or was raised over one: by name, since what brings httpx may change."""
    while error is not None:
        if any(base.__name__ == kind for base in type(error).__mro__):
            return True
        error = error.__cause__ or error.__context__
    return False


def _innermost(error: BaseException) -> str:
    while (inner := error.__cause__) is not None:
        error = inner
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
