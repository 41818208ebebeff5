"""`axosweep pull` from a store on this machine: the right bytes, once each, and no file of the user's is lost."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modal_app.store import checkpoints
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.errors import SweepError
from runner.files.pull import JOURNAL, FileToPull, pull
from runner.files.run_files import Entry, LocalFiles
from tests.printed_json import read_printed
from tests.runner.builders import finish_run, open_sweep, run
from tests.runner.pulling import Counted, names, nothing, said, wanted_of
from tests.runner.run_files_store import content, finished_run, make_files, merge


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_what_one_takes_home_is_the_adapter_with_its_config_and_metrics(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = finished_run(store)
    printed = said(capsys, "pull", one.key[:5], str(folder), store=store)
    made = {"adapter_model.safetensors", "adapter_config.json"}
    assert names(folder) == made | {"config.yml", "metrics.jsonl", "result.json", "run.json"}
    assert (folder / "adapter_model.safetensors").read_bytes() == content(one.key, 300_000)
    assert "6 files fetched" in printed
    assert "2 checked against the run's own sha256" in printed
    journal = json.loads((folder / JOURNAL).read_text())["files"]
    assert journal["adapter_model.safetensors"]["sha256"] == hashlib.sha256(content(one.key, 300_000)).hexdigest()


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("adapter", {"adapter_model.safetensors", "adapter_config.json"}),
        ("merged", {"model.safetensors"}),
        ("logs", {"attempt-1/log.txt", "model/debug.log"}),
        ("data", {"0123/data.arrow", "manifest.json"}),
        ("checkpoint", {f"checkpoint-20/{name}" for name in ("optimizer.pt", "trainer_state.json", "complete.json")}),
        (
            "checkpoint-10",
            {f"checkpoint-10/{name}" for name in ("optimizer.pt", "trainer_state.json", "complete.json")},
        ),
    ],
)
def test_each_part_is_had_by_its_name(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str], what: str, expected: set[str]
) -> None:
    one = finished_run(store)
    merge(store, one, "abc")
    said(capsys, "pull", one.key, what, str(folder), store=store)
    assert names(folder) == expected


def test_all_lies_in_folders_of_its_parts(store: Store, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = finished_run(store)
    merge(store, one, "abc")
    losses = store.folder(StepKind.TRAIN, one.key).losses
    losses.write_bytes(content("losses", 1000))
    said(capsys, "pull", one.key, "all", str(folder), store=store)
    assert (folder / losses.name).read_bytes() == losses.read_bytes()
    assert {name.split("/")[0] for name in names(folder) if "/" in name} == {
        "adapter", "attempt-1", "checkpoint-10", "checkpoint-20", "data", "merge", "merged-abc", "model",
    }  # fmt: skip


def test_a_sweep_means_its_best_run(store: Store, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse, better = (run({"learning_rate": rate}) for rate in (0.1, 0.2))
    sweep = open_sweep(store, [worse, better], "two").sweep
    for one, loss in ((worse, 2.0), (better, 1.0)):
        finish_run(store, one, {0: 3.0, 20: loss})
        make_files(store, one)
    said(capsys, "pull", sweep, "adapter", str(folder), store=store)
    assert (folder / "adapter_model.safetensors").read_bytes() == content(better.key, 300_000)


def test_broken_off_and_repeated_it_fetches_every_byte_once(store: Store, folder: Path) -> None:
    one = finished_run(store)
    local = LocalFiles(store)
    wanted = wanted_of(store, one, "all")
    total = sum(each.entry.size for each in wanted)
    read = 0
    for breaks_after in (5_000, 100_000, 200_000, None):
        counted = Counted(local, breaks_after)
        if breaks_after is None:
            done = pull(counted, wanted, folder, watch=nothing)
        else:
            with pytest.raises(SweepError):
                pull(counted, wanted, folder, watch=nothing)
            cut = {path.name.removeprefix(".").removesuffix(".part") for path in folder.rglob(".*.part")}
            assert len(cut) == 1
            assert not cut & {Path(name).name for name in names(folder)}, "only what is whole has its name"
        read += counted.read_bytes
    assert read == total
    assert done.bytes < total
    for each in wanted:
        assert (folder / each.to).read_bytes() == b"".join(local.read(each.entry.path, 0))
    assert not list(folder.rglob("*.part"))


def test_what_is_here_is_not_read_again_and_a_changed_source_is(store: Store, folder: Path) -> None:
    one = finished_run(store)
    local = LocalFiles(store)

    def again() -> Counted:
        counted = Counted(local)
        wanted = wanted_of(store, one, None)
        pull(counted, wanted, folder, watch=nothing)
        return counted

    again()
    assert not again().reads
    with store.folder(StepKind.TRAIN, one.key).metrics.open("a") as file:
        file.write('{"step": 30, "attempt": 1, "time": 2.0}\n')
    assert [Path(path).name for path, _ in again().reads] == ["metrics.jsonl"]


def test_the_beginning_of_another_source_is_not_gone_on_from(store: Store, folder: Path) -> None:
    """Killed in the middle of one run's checkpoint, another run's is pulled into the same folder."""
    first, second = finished_run(store, rate=0.1), finished_run(store, rate=0.2)
    model = store.folder(StepKind.TRAIN, second.key).model
    (model / "checkpoint-20" / "optimizer.pt").write_bytes(content("another", 40_000))
    checkpoints.mark_complete(model / "checkpoint-20", {})
    local = LocalFiles(store)
    wanted = [wanted_of(store, one, "checkpoint") for one in (first, second)]
    with pytest.raises(SweepError):
        pull(Counted(local, 20_000), wanted[0], folder, watch=nothing)
    assert list(folder.rglob(".optimizer.pt.part"))
    pull(local, wanted[1], folder, watch=nothing)
    assert (folder / "checkpoint-20" / "optimizer.pt").read_bytes() == content("another", 40_000)


def test_a_checkpoint_that_its_run_removes_meanwhile_is_one_message(store: Store, folder: Path) -> None:
    """As save_total_limit has a run do."""
    one = finished_run(store)
    wanted = wanted_of(store, one, "checkpoint")
    shutil.rmtree(store.folder(StepKind.TRAIN, one.key).model / "checkpoint-20")
    with pytest.raises(SweepError, match=r"checkpoint-20/.* was removed while it was read\. Run the command again\."):
        pull(LocalFiles(store), wanted, folder, watch=nothing)


def test_a_damaged_beginning_is_fetched_again(store: Store, folder: Path) -> None:
    one = finished_run(store)
    local = LocalFiles(store)
    wanted = wanted_of(store, one, "adapter")
    with pytest.raises(SweepError):
        pull(Counted(local, 100_000), wanted, folder, watch=nothing)
    (part,) = folder.glob(".*.part")
    part.write_bytes(bytes(part.stat().st_size))
    pull(local, wanted, folder, watch=nothing)
    assert (folder / "adapter_model.safetensors").read_bytes() == content(one.key, 300_000)


def test_a_users_file_is_never_overwritten_without_force(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = finished_run(store)
    folder.mkdir()
    (folder / "config.yml").write_text("mine\n")
    printed = said(capsys, "pull", one.key, str(folder), store=store, code=2)
    assert "config.yml" in printed
    assert "--force" in printed
    assert names(folder) == {"config.yml"}
    said(capsys, "pull", one.key, str(folder), "--force", store=store)
    assert (folder / "config.yml").read_text() == "learning_rate: 0.1\n"
    (folder / "adapter_config.json").write_text("edited since")
    assert "adapter_config.json" in said(capsys, "pull", one.key, str(folder), store=store, code=2)
    assert (folder / "adapter_config.json").read_text() == "edited since"


@pytest.mark.parametrize("in_the_way", ["adapter_config.json/mine", "checkpoint-20"])
def test_a_folder_or_a_file_in_the_way_is_refused_before_anything_is_fetched(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str], in_the_way: str
) -> None:
    """A folder instead of a file, a file instead of a folder: --force replaces files alone."""
    one = finished_run(store)
    (folder / in_the_way).parent.mkdir(parents=True)
    (folder / in_the_way).write_text("mine\n")
    what = "adapter" if "adapter" in in_the_way else "checkpoints"
    for force in (("--force",), ()):
        printed = said(capsys, "pull", one.key, what, str(folder), *force, store=store, code=2)
        assert f"{folder / in_the_way.partition('/')[0]} is in the way" in printed
        assert names(folder) == {in_the_way}


def test_the_same_file_by_other_means_is_taken_for_what_it_is(store: Store, folder: Path) -> None:
    one = finished_run(store)
    local = LocalFiles(store)
    wanted = wanted_of(store, one, "adapter")
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(content(one.key, 300_000))
    done = pull(local, wanted, folder, watch=nothing)
    assert done.here == ["adapter_model.safetensors"]
    assert not done.unchecked


def test_weights_that_were_damaged_in_the_store_are_not_reused(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = finished_run(store)
    weights = store.folder(StepKind.TRAIN, one.key).model / "adapter_model.safetensors"
    with weights.open("r+b") as file:
        file.seek(1000)
        file.write(b"\0" * 16)
    printed = said(capsys, "pull", one.key, str(folder), store=store, code=2)
    assert "checksum" in printed
    assert "adapter_model.safetensors" not in names(folder)
    weights.unlink()
    assert "lacks files that its run has recorded" in said(capsys, "pull", one.key, str(folder), store=store, code=2)


def test_rows_that_were_damaged_in_the_store_are_not_reused(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = finished_run(store)
    (store.prepared_dataset(one.data_key) / "0123" / "data.arrow").write_bytes(bytes(50_000))
    assert "checksum" in said(capsys, "pull", one.key, "data", str(folder), store=store, code=2)
    assert "0123/data.arrow" not in names(folder)


@pytest.mark.medium
def test_a_killed_pull_goes_on(store: Store, folder: Path) -> None:
    """With the command itself, killed by SIGKILL in the middle of the weights."""
    one = finished_run(store, weights=60_000_000)
    command = [sys.executable, "-m", "runner"]
    words = [*command, "pull", one.key, "adapter", str(folder), "--store", str(store.root), "--json"]
    weights = ".adapter_model*.part"
    with subprocess.Popen(["nice", "-n", "19", *words], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(path.stat().st_size for path in folder.glob(weights)):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "it was too fast to be killed"
    cut = sum(path.stat().st_size for path in folder.glob(weights))
    done = read_printed("pull", subprocess.run(words, capture_output=True, check=True, text=True).stdout)
    assert 0 < cut < 60_000_000
    assert done["bytes"] < 60_000_000 + 1000 - cut + 1
    assert (folder / "adapter_model.safetensors").read_bytes() == content(one.key, 60_000_000)


def test_two_pulls_into_one_folder_do_not_meet(store: Store, folder: Path) -> None:
    one = finished_run(store)
    local = LocalFiles(store)
    wanted = wanted_of(store, one, "adapter")
    refused: list[str] = []

    def meanwhile(_: int) -> None:
        try:
            pull(local, wanted, folder, watch=nothing)
        except SweepError as error:
            refused.append(str(error))

    pull(local, wanted, folder, watch=meanwhile)
    assert refused
    assert all("Another axosweep pull" in text for text in refused)


def test_no_name_leads_out_of_the_folder(store: Store, folder: Path) -> None:
    with pytest.raises(AssertionError):
        pull(LocalFiles(store), [FileToPull(Entry("runs/a/x", 1, 0.0), "../x")], folder, watch=nothing)
