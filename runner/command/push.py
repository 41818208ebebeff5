"""`axosweep push`: upload a finished run's model to the Hugging Face hub, with a card written from its records."""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modal_app.store.layout import parts_of_key
from modal_app.store.step import StepKind
from modal_app.store.trained_weights import TrainedWeights
from modal_app.store.verified import model_damage
from runner.console import terminal
from runner.console.parser import Names, VerbParser
from runner.console.print_json import print_json
from runner.console.transfer import progress, size_text
from runner.errors import SweepError
from runner.files.choice import choose
from runner.files.places import files_of
from runner.files.pull import pull
from runner.files.run_files import PartKind, parts_of
from runner.follow_up.steps import merge_step, merged_model
from runner.follow_up.subjects import Subject, subjects
from runner.push.files import FileLeftOut, FileToPush, Kind, sort_out
from runner.push.hub import CARD, MAIN, PushResult, Upload, refuse_unready, upload
from runner.push.records import base_of, card_facts, made_files
from runner.store.run_state import RunStatus
from runner.store.stores import is_mirror, stores

_PART = r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"^{_PART}/(?!.*\.git$){_PART}$")
"""The hub's form: owner/name."""
_BRANCH = re.compile(r"^(?!.*(?:\.\.|//|@\{|\.lock$))[A-Za-z0-9_][A-Za-z0-9._/-]*$")
_LICENSE = re.compile(r"^[a-z0-9][a-z0-9.-]*$")


@dataclass(frozen=True, slots=True)
class PushPlan:
    """A push that is ready to start."""

    upload: Upload
    files: tuple[FileToPush, ...]
    left: tuple[FileLeftOut, ...]


@dataclass(frozen=True, slots=True)
class PushedFile:
    name: str
    bytes: int
    why: str
    """What it is."""


@dataclass(frozen=True, slots=True)
class PushedModel:
    """What `push --json` prints."""

    run: str
    repo: str
    branch: str
    public: bool
    kind: Kind
    card: str
    """The text of the model card."""
    files: tuple[PushedFile, ...]
    left: tuple[FileLeftOut, ...]
    """Files that are not pushed, and why."""
    pushed: PushResult | None
    """Null with --dry-run."""


def parser() -> VerbParser:
    verb = VerbParser(
        "push",
        description="Upload a finished run's model to the Hugging Face hub, with a card written from its records.",
    )
    verb.add("run", metavar="RUN", names=[Names.RUN], help="a run's key, or a sweep: its best run")
    made = "the repository on the hub; if it does not exist, it is created, private unless --public is given"
    verb.add_argument("repo", metavar="OWNER/NAME", help=made)
    verb.add_argument("--merged", action="store_true", help="the merged model instead of the adapter")
    verb.add_argument("--public", action="store_true", help="create a public repository, or push to one")
    verb.add_argument("--revision", metavar="BRANCH", default=MAIN, help="the branch; created if it does not exist")
    verb.add_argument("--message", help="message of the commit")
    verb.free_text = {"message"}
    verb.add_argument("--license", metavar="NAME", help="for the card, as the hub writes it: apache-2.0, ...")
    verb.add_argument("--force", action="store_true", help="push even if the repository contains something else")
    verb.add_argument("--dry-run", action="store_true", help="show the card and the files, without contacting the hub")
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    """Exit code 0. Raises SweepError before anything is changed on the hub, or with the hub's answer."""
    args = parser().read(words)
    _refuse_malformed(args)
    if not args.dry_run:
        refuse_unready()
    (subject,) = subjects(stores(args.store), args.run)
    kind = _kind(subject, merged=args.merged)
    with _weights(subject, kind) as folder:
        prepared = _prepare(subject, kind, folder, args)
        if args.dry_run:
            _show(subject, prepared, None, as_json=args.json)
            return 0
        _show(subject, prepared, upload(prepared.upload), as_json=args.json)
        if is_mirror(subject.store):
            shutil.rmtree(folder)
    return 0


def _refuse_malformed(args: argparse.Namespace) -> None:
    if _REPOSITORY.match(args.run) and not _REPOSITORY.match(args.repo):
        raise SweepError(f"The run comes first: axosweep push {args.repo} {args.run}")
    if not _REPOSITORY.match(args.repo):
        raise SweepError(
            f"{args.repo} is not the name of a repository: OWNER/NAME, each of letters, digits, - _ . (no .. or --)."
        )
    if not _BRANCH.match(args.revision):
        raise SweepError(f"--revision {args.revision}: this is not the name of a branch.")
    if args.license is not None and not _LICENSE.match(args.license):
        raise SweepError(f"--license {args.license}: write a license as the hub does, such as apache-2.0 or other.")
    if args.message is not None and not args.message.strip():
        raise SweepError("--message is empty.")


def _kind(subject: Subject, *, merged: bool) -> Kind:
    if not merged:
        return Kind.FULL if subject.leaves is TrainedWeights.MODEL else Kind.ADAPTER
    if subject.leaves is TrainedWeights.MODEL:
        raise SweepError(f"{subject.key} is a complete model, so nothing was merged. Push it without --merged.")
    return Kind.MERGED


@contextlib.contextmanager
def _weights(subject: Subject, kind: Kind) -> Iterator[Path]:
    """The folder that is pushed. From Modal, it is fetched first. It is removed only after the push, so that the next
    push continues the download if this one is killed."""
    if is_mirror(subject.store):
        folder = subject.store.cache / "push" / f"{subject.key}-{kind}"
        _fetch(subject, kind, folder)
        yield folder
        return
    model = merged_model(subject) if kind is Kind.MERGED else subject.store.folder(StepKind.TRAIN, subject.key).model
    if model is None:
        raise _not_merged(subject)
    if damage := model_damage(subject.store, model):
        raise SweepError(f"Nothing is pushed: the model in {model} is damaged: {damage}.")
    yield model


def _fetch(subject: Subject, kind: Kind, folder: Path) -> None:
    files = files_of(subject.store, subject.key)
    parts = parts_of(files, subject.key, subject.data_key)
    what: str = kind
    if kind is Kind.MERGED:
        _, own = parts_of_key(merge_step(subject).step.key)
        merged = [part for part in parts if part.kind is PartKind.MERGED and part.own == own and part.is_complete]
        if not merged:
            raise _not_merged(subject)
        what = merged[0].name
    wanted = choose(files, parts, what, subject.key, RunStatus.SUCCEEDED)
    with progress(sum(one.entry.size for one in wanted), "download") as watch:
        pull(files, wanted, folder, watch=watch)


def _not_merged(subject: Subject) -> SweepError:
    return SweepError(f"The run {subject.key} has not been merged yet: axosweep merge {subject.key}")


def _prepare(subject: Subject, kind: Kind, folder: Path, args: argparse.Namespace) -> PushPlan:
    base = base_of(subject)
    commit = subject.config.get("revision_of_model") if base.on_hub else None
    adapter_config = {"base_model_name_or_path": base.name} | ({"revision": str(commit)} if commit else {})
    sent, left = sort_out(folder, kind, {"adapter_config.json": adapter_config})
    if not any(one.why.endswith("weights") for one in sent):
        raise SweepError(f"The weights of run {subject.key} are not in {folder} any more.")
    facts = card_facts(subject, kind, args.repo, args.license)
    sent += made_files(facts, subject, [one.name for one in sent])
    return PushPlan(
        Upload(
            repo=args.repo,
            branch=args.revision,
            public=args.public,
            force=args.force,
            message=args.message or f"{kind.capitalize()} of axosweep run {subject.key}",
            run=subject.key,
            kind=kind,
            files={one.name: str(one.source) for one in sent if one.source is not None},
            texts={one.name: one.text for one in sent if one.text is not None},
        ),
        tuple(sorted(sent, key=lambda one: one.name)),
        tuple(left),
    )


def _show(subject: Subject, prepared: PushPlan, pushed: PushResult | None, *, as_json: bool) -> None:
    if as_json:
        print_json(_pushed(subject, prepared, pushed))
        return
    upload = prepared.upload
    if pushed is None:
        terminal.result(upload.texts[CARD])
    width = max(len(name) for name in [one.name for one in prepared.files] + [one.name for one in prepared.left])
    lines = [f"{subject.key} -> {upload.repo} ({upload.branch}, {'public' if upload.public else 'private'})"]
    lines += [f"  {one.name:<{width}}  {size_text(one.size):>8}  {one.why}" for one in prepared.files]
    if prepared.left:
        lines += ["Not pushed:", *(f"  {one.name:<{width}}  {one.why}" for one in prepared.left)]
    for line in [*lines, *_outcome(pushed)]:
        terminal.result(line)


def _outcome(pushed: PushResult | None) -> list[str]:
    if pushed is None:
        return ["Nothing was pushed, and the hub was not contacted (--dry-run)."]
    lines = [f"Removed on the hub: {', '.join(pushed.removed)}"] if pushed.removed else []
    lines += [f"Left unchanged on the hub: {', '.join(pushed.kept)}"] if pushed.kept else []
    text = f"Pushed: {pushed.url} at {pushed.commit}"
    return [*lines, text if pushed.changed else f"The hub has all of it already: {pushed.url} at {pushed.commit}"]


def _pushed(subject: Subject, prepared: PushPlan, pushed: PushResult | None) -> PushedModel:
    upload = prepared.upload
    return PushedModel(
        run=subject.key,
        repo=upload.repo,
        branch=upload.branch,
        public=upload.public,
        kind=Kind(upload.kind),
        card=upload.texts[CARD],
        files=tuple(PushedFile(one.name, one.size, one.why) for one in prepared.files),
        left=prepared.left,
        pushed=pushed,
    )
