"""`rm` and `gc` on Modal's Volumes, with the unmodified client: they remove the files, marks and claims of what is
removed, and no others."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modal
import pytest

from modal_app.cloud.claims import job_of
from modal_app.cloud.job import steps_file
from modal_app.store.layout import STEPS, SUBMISSION, Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import OutcomeStatus, Step, StepKind, write_atomically
from runner.types import Run
from tests.forked_command import COMMAND
from tests.modal_server import ModalServer
from tests.modal_server.fixture import client_of
from tests.runner.builders import finish, finish_run, open_sweep, run
from tests.runner.executors.volume_store import NAMES, claimed, mirror, submit, upload
from tests.runner.run_files_store import make_files, merge

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class There:
    server: ModalServer
    client: modal.Client
    here: Path
    one: Run
    other: Run
    sweep: str

    def run(self, *words: str, code: int = 0) -> str:
        command = [*COMMAND, *words, "--store", str(self.here)]
        environment = {**os.environ, **self.server.environment()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def files(self, volume: str, below: str = "") -> set[str]:
        tree = self.server.volume_tree(NAMES[volume])
        return {path.relative_to(tree).as_posix() for path in (tree / below).rglob("*") if path.is_file()}

    def entries(self) -> Mapping[str, Any]:
        return self.server.dict_items(NAMES["claims"])


@pytest.fixture
def there(tmp_path: Path) -> Iterator[There]:
    """Two finished runs of a sweep on the Volumes, the first of them merged; their claims; a mirror of it here."""
    store = Store(tmp_path / "volumes")
    one, other = (run({"learning_rate": rate, "base_model": "tiny"}) for rate in (0.1, 0.2))
    planned = open_sweep(store, [one, other], "swept")
    for each in (one, other):
        finish_run(store, each, {0: 2.0, 20: 1.0})
        make_files(store, each, weights=1000)
    merge(store, one, "abc")
    submit(store, planned)
    for name in ("a" * 16, "b" * 16):
        write_atomically_below(store, f"inputs/{name}.jsonl", "{}\n")
    write_atomically(store.folder(StepKind.TRAIN, one.key).config, f"datasets: [{{path: inputs/{'a' * 16}.jsonl}}]\n")
    finish(store, StepKind.PREPROCESS, "0" * 12)
    marks = [f"train-{each.key}" for each in (one, other)] + [f"merge-{one.key}-abc", f"preprocess-{one.data_key}"]
    with ModalServer() as server, pytest.MonkeyPatch.context() as patch, client_of(server, patch) as client:
        upload(store, client, tuple(marks))
        claimed(client, {name: value for each in (one, other) for name, value in claims_of(each)})
        mirror(store, tmp_path / "here")
        yield There(server, client, tmp_path / "here", one, other, planned.sweep)


def write_atomically_below(store: Store, name: str, text: str) -> None:
    (store.root / name).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(store.root / name, text)


def claims_of(one: Run) -> Sequence[tuple[str, Any]]:
    job, merged = f"train/{one.key}", f"merge/{one.key}/abc"
    return [
        (job, {"call": "fc-1", "sweep": "s"}),
        (f"{job}/after/fc-1", {"call": "fc-2", "sweep": "s"}),
        (f"ended/{job}", {"by": "fc-2", "status": OutcomeStatus.SUCCEEDED, "message": ""}),
        (merged, {"call": "fc-3", "sweep": "s"}),
        (f"ended/{merged}", {"by": "fc-3", "status": OutcomeStatus.SUCCEEDED, "message": ""}),
    ]


def test_a_run_goes_with_its_marks_and_its_claims_and_the_other_stays(there: There) -> None:
    other_files = there.files("runs_volume", f"runs/{there.other.key}")
    printed = there.json("rm", there.one.key, "--yes")
    assert [one["key"] for one in printed["to_delete"]] == [there.one.key]
    home = f"runs/{there.one.key}"
    assert there.files("runs_volume", home) == {f"{home}/run.json", f"{home}/removed.json"}
    assert there.files("runs_volume", "done") == {
        f"done/train-{there.other.key}", f"done/preprocess-{there.one.data_key}"
    }  # fmt: skip
    assert dict(there.entries()) == dict(claims_of(there.other))
    assert there.files("runs_volume", f"runs/{there.other.key}") == other_files
    assert there.json("status")["sweeps"][0]["counts"] == {"succeeded": 1, "removed": 1}
    rows = {row["key"]: row for row in there.json("compare", there.sweep)["runs"]}
    assert rows[there.one.key]["params"]
    here = Store(there.here / "modal")
    assert observe(here, StepKind.TRAIN, there.one.key).phase is Phase.ABSENT
    assert there.json("rm", there.sweep, "--dry-run")["to_delete"][0]["key"] == there.other.key


def test_a_run_goes_from_the_volumes_of_its_own_sweep_whichever_were_used_since(there: There) -> None:
    newest = Store(there.here / "modal").sweeps / "later" / SUBMISSION
    newest.parent.mkdir()
    names = {"cache_volume": "cache-2", "runs_volume": "runs-2", "claims": "claims-2"}
    newest.write_text(json.dumps({"names": names, "steps": []}))
    for named in (there.one.key, there.sweep):
        printed = there.json("rm", named, "--yes")
        assert [one["key"] for one in printed["to_delete"]] in ([there.one.key], [there.other.key])
    assert not [name for name in there.files("runs_volume", "runs") if "/model/" in name]


def test_checkpoints_alone_go_and_the_run_stays_done(there: There) -> None:
    before = there.files("runs_volume", f"runs/{there.one.key}")
    there.json("rm", there.one.key, "--checkpoints", "--yes")
    after = there.files("runs_volume", f"runs/{there.one.key}")
    assert after == {name for name in before if "/checkpoint-" not in name}
    assert f"done/train-{there.one.key}" in there.files("runs_volume", "done")
    assert len(there.entries()) == len(claims_of(there.one)) * 2


def test_gc_takes_the_dataset_and_the_input_that_no_run_on_the_volumes_reads(there: There) -> None:
    before = there.files("cache_volume")
    assert {one["key"] for one in there.json("gc", "--modal", "--dry-run")["to_delete"]} == {
        "0" * 12,
        f"{'b' * 16}.jsonl",
    }
    there.run("gc", "--modal", "--yes")
    gone = before - there.files("cache_volume")
    assert gone
    assert all(name.startswith((f"prepared/{'0' * 12}", f"inputs/{'b' * 16}")) for name in gone)
    there.run("rm", there.sweep, "--yes")
    to_delete = {one["key"] for one in there.json("gc", "--modal", "--yes")["to_delete"]}
    assert to_delete == {there.one.data_key, f"{'a' * 16}.jsonl"}
    assert not there.files("cache_volume")
    assert f"done/preprocess-{there.one.data_key}" not in there.files("runs_volume", "done")


def test_a_run_that_a_sweep_of_another_machine_has_is_spared(there: There, tmp_path: Path) -> None:
    """Only the Volume knows of it."""
    elsewhere = Store(tmp_path / "elsewhere")
    planned = open_sweep(elsewhere, [there.one, run({"learning_rate": 0.9})], "theirs")
    upload(elsewhere, there.client)
    printed = there.json("rm", there.sweep, "--dry-run")
    assert [one["key"] for one in printed["to_delete"]] == [there.other.key]
    assert printed["kept"] == [{"key": there.one.key, "why": f"{planned.sweep} has it, too"}]


def test_a_removal_killed_at_any_call_is_ended_by_the_same_line(there: There) -> None:
    """However far the removal got, the run does not count as done, and nothing of it is left after a second removal."""
    for nth in (1, 2, 3):
        there.server.fail("VolumeRemoveFile2", nth=nth)
        command = [*COMMAND, "rm", there.one.key, "--yes", "--store", str(there.here)]
        environment = {**os.environ, **there.server.environment()}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if nth > 1:
            assert f"done/train-{there.one.key}" not in there.files("runs_volume", "done")
        if done.returncode == 0:
            break
    there.run("rm", there.one.key, "--yes")
    home = f"runs/{there.one.key}"
    assert there.files("runs_volume", home) == {f"{home}/run.json", f"{home}/removed.json"}
    assert dict(there.entries()) == dict(claims_of(there.other))


def test_what_a_step_will_read_that_has_not_begun_is_not_gcs(there: There, tmp_path: Path) -> None:
    """Its launcher has uploaded it, and a call waits for a GPU."""
    step = Step(StepKind.INFER, "base/abc", {}, there.one.data_key, options={"prompts": f"inputs/{'b' * 16}.jsonl"})
    queued = Store(tmp_path / "queued")
    write_atomically_below(
        queued, f"sweeps/{there.sweep}/after-0a1b2c/{STEPS}", steps_file({"infer/base/abc": step}, {})
    )
    upload(queued, there.client)
    assert {one["key"] for one in there.json("gc", "--modal", "--dry-run")["to_delete"]} == {"0" * 12}


def test_cancelling_a_sweep_ends_what_it_asks_of_its_base_model(there: There) -> None:
    mirrored = Store(there.here / "modal").sweeps
    requested = {"kind": "infer", "key": "base/abc", "data_key": there.one.data_key, "fetches": []}
    for name, key in ((f"{there.sweep}/after-0a1b2c", "base/abc"), ("another/after-0a1b2c", "base/def")):
        of_a_run = {**requested, "key": f"{there.one.key}/abc", "run": there.one.key}
        submission = {"names": NAMES, "steps": [requested | {"key": key}, of_a_run]}
        write_atomically_below(Store(mirrored), f"{name}/{SUBMISSION}", json.dumps(submission))
    there.run("cancel", there.one.key)
    cancelled = {key for key in there.entries() if key.startswith("cancelled/infer/")}
    assert cancelled == {f"cancelled/infer/{there.one.key}/abc"}
    there.run("cancel", there.sweep)
    assert {key for key in there.entries() if key.startswith("cancelled/infer/base/")} == {"cancelled/infer/base/abc"}


@pytest.mark.parametrize(
    "entry", ["merge/r/h", "merge/r/h/after/fc-1", "ended/merge/r/h", "cancelled/merge/r/h", "waiting/fc-1/merge/r/h"]
)
def test_every_entry_of_the_claims_is_about_one_job(entry: str) -> None:
    assert job_of(entry) == "merge/r/h"
