"""Pushes files to a repository of the Hugging Face hub as one commit."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.console.interrupts import exit_on_interrupt
from runner.errors import SweepError
from runner.keys import hub_commits
from runner.push.hub_errors import library_errors, problem_of

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi

MAIN = "main"
RECORD = "axosweep.json"
"""The file in the repository that names the run and its files."""
CARD = "README.md"
OF_THE_HUB = frozenset({".gitattributes"})
"""Files that the hub itself adds to a new repository."""
INTERRUPTED = "axosweep: stopped. The same command continues: what was uploaded is not uploaded again."


@dataclass(frozen=True, slots=True)
class Upload:
    """What to push, and where."""

    repo: str
    """owner/name"""
    branch: str
    public: bool
    force: bool
    """Push even if the repository has files that are not of this run."""
    message: str
    run: str
    """The key and the kind are in RECORD. An earlier push with the same ones is replaced."""
    kind: str
    files: Mapping[str, str]
    """Path in the repository -> path here."""
    texts: Mapping[str, str]
    """Path in the repository -> text that was written for it."""


@dataclass(frozen=True, slots=True)
class PushResult:
    url: str
    commit: str
    created: bool
    """Whether the repository is new."""
    changed: bool
    """Whether a commit was needed."""
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    """Files of an earlier push that are not in this one."""
    kept: tuple[str, ...]
    """Files of the repository that are not axosweep's."""


def refuse_unready(timeout_s: float = hub_commits.TIMEOUT_S) -> None:
    """Raises SweepError when nothing can be pushed from here: no token or a wrong one, offline mode, or a hub that does
    not answer, for which the hub's library would wait forever.
    """
    if hub_commits.is_offline():
        raise SweepError("HF_HUB_OFFLINE is set, but a push needs the hub. --dry-run shows what would be pushed.")
    token = hub_commits.user_token()
    if token is None:
        raise SweepError(
            "A push needs a token of the Hugging Face hub with write access, and there is none here. Run `hf auth "
            "login`, or set HF_TOKEN. --dry-run shows what would be pushed."
        )
    if not hub_commits.can_be_sent(token):
        raise SweepError("The token (HF_TOKEN, `hf auth login`) has characters that cannot be sent. Set it again.")
    access = hub_commits.look(timeout_s)
    if not access.reached:
        raise SweepError(
            f"The hub does not answer at {access.endpoint} ({access.problem}), so nothing was pushed. Run the command "
            "again with a network (HF_ENDPOINT names another hub). --dry-run shows what would be pushed."
        )
    if access.refused:
        raise SweepError(
            "The hub does not accept the token. Run `hf auth login`, or set HF_TOKEN to a token with write access."
        )


def upload(what: Upload) -> PushResult:
    """Make one commit on the branch, or none if everything is there already; progress goes to standard error. Raises
    SweepError with the hub's answer.

    The commit names its parent, so it cannot overwrite what another push has changed meanwhile.
    """
    try:
        with _bars_only_in_a_terminal():
            return _upload(hub_commits.hub_api(), what)
    except library_errors() as error:
        raise SweepError(problem_of(error, what.repo)) from error


def _upload(api: HfApi, what: Upload) -> PushResult:
    created = _ensure_branch(api, what)
    there = api.model_info(what.repo, revision=what.branch)
    names = {one.rfilename for one in there.siblings or ()}
    ours = {*what.files, *what.texts}
    before = _record(api, what.repo, there.sha) if RECORD in names else {}
    _refuse_others(what, names - OF_THE_HUB, before)
    earlier = set(before.get("files", ()))
    removed = sorted((earlier & names) - ours - OF_THE_HUB)
    done = _commit(api, what, removed, parent=there.sha)
    return PushResult(
        url=f"{hub_commits.shown_endpoint()}/{what.repo}" + ("" if what.branch == MAIN else f"/tree/{what.branch}"),
        commit=done.oid,
        created=created,
        changed=done.oid != there.sha,
        replaced=tuple(sorted(names & ours)),
        removed=tuple(removed),
        kept=tuple(sorted(names - ours - earlier - OF_THE_HUB)),
    )


def _ensure_branch(api: HfApi, what: Upload) -> bool:
    """Create the repository and the branch if they do not exist; returns whether the repository is new."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        private, created = api.model_info(what.repo).private, False
    except RepositoryNotFoundError:
        api.create_repo(what.repo, private=not what.public)
        private, created = not what.public, True
    if not private and not what.public:
        raise SweepError(
            f"{what.repo} is public, but a push is private by default. To push publicly, add --public. Or name another "
            "repository, or make this one private in its settings on the hub."
        )
    if what.branch != MAIN:
        api.create_branch(what.repo, branch=what.branch, exist_ok=True)
    return created


def _record(api: HfApi, repo: str, commit: str | None) -> dict[str, Any]:
    """The record of an earlier push; empty if it is not a record of axosweep."""
    with tempfile.TemporaryDirectory() as cache:
        path = api.hf_hub_download(repo, RECORD, revision=commit, cache_dir=cache)
        return _record_in(Path(path).read_bytes())


def _record_in(content: bytes) -> dict[str, Any]:
    """
    >>> _record_in(b'{"run": "0123456789ab", "kind": "adapter", "files": ["README.md"]}')["files"]
    ['README.md']
    >>> _record_in(b'{"run": "mine"}'), _record_in(b"by hand")
    ({}, {})
    """
    try:
        read = json.loads(content)
    except ValueError:
        return {}
    match read:
        case {"run": str(), "kind": str(), "files": [*files]} if all(isinstance(one, str) for one in files):
            return dict(read)
    return {}


def _refuse_others(what: Upload, names: set[str], before: Mapping[str, Any]) -> None:
    if not names or what.force or (before.get("run"), before.get("kind")) == (what.run, what.kind):
        return
    replaced = sorted(names & {*what.files, *what.texts})
    gone = sorted((names & set(before.get("files", ()))) - set(replaced))
    kept = sorted(names - set(replaced) - set(gone))
    content = f"the {before['kind']} of run {before['run']}" if before.get("run") else "other files"
    effects = [f"replace {_listed(replaced)}" if replaced else "", f"remove {_listed(gone)}" if gone else ""]
    effects += [f"keep {_listed(kept)}" if kept else ""]
    raise SweepError(
        f"{what.repo} has {content} on {what.branch}. --force would {' and '.join(filter(None, effects))}; the hub "
        "keeps the earlier commits. Or name another repository, or another branch: --revision NAME."
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _commit(api: HfApi, what: Upload, removed: list[str], *, parent: str | None) -> CommitInfo:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(name, path) for name, path in sorted(what.files.items())),
        *(CommitOperationAdd(name, text.encode()) for name, text in sorted(what.texts.items())),
        *(CommitOperationDelete(name) for name in removed),
    ]
    with exit_on_interrupt(INTERRUPTED):  # files are uploaded in threads, large ones for hours
        return api.create_commit(
            what.repo, operations, commit_message=what.message, revision=what.branch, parent_commit=parent
        )


@contextlib.contextmanager
def _bars_only_in_a_terminal() -> Iterator[None]:
    from huggingface_hub.utils.tqdm import disable_progress_bars

    with contextlib.nullcontext() if sys.stderr.isatty() else disable_progress_bars():
        yield
