"""The writing half of the stand-in for the hub: accounts, new repositories, uploads, commits.

Ours, not Hugging Face's. It supports what huggingface_hub sends with HF_HUB_DISABLE_XET: large files over Git LFS's
batch protocol. It does not support Xet, which the library prefers.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LARGE = (".safetensors", ".bin")
"""Files that are sent with LFS, according to the hub's .gitattributes."""
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE)
MAIN = "main"
_ABOUT = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)/(?P<what>branch|preupload|commit)/(?P<branch>.+)")


@dataclass(frozen=True)
class Commit:
    oid: str
    message: str
    folder: Path
    """All files as they are at it."""


@dataclass
class Account:
    name: str
    writes: bool = True


@dataclass
class Pushable:
    """A repository that can be pushed to."""

    name: str
    private: bool
    branches: dict[str, list[Commit]] = field(default_factory=dict)

    def commits(self, branch: str = MAIN) -> list[Commit]:
        """Commits, oldest first. The first is the hub's own, with .gitattributes."""
        return self.branches[branch]

    def files(self, branch: str = MAIN) -> dict[str, bytes]:
        folder = self.commits(branch)[-1].folder
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Refusal(Exception):
    def __init__(self, status: int, code: str = "") -> None:
        super().__init__(status)
        self.status, self.code = status, code


@dataclass
class Writes:
    root: Path
    """Where commits and large files are stored."""
    accounts: dict[str, Account] = field(default_factory=dict)
    """By token."""
    repositories: dict[str, Pushable] = field(default_factory=dict)
    uploaded: Counter[str] = field(default_factory=Counter)
    """How often each large file's bytes came, by their sha256."""
    hold: str = ""
    """`upload` or `commit`: one such request is received, and not answered before `released`."""
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    failures: Counter[str] = field(default_factory=Counter)
    """How often a request of a kind (create, preupload, upload, commit) is still answered with a status below."""
    status: int = 503
    between: Any = None
    """Called once, before a commit is processed: what another user does meanwhile."""

    def account(self, authorization: str | None) -> Account:
        token = (authorization or "").removeprefix("Bearer ")
        if token not in self.accounts:
            raise Refusal(401)
        return self.accounts[token]

    def create(self, account: Account, name: str, *, private: bool) -> Pushable:
        self._may_write(account, name)
        if name in self.repositories:
            raise Refusal(409)
        made = self.repositories[name] = Pushable(name, private)
        self.add_commit(made, MAIN, "initial commit", {".gitattributes": GITATTRIBUTES.encode()})
        return made

    def add_commit(
        self, to: Pushable, branch: str, message: str, added: dict[str, bytes], removed: tuple[str, ...] = ()
    ) -> Commit:
        earlier = to.branches.setdefault(branch, [])
        before = to.files(branch) if earlier else {}
        files = {name: content for name, content in {**before, **added}.items() if name not in removed}
        told = repr((len(earlier), branch, message, sorted(files.items())))
        commit = Commit(
            hashlib.sha1(told.encode()).hexdigest(), message, self.root / hashlib.md5(told.encode()).hexdigest()
        )
        for name, content in files.items():
            path = commit.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        earlier.append(commit)
        return commit

    def post(self, path: str, body: bytes, account: Account) -> Any:
        """The answer to a request, as JSON. Raises Refusal."""
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            asked = json.loads(body)
            self._fail("create")
            name = f"{asked['organization']}/{asked['name']}"
            self.create(account, name, private=asked.get("visibility") == "private" or asked.get("private", False))
            return {"url": f"{{url}}/{name}", "name": name}
        if match := re.fullmatch(r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._may_write(account, match["name"])
            return {"transfer": "basic", "objects": [self._lfs(one) for one in json.loads(body)["objects"]]}
        match = _ABOUT.fullmatch(path)
        if match is None or match["name"] not in self.repositories:
            raise Refusal(404, "RepoNotFound")
        repository = self.repositories[match["name"]]
        self._may_write(account, match["name"])
        return getattr(self, f"_{match['what']}")(repository, match["branch"], body)

    def put(self, digest: str, body: bytes) -> None:
        self._fail("upload")
        self._pause("upload")
        if hashlib.sha256(body).hexdigest() != digest:
            raise Refusal(400)
        (self.root / "lfs").mkdir(exist_ok=True)
        (self.root / "lfs" / digest).write_bytes(body)
        self.uploaded[digest] += 1

    def _may_write(self, account: Account, name: str) -> None:
        if not account.writes or name.partition("/")[0] != account.name:
            raise Refusal(403)

    def _lfs(self, asked: dict[str, Any]) -> dict[str, Any]:
        known = {"oid": asked["oid"], "size": asked["size"]}
        if (self.root / "lfs" / asked["oid"]).exists():
            return known
        return {**known, "actions": {"upload": {"href": f"{{url}}/lfs-bytes/{asked['oid']}"}}}

    def _branch(self, repository: Pushable, branch: str, _: bytes) -> Any:
        if branch in repository.branches:
            raise Refusal(409)
        repository.branches[branch] = list(repository.commits())
        return {}

    def _preupload(self, repository: Pushable, branch: str, body: bytes) -> Any:
        self._fail("preupload")
        there = repository.files(branch)
        return {"files": [_mode(one["path"], there.get(one["path"])) for one in json.loads(body)["files"]]}

    def _commit(self, repository: Pushable, branch: str, body: bytes) -> Any:
        self._fail("commit")
        if self.between is not None:
            meanwhile, self.between = self.between, None
            meanwhile()
        lines = [json.loads(line) for line in body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, repository.commits(branch)[-1].oid):
            raise Refusal(412)
        added = {one["value"]["path"]: self._content(one) for one in lines[1:] if one["key"] != "deletedFile"}
        removed = tuple(one["value"]["path"] for one in lines[1:] if one["key"] == "deletedFile")
        commit = self.add_commit(repository, branch, header["summary"], added, removed)
        self._pause("commit")
        return {"success": True, "commitOid": commit.oid, "commitUrl": f"{{url}}/{repository.name}/commit/{commit.oid}"}

    def _content(self, line: dict[str, Any]) -> bytes:
        value = line["value"]
        if line["key"] == "lfsFile":
            return Path(self.root, "lfs", value["oid"]).read_bytes()
        return base64.b64decode(value["content"])

    def _fail(self, kind: str) -> None:
        if self.failures[kind] > 0:
            self.failures[kind] -= 1
            raise Refusal(self.status)

    def _pause(self, kind: str) -> None:
        if self.hold == kind:
            self.hold = ""
            self.held.set()
            self.released.wait(60)


def _mode(path: str, there: bytes | None) -> dict[str, Any]:
    large = path.endswith(LARGE)
    git = None if there is None else hashlib.sha1(b"blob %d\0" % len(there) + there).hexdigest()
    oid = None if there is None else hashlib.sha256(there).hexdigest() if large else git
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
