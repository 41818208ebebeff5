"""A stand-in for the Hugging Face hub: named folders, served with the hub's own protocol. A test tool.

A repository is a folder, as it is at one commit; a branch is another name for that. Kernels are repositories like
models, and the hub trusts their publisher unless a test says otherwise.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from tests.hub_writes import Pushable, Refusal, Writes

COMMIT = "c0ffee" + "0" * 34
KERNEL_COMMIT = "beef" + "1" * 36

Kind = Literal["models", "datasets", "kernels"]


@dataclass(frozen=True)
class Repository:
    folder: Path
    commit: str
    branches: tuple[str, ...]

    def files(self) -> dict[str, Path]:
        paths = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in paths}


@dataclass
class Hub:
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    """By kind and name: `models/owner/name`."""
    trusted: bool = True
    """Whether the hub vouches for those who publish kernels."""
    served: Counter[str] = field(default_factory=Counter)
    """Files whose bytes were sent, by their names alone."""
    asked: Counter[str] = field(default_factory=Counter)
    """Files whose bytes were sent, by repository and path: `models/owner/name/config.json`."""
    failures: Counter[str] = field(default_factory=Counter)
    """How often a request is still answered 503, by the last part of its path: a file's name, a tree's commit."""
    refused: Counter[tuple[int, str]] = field(default_factory=Counter)
    """Answers that gave nothing, by their status and path."""
    writes: Writes | None = None
    """Accounts, and the repositories that can be pushed to; None for a hub that only gives."""

    def add(
        self, name: str, folder: Path, *, kind: Kind = "models", commit: str = COMMIT, branches: tuple[str, ...] = ()
    ) -> None:
        self.repositories[f"{kind}/{name}"] = Repository(folder, commit, ("main", *branches))


@contextmanager
def serve_hub(name: str | None = None, folder: Path | None = None) -> Iterator[Hub]:
    """A hub with one model in it, or an empty one."""
    hub = Hub()
    if name is not None and folder is not None:
        hub.add(name, folder)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_POST(self) -> None:
        self._take()

    def do_PUT(self) -> None:
        self._take()

    def _take(self) -> None:
        """Receives what is sent. The bytes of large files come without a token, as with the real hub's store."""
        path, writes = unquote(self.path.split("?")[0]), self.hub.writes
        body = self._read_body()
        try:
            if writes is None:
                raise Refusal(405)
            if path.startswith("/lfs-bytes/"):
                writes.put(path.rpartition("/")[2], body)
                self._send_json({}, with_body=True)
            else:
                told = writes.post(path, body, writes.account(self.headers.get("Authorization")))
                self._send(json.dumps(told).replace("{url}", self.hub.url).encode(), "application/json", with_body=True)
        except Refusal as refusal:
            self._refuse(refusal.code, status=refusal.status)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # killed while it waited

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer_pushable(self, path: str, with_body: bool) -> bool:
        """Whether the request was about the user's account, or a repository that can be pushed to."""
        writes = self.hub.writes
        if writes is None:
            return False
        try:
            if path == "/api/whoami-v2":
                account = writes.account(self.headers.get("Authorization"))
                self._send_json({"name": account.name, "type": "user", "auth": {}}, with_body)
                return True
            for name, repository in writes.repositories.items():
                if path == f"/api/models/{name}" or path.startswith((f"/api/models/{name}/", f"/{name}/resolve/")):
                    self._answer_from(name, repository, path, with_body)
                    return True
        except Refusal as refusal:
            self._refuse(refusal.code, status=refusal.status)
            return True
        return False

    def _answer_from(self, name: str, pushable: Pushable, path: str, with_body: bool) -> None:
        if pushable.private:
            self.hub.writes.account(self.headers.get("Authorization"))  # type: ignore[union-attr]
        rest = path.removeprefix(f"/api/models/{name}").removeprefix(f"/{name}/resolve").strip("/")
        about = path.startswith("/api/")
        asked = (rest.removeprefix("revision/").removeprefix("tree/") if about else rest.partition("/")[0]) or "main"
        for branch, commits in pushable.branches.items():
            for commit in (one for one in reversed(commits) if asked in (branch, one.oid)):
                repository = Repository(commit.folder, commit.oid, (branch,))
                if rest.startswith("tree/"):
                    self._send_json(_tree(repository, "", recursive=True), with_body)
                elif about:
                    siblings = [{"rfilename": file} for file in repository.files()]
                    told = {
                        "id": name,
                        "sha": commit.oid,
                        "private": pushable.private,
                        "siblings": siblings,
                        "tags": [],
                    }
                    self._send_json(told, with_body)
                else:
                    self._answer_file(f"models/{name}", repository, rest, with_body)
                return
        self._refuse("RevisionNotFound")

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(self.path.split("?")[0])
        last = path.rpartition("/")[2]
        if self.hub.failures[last] > 0:
            self.hub.failures[last] -= 1
            self._refuse("", status=503)
            return
        if self._answer_pushable(path, with_body):
            return
        if path.startswith("/api/organizations/"):
            who = path.split("/")[3]
            overview = {"name": who, "fullname": who, "avatarUrl": "", "trustedKernelPublisher": self.hub.trusted}
            self._send_json(overview, with_body)
            return
        for key, repository in self.hub.repositories.items():
            if path == f"/api/{key}" or path.startswith(f"/api/{key}/"):
                self._answer_about(key, repository, path.removeprefix(f"/api/{key}").strip("/"), with_body)
                return
            prefix = f"/{key.removeprefix('models/')}/resolve/"
            if path.startswith(prefix):
                self._answer_file(key, repository, path.removeprefix(prefix), with_body)
                return
        self._refuse("RepoNotFound")

    def _answer_about(self, key: str, repository: Repository, asked: str, with_body: bool) -> None:
        what, _, rest = asked.partition("/")
        revision, _, folder = rest.partition("/")
        if revision and revision not in (repository.commit, *repository.branches):
            self._refuse("RevisionNotFound")
        elif what == "tree":
            self._send_json(_tree(repository, folder, recursive="recursive=true" in self.path.lower()), with_body)
        else:
            name = key.partition("/")[2]
            siblings = [{"rfilename": path} for path in repository.files()]
            info = {"id": name, "modelId": name, "sha": repository.commit, "siblings": siblings, "tags": []}
            self._send_json(info, with_body)

    def _answer_file(self, key: str, repository: Repository, asked: str, with_body: bool) -> None:
        revision, _, path = asked.partition("/")
        if revision not in (repository.commit, *repository.branches):
            self._refuse("RevisionNotFound")
        elif path not in repository.files():
            self._refuse("EntryNotFound", repository.commit)
        else:
            if with_body:
                self.hub.served[Path(path).name] += 1
                self.hub.asked[f"{key}/{path}"] += 1
            body = repository.files()[path].read_bytes()
            self._send(body, "application/octet-stream", with_body, repository.commit)

    def _refuse(self, code: str, commit: str = "", status: int = 404) -> None:
        self.hub.refused[status, unquote(self.path.split("?")[0])] += 1
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_json(self, value: object, with_body: bool) -> None:
        self._send(json.dumps(value).encode(), "application/json", with_body)

    def _send(self, body: bytes, kind: str, with_body: bool, commit: str = "") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _tree(repository: Repository, below: str, *, recursive: bool) -> list[dict[str, object]]:
    prefix = f"{below}/" if below else ""
    entries: dict[str, dict[str, object]] = {}
    for path, file in repository.files().items():
        if not path.startswith(prefix):
            continue
        name, _, inside = path.removeprefix(prefix).partition("/")
        if inside and not recursive:
            entries[name] = {"type": "directory", "path": prefix + name, "oid": "0" * 40, "size": 0}
        else:
            size = file.stat().st_size
            entries[path] = {"type": "file", "path": path, "size": size, "oid": f"{size:040x}"}
    return list(entries.values())
