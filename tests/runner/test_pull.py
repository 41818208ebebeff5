"""`axosweep pull` from a store on this machine: the right bytes, once each, and nothing of the user's lost."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modal_app.layout import Store
from modal_app.step import OutcomeStatus, StepKind
from runner.after.steps import merge_step
from runner.after.subjects import subjects
from runner.cli import main
from runner.errors import SweepError
from runner.files.choice import choose
from runner.files.pull import JOURNAL, Wanted, pull
from runner.files.run_files import Entry, Files, LocalFiles, parts_of
from tests.runner.builders import finish, finish_run, open_sweep, run
from tests.runner.run_files_store import content, finished_run, make_files, merge, write_checkpoint


@dataclass
class Counted:
    """A store whose reads are counted, and that breaks off after so many bytes, as a lost network does."""

    files: Files
    breaks_after: int | None = None
    read_bytes: int = 0
    reads: list[tuple[str, int]] = field(default_factory=list)

    def place(self, path: str) -> str:
        return self.files.place(path)

    def below(self, folder: str) -> list[Entry]:
        return self.files.below(folder)

    def read(self, path: str, start: int) -> Iterator[bytes]:
        self.reads.append((path, start))
        for chunk in self.files.read(path, start):
            for begin in range(0, len(chunk), 10_000):
                piece = chunk[begin : begin + 10_000]
                if self.breaks_after is not None and self.read_bytes >= self.breaks_after:
                    raise SweepError("the network is gone")
                self.read_bytes += len(piece)
                yield piece


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home"


def said(capsys: pytest.CaptureFixture[str], *words: str, store: Store, code: int = 0) -> str:
    assert main([*words, "--store", str(store.root)]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {JOURNAL}


def nothing(_: int) -> None:
    pass


def test_what_one_takes_home_is_the_adapter_with_its_config_and_metrics(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = finished_run(store)
    told = said(capsys, "pull", one.key[:5], str(folder), store=store)
    made = {"adapter_model.safetensors", "adapter_config.json"}
    assert names(folder) == made | {"config.yml", "metrics.jsonl", "result.json", "run.json"}
    assert (folder / "adapter_model.safetensors").read_bytes() == content(one.key, 300_000)
    assert "6 files fetched" in told
    assert "2 checked against the run's own sha256" in told
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
    said(capsys, "pull", one.key, "all", str(folder), store=store)
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
    wanted = choose(local, parts_of(local, one.key, one.data_key), "all", one.key, "succeeded")
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
        wanted = choose(local, parts_of(local, one.key, one.data_key), None, one.key, "succeeded")
        pull(counted, wanted, folder, watch=nothing)
        return counted

    again()
    assert not again().reads
    with store.folder(StepKind.TRAIN, one.key).metrics.open("a") as file:
        file.write('{"step": 30, "attempt": 1, "time": 2.0}\n')
    assert [Path(path).name for path, _ in again().reads] == ["metrics.jsonl"]


def test_the_beginning_of_another_source_is_not_gone_on_from(store: Store, folder: Path) -> None:
    """Killed in the middle of one run's checkpoint, another run's is pulled into the same folder. No checksum tells."""
    first, second = finished_run(store, rate=0.1), finished_run(store, rate=0.2)
    model = store.folder(StepKind.TRAIN, second.key).model
    (model / "checkpoint-20" / "optimizer.pt").write_bytes(content("another", 40_000))
    local = LocalFiles(store)
    wanted = [
        choose(local, parts_of(local, one.key, one.data_key), "checkpoint", one.key, "succeeded")
        for one in (first, second)
    ]
    with pytest.raises(SweepError):
        pull(Counted(local, 20_000), wanted[0], folder, watch=nothing)
    assert list(folder.rglob(".optimizer.pt.part"))
    pull(local, wanted[1], folder, watch=nothing)
    assert (folder / "checkpoint-20" / "optimizer.pt").read_bytes() == content("another", 40_000)


def test_a_beginning_that_is_damaged_is_taken_anew(store: Store, folder: Path) -> None:
    one = finished_run(store)
    local = LocalFiles(store)
    wanted = choose(local, parts_of(local, one.key, one.data_key), "adapter", one.key, "succeeded")
    with pytest.raises(SweepError):
        pull(Counted(local, 100_000), wanted, folder, watch=nothing)
    (part,) = folder.glob(".*.part")
    part.write_bytes(bytes(part.stat().st_size))
    pull(local, wanted, folder, watch=nothing)
    assert (folder / "adapter_model.safetensors").read_bytes() == content(one.key, 300_000)


def test_a_file_of_the_users_is_never_overwritten_unasked(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = finished_run(store)
    folder.mkdir()
    (folder / "config.yml").write_text("mine\n")
    told = said(capsys, "pull", one.key, str(folder), store=store, code=2)
    assert "config.yml" in told
    assert "--force" in told
    assert names(folder) == {"config.yml"}
    said(capsys, "pull", one.key, str(folder), "--force", store=store)
    assert (folder / "config.yml").read_text() == "learning_rate: 0.1\n"
    (folder / "adapter_config.json").write_text("edited since")
    assert "adapter_config.json" in said(capsys, "pull", one.key, str(folder), store=store, code=2)
    assert (folder / "adapter_config.json").read_text() == "edited since"


def test_the_same_file_by_other_means_is_taken_for_what_it_is(store: Store, folder: Path) -> None:
    one = finished_run(store)
    local = LocalFiles(store)
    wanted = choose(local, parts_of(local, one.key, one.data_key), "adapter", one.key, "succeeded")
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(content(one.key, 300_000))
    done = pull(local, wanted, folder, watch=nothing)
    assert done.here == ["adapter_model.safetensors"]
    assert not done.unchecked


def test_weights_that_were_damaged_in_the_store_are_not_kept(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = finished_run(store)
    weights = store.folder(StepKind.TRAIN, one.key).model / "adapter_model.safetensors"
    with weights.open("r+b") as file:
        file.seek(1000)
        file.write(b"\0" * 16)
    told = said(capsys, "pull", one.key, str(folder), store=store, code=2)
    assert "checksum" in told
    assert "adapter_model.safetensors" not in names(folder)
    weights.unlink()
    assert "lacks what its run has written down" in said(capsys, "pull", one.key, str(folder), store=store, code=2)


def test_rows_that_were_damaged_in_the_store_are_not_kept(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = finished_run(store)
    (store.prepared_dataset(one.data_key) / "0123" / "data.arrow").write_bytes(bytes(50_000))
    assert "checksum" in said(capsys, "pull", one.key, "data", str(folder), store=store, code=2)
    assert "0123/data.arrow" not in names(folder)


def test_a_killed_pull_goes_on(store: Store, folder: Path) -> None:
    """With the command itself, killed by -9 in the middle of the weights."""
    one = finished_run(store, weights=60_000_000)
    words = [
        sys.executable,
        "-m",
        "runner",
        "pull",
        one.key,
        "adapter",
        str(folder),
        "--store",
        str(store.root),
        "--json",
    ]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not any(path.stat().st_size for path in folder.glob(".*.part")):
            pass
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "it was too fast to be killed"
    cut = sum(path.stat().st_size for path in folder.glob(".*.part"))
    done = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    assert 0 < cut < 60_000_000
    assert done["bytes"] < 60_000_000 + 1000 - cut + 1
    assert (folder / "adapter_model.safetensors").read_bytes() == content(one.key, 60_000_000)


class TestNoRoom:
    """On a real file system of one megabyte."""

    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        place = tmp_path / "small"
        place.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("no file system can be mounted here")
        yield place
        subprocess.run(["umount", place], check=True)

    def test_what_has_no_room_is_refused_before_anything_is_fetched(
        self, store: Store, small: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        one = finished_run(store, weights=3_000_000)
        told = said(capsys, "pull", one.key, str(small / "home"), store=store, code=2)
        assert "3.0 MB are to be fetched" in told
        assert not list(small.iterdir())

    def test_a_disk_that_becomes_full_is_one_message_and_the_same_command_goes_on(
        self, store: Store, small: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        one = finished_run(store, weights=700_000)
        local = LocalFiles(store)

        def fill(_: int) -> None:
            if not (small / "others").exists():
                (small / "others").write_bytes(bytes(700_000))

        wanted = choose(local, parts_of(local, one.key, one.data_key), "adapter", one.key, "succeeded")
        with pytest.raises(SweepError, match=r"no more room.*1 of 2 files"):
            pull(local, wanted, small, watch=fill)
        assert "adapter_model.safetensors" not in names(small)
        assert json.loads((small / JOURNAL).read_text())["files"], "nothing of it was half-written"
        left = {path.name for path in small.iterdir()}
        assert left <= {JOURNAL, "others", "adapter_config.json", ".adapter_model.safetensors.part"}
        (small / "others").unlink()
        said(capsys, "pull", one.key, "adapter", str(small), store=store)
        assert (small / "adapter_model.safetensors").read_bytes() == content(one.key, 700_000)


def test_a_file_larger_than_the_disk_takes_is_one_message(store: Store, folder: Path) -> None:
    one = finished_run(store, weights=400_000)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    words = [sys.executable, "-m", "runner", "pull", one.key, "adapter", str(folder), "--store", str(store.root)]
    done = subprocess.run(words, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no more room" in done.stderr
    assert "Traceback" not in done.stderr
    assert names(folder) <= {"adapter_config.json", ".adapter_model.safetensors.part"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nope", "DIR"), "no run or sweep nope"),
        (("RUN", "adaptr", "DIR"), "Did you mean adapter"),
        (("RUN", "adapter"), "Where to"),
        (("RUN", "merged", "DIR"), "axosweep merge"),
        (("RUN", "checkpoint-15", "DIR"), "It has: checkpoint-10, checkpoint-20"),
        (("RUN", "model", "DIR"), "whole adapter"),
        (("RUN", "adapter", "DIR", "more"), "takes a run"),
    ],
)
def test_what_cannot_be_pulled_is_told_in_one_message(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
) -> None:
    one = finished_run(store)
    named = [{"RUN": one.key, "DIR": str(folder)}.get(word, word) for word in words]
    assert expected in said(capsys, "pull", *named, store=store, code=2)
    assert not folder.exists()


def test_an_unfinished_run_has_no_adapter_yet_but_its_whole_checkpoints(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = run({"learning_rate": 0.5})
    open_sweep(store, [one])
    finish(store, StepKind.TRAIN, one.key, OutcomeStatus.STOPPED)
    step = store.folder(StepKind.TRAIN, one.key)
    write_checkpoint(step, 10)
    write_checkpoint(step, 20, whole=False)
    told = said(capsys, "pull", one.key, str(folder), store=store, code=2)
    assert "has not finished: it is stopped" in told
    assert f"axosweep pull {one.key} checkpoints" in told
    assert "is not whole" in said(capsys, "pull", one.key, "checkpoint-20", str(folder), store=store, code=2)
    said(capsys, "pull", one.key, "checkpoints", str(folder), store=store)
    assert {name.split("/")[0] for name in names(folder)} == {"checkpoint-10"}


def test_of_several_merged_models_the_runs_own_is_meant(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Others are of foreign adapters, or of an older axosweep."""
    one = finished_run(store)
    config = store.folder(StepKind.TRAIN, one.key).config
    config.write_text(f"adapter: lora\n{config.read_text()}")
    (subject,) = subjects([store], one.key)
    own = merge_step(subject).step.key.rpartition("/")[2]
    for name in ("abc", own):
        merge(store, one, name)
    told = json.loads(said(capsys, "pull", one.key, "merged", str(folder), "--json", store=store))
    assert names(folder) == {"model.safetensors"}
    journal = json.loads((folder / JOURNAL).read_text())["files"]
    (source,) = [entry for name, entry in journal.items() if name == "model.safetensors"]
    assert own in json.dumps(source), told


def test_two_merged_models_are_told_apart(store: Store, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = finished_run(store)
    merge(store, one, "abc")
    merge(store, one, "def")
    assert "merged-abc, merged-def" in said(capsys, "pull", one.key, "merged", str(folder), store=store, code=2)
    said(capsys, "pull", one.key, "merged-def", str(folder), store=store)
    assert (folder / "model.safetensors").read_bytes() == content("def", 100_000)


def test_two_pulls_into_one_folder_do_not_meet(store: Store, folder: Path) -> None:
    one = finished_run(store)
    local = LocalFiles(store)
    wanted = choose(local, parts_of(local, one.key, one.data_key), "adapter", one.key, "succeeded")
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
        pull(LocalFiles(store), [Wanted(Entry("runs/a/x", 1, 0.0), "../x")], folder, watch=nothing)


def test_ls_says_what_there_is_of_a_run(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    one = finished_run(store)
    merge(store, one, "abc")
    write_checkpoint(store.folder(StepKind.TRAIN, one.key), 30, whole=False)
    told = json.loads(said(capsys, "ls", one.key, "--json", store=store))
    parts = {part["part"]: part for part in told["parts"]}
    assert list(parts) == [
        "adapter", "merged-abc", "checkpoint-10", "checkpoint-20", "checkpoint-30", "record", "logs", "data", "rest",
    ]  # fmt: skip
    assert [name for name, part in parts.items() if not part["whole"]] == ["checkpoint-30"]
    size = os.path.getsize(store.folder(StepKind.TRAIN, one.key).model / "adapter_config.json")
    assert parts["adapter"]["bytes"] == 300_000 + size
    told = said(capsys, "ls", one.key, store=store)
    assert "not whole" in told
    assert str(store.root / "runs" / one.key / "model") in told
