"""`axosweep push` with the hub's unmodified library and our own stand-in for the hub (tests/hub_writes.py)."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from modal_app.store.layout import SUBMISSION, Store
from modal_app.store.step import StepKind
from tests.forked_command import COMMAND
from tests.hub_server import Hub, serve_hub
from tests.hub_writes import Account, Writes
from tests.modal_server import ModalServer
from tests.modal_server.fixture import client_of
from tests.runner.executors.volume_store import NAMES, mirror, upload
from tests.runner.pushable import ADAPTER_FILES, COMMIT, HUB_BASE, PLACE, TOKEN, finished_run

pytestmark = pytest.mark.slow

READER = "hf_" + "r" * 32
ADAPTER = [".gitattributes", *ADAPTER_FILES]
"""Of the hub's own, and ours."""


@dataclass(frozen=True)
class Pushing:
    """A store with a finished run, a hub that accepts pushes, and the command."""

    store: Store
    key: str
    hub: Hub
    writes: Writes
    folder: Path

    def variables(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        ours = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.folder / "hf"), "HF_HUB_DISABLE_XET": "1"}
        return {**kept, **ours, "HF_TOKEN": TOKEN, "AXOSWEEP_STORE": str(self.store.root), **more}

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        command = [*COMMAND, "push", *(words or (self.key, "ada/answers"))]
        given = {name: value for name, value in self.variables(**variables).items() if value}
        return subprocess.Popen(
            command, env=given, text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *words: str, **variables: str) -> tuple[int, str, str]:
        process = self.start(*words, **variables)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def refused(self, *words: str, **variables: str) -> str:
        """The message of a push that is refused."""
        code, out, err = self.run(*words, **variables)
        assert (code, out) == (2, ""), err
        assert err.count("\n") == 1, err
        return err

    def pushed(self, name: str = "ada/answers", branch: str = "main") -> dict[str, bytes]:
        return self.writes.repositories[name].files(branch)

    def messages(self, name: str = "ada/answers", branch: str = "main") -> list[str]:
        return [commit.message for commit in self.writes.repositories[name].commits(branch)]


@contextmanager
def pushing_to(root: Path) -> Iterator[Pushing]:
    store = Store(root / "store")
    one = finished_run(store)
    with serve_hub() as hub:
        hub.writes = Writes(root / "hub", {TOKEN: Account("ada"), READER: Account("ada", writes=False)})
        yield Pushing(store, one.key, hub, hub.writes, root)


@pytest.fixture
def pushing(tmp_path: Path) -> Iterator[Pushing]:
    with pushing_to(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushing]:
    """A shared place for tests that change nothing."""
    with pushing_to(tmp_path_factory.mktemp("refusing")) as found:
        yield found


def test_an_adapter_is_pushed_as_exactly_these_files_in_one_commit_to_a_private_repository(pushing: Pushing) -> None:
    code, out, err = pushing.run()
    assert code == 0, err
    assert sorted(pushing.pushed()) == ADAPTER
    assert pushing.messages() == ["initial commit", f"Adapter of axosweep run {pushing.key}"]
    assert pushing.writes.repositories["ada/answers"].private
    assert f"Pushed: {pushing.hub.url}/ada/answers" in out
    model = pushing.store.folder(StepKind.TRAIN, pushing.key).model
    sent = pushing.pushed()["adapter_model.safetensors"]
    assert sent == (model / "adapter_model.safetensors").read_bytes(), "not a checkpoint's"
    config = json.loads(pushing.pushed()["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == (HUB_BASE, COMMIT)


def test_neither_the_token_nor_a_path_of_the_machine_is_in_anything_that_a_push_leaves(pushing: Pushing) -> None:
    code, out, err = pushing.run(pushing.key, "ada/answers", "--json")
    assert code == 0, err
    secret_in_the_run = {"run.json", "config.yml"}  # of the store: the user's own request
    for root in (pushing.writes.root, pushing.folder / "hf", pushing.store.root):
        for path in root.rglob("*") if root.exists() else ():
            if path.is_file() and not (root == pushing.store.root and _was_there(path, secret_in_the_run)):
                assert TOKEN.encode() not in path.read_bytes(), path
    for content in (*pushing.pushed().values(), out.encode(), err.encode()):
        assert TOKEN.encode() not in content
        assert PLACE.encode() not in content
        assert str(pushing.folder).encode() not in content
    assert json.loads(out)["pushed"]["created"] is True


def _was_there(path: Path, names: set[str]) -> bool:
    return path.name in {*names, "plan.json"}


def test_pushed_again_there_is_nothing_to_commit(pushing: Pushing) -> None:
    pushing.run()
    code, out, err = pushing.run()
    assert code == 0, err
    assert "The hub has all of it already" in out
    assert len(pushing.messages()) == 2
    assert set(pushing.writes.uploaded.values()) == {1}


@pytest.mark.parametrize("moment", ["upload", "commit"])
def test_killed_while_it_pushes_the_same_command_ends_in_one_commit_with_the_right_files(
    pushing: Pushing, moment: str
) -> None:
    pushing.writes.hold = moment
    process = pushing.start()
    assert pushing.writes.held.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    pushing.writes.released.set()
    code, _, err = pushing.run()
    assert code == 0, err
    assert len(pushing.messages()) == 2, "the hub's own first commit and one of ours"
    assert sorted(pushing.pushed()) == ADAPTER


@pytest.mark.parametrize("moment", ["upload", "commit"])
def test_interrupted_it_ends_at_once_and_the_same_command_goes_on(pushing: Pushing, moment: str) -> None:
    """With two large files, which the hub's library uploads in threads that it would wait for."""
    model = pushing.store.folder(StepKind.TRAIN, pushing.key).model
    (model / "adapter_model.bin").write_text("as well")
    pushing.writes.hold = moment
    process = pushing.start()
    assert pushing.writes.held.wait(60)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    pushing.writes.released.set()
    assert (process.returncode, out) == (128 + signal.SIGINT, "")
    assert err.startswith("axosweep: stopped. The same command continues")
    assert err.count("\n") == 1, "no traceback"
    code, _, err = pushing.run()
    assert code == 0, err
    assert len(pushing.messages()) == 2, "the hub's own first commit and one of ours"
    assert sorted(pushing.pushed()) == sorted([*ADAPTER, "adapter_model.bin"])


def test_what_was_uploaded_before_a_failure_is_not_uploaded_again(pushing: Pushing) -> None:
    pushing.writes.failures["commit"], pushing.writes.status = 1, 500
    assert "The hub answered 500. Run the command again; finished uploads are not repeated" in pushing.refused()
    assert pushing.run()[0] == 0
    digest = hashlib.sha256(pushing.pushed()["adapter_model.safetensors"]).hexdigest()
    assert pushing.writes.uploaded == {digest: 1}


def test_a_repository_with_something_else_is_left_alone_unless_forced_and_keeps_what_is_not_ours(
    pushing: Pushing,
) -> None:
    theirs = pushing.writes.create(pushing.writes.accounts[TOKEN], "ada/answers", private=True)
    pushing.writes.add_commit(theirs, "main", "mine", {"README.md": b"by hand", "notes.txt": b"keep me"})
    said = pushing.refused()
    assert "ada/answers has other files on main. --force would replace README.md and keep notes.txt" in said
    assert pushing.pushed()["README.md"] == b"by hand"
    code, out, err = pushing.run(pushing.key, "ada/answers", "--force")
    assert code == 0, err
    assert "Left unchanged on the hub: notes.txt" in out
    assert sorted(pushing.pushed()) == sorted([*ADAPTER, "notes.txt"])


def test_another_runs_push_is_taken_out_when_it_is_replaced(pushing: Pushing) -> None:
    before = {"run": "0" * 12, "kind": "merged", "files": ["model.safetensors", "axosweep.json"]}
    theirs = pushing.writes.create(pushing.writes.accounts[TOKEN], "ada/answers", private=True)
    old = {"model.safetensors": b"old", "axosweep.json": json.dumps(before).encode()}
    pushing.writes.add_commit(theirs, "main", "earlier", old)
    assert "has the merged of run 000000000000" in pushing.refused()
    code, out, err = pushing.run(pushing.key, "ada/answers", "--force")
    assert code == 0, err
    assert "Removed on the hub: model.safetensors" in out
    assert sorted(pushing.pushed()) == ADAPTER


def test_a_push_takes_the_users_own_branch_and_message(pushing: Pushing) -> None:
    words = (pushing.key, "ada/answers", "--revision", "try/2", "--message", "a second try", "--public")
    code, out, err = pushing.run(*words)
    assert code == 0, err
    assert pushing.messages(branch="try/2") == ["initial commit", "a second try"]
    assert sorted(pushing.pushed()) == [".gitattributes"], "main is as it was"
    assert not pushing.writes.repositories["ada/answers"].private
    assert "/ada/answers/tree/try/2 at " in out


def test_a_public_repository_is_pushed_to_only_when_that_is_said(pushing: Pushing) -> None:
    pushing.writes.create(pushing.writes.accounts[TOKEN], "ada/answers", private=False)
    assert "ada/answers is public" in pushing.refused()
    assert pushing.run(pushing.key, "ada/answers", "--public")[0] == 0


def test_what_another_user_pushes_meanwhile_is_not_overwritten(pushing: Pushing) -> None:
    theirs = pushing.writes.create(pushing.writes.accounts[TOKEN], "ada/answers", private=True)
    pushing.writes.between = lambda: pushing.writes.add_commit(theirs, "main", "meanwhile", {"theirs.txt": b"x"})
    assert "was changed during the push, so nothing was committed" in pushing.refused()
    assert pushing.messages() == ["initial commit", "meanwhile"]


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"HF_TOKEN": ""}, "A push needs a token"),
        ({"HF_TOKEN": "hf_wrong"}, "The hub does not accept the token."),
        ({"HF_TOKEN": READER}, "The token may not write to ada/answers (403)"),
        ({"HF_TOKEN": "hf_\nx"}, "characters that cannot be sent"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "The hub does not answer at http://127.0.0.1:9"),
    ],
)
def test_a_hub_that_refuses_every_login_is_one_clear_message(
    refusing: Pushing, variables: dict[str, str], says: str
) -> None:
    said = refusing.refused(refusing.key, "ada/answers", **variables)
    assert says in said
    assert not refusing.writes.repositories


def test_another_users_name_is_refused(refusing: Pushing) -> None:
    assert "may not write to grace/answers (403)" in refusing.refused(refusing.key, "grace/answers")


def test_the_token_that_the_modal_secret_calls_otherwise_does_as_well(pushing: Pushing) -> None:
    code, _, err = pushing.run(HF_TOKEN="", HUGGINGFACE_TOKEN=TOKEN)
    assert code == 0, err


def test_a_run_on_modal_is_fetched_pushed_and_not_stored(pushing: Pushing) -> None:
    there, here = pushing.store, pushing.folder / "here"
    _submitted(there, pushing.key)
    with ModalServer() as server, pytest.MonkeyPatch.context() as patch, client_of(server, patch) as client:
        upload(there, client)
        mirrored = mirror(there, here)
        variables = {**server.environment(), "AXOSWEEP_STORE": str(here)}
        pushing.writes.failures["commit"], pushing.writes.status = 1, 500
        assert pushing.run(**variables)[0] == 2
        fetched = list((mirrored.cache / "push").rglob("adapter_model.safetensors"))
        assert len(fetched) == 1, "kept for the next try"
        code, _, err = pushing.run(**variables)
    assert code == 0, err
    assert sorted(pushing.pushed()) == ADAPTER
    assert not list((mirrored.cache / "push").iterdir())


def _submitted(store: Store, key: str) -> None:
    (path,) = store.sweeps.glob(f"*/{SUBMISSION}")
    (run,) = json.loads((path.parent / "plan.json").read_text())["runs"]
    steps = [{"kind": "train", "key": key, "data_key": run["data_key"], "fetches": []}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"names": NAMES, "steps": steps}))
