"""What `axosweep pull` cannot fetch, or has no room for, is reported in one message."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import OutcomeStatus, StepKind
from runner.errors import SweepError
from runner.files.pull import JOURNAL, pull
from runner.files.run_files import LocalFiles
from runner.follow_up.steps import merge_step
from runner.follow_up.subjects import subjects
from tests.runner.builders import finish, open_sweep, run
from tests.runner.pulling import names, said, wanted_of
from tests.runner.run_files_store import content, finished_run, merge, write_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home"


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
        printed = said(capsys, "pull", one.key, str(small / "home"), store=store, code=2)
        assert "the files need 3.0 MB" in printed
        assert not list(small.iterdir())

    def test_a_disk_that_becomes_full_is_one_message_and_the_same_command_goes_on(
        self, store: Store, small: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        one = finished_run(store, weights=700_000)
        local = LocalFiles(store)

        def fill(_: int) -> None:
            if not (small / "others").exists():
                (small / "others").write_bytes(bytes(700_000))

        wanted = wanted_of(store, one, "adapter")
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
        (("RUN", "adapter"), "folder is missing"),
        (("RUN",), "The folder is missing: axosweep pull RUN DIR"),
        (("RUN", "answers"), "folder is missing"),
        (("RUN", "answers", "DIR"), "axosweep infer"),
        (("RUN", "evaluation", "DIR"), "axosweep eval"),
        (("RUN", "merged", "DIR"), "axosweep merge"),
        (("RUN", "checkpoint-15", "DIR"), "It has: checkpoint-10, checkpoint-20"),
        (("RUN", "model", "DIR"), "complete adapter"),
        (("RUN", "adapter", "DIR", "more"), "these are too many words"),
    ],
)
def test_what_cannot_be_pulled_is_reported_in_one_message(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
) -> None:
    one = finished_run(store)
    named = [{"RUN": one.key, "DIR": str(folder)}.get(word, word) for word in words]
    assert expected.replace("RUN", one.key) in said(capsys, "pull", *named, store=store, code=2)
    assert not folder.exists()


def test_an_unfinished_run_has_no_adapter_yet_but_its_complete_checkpoints(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = run({"learning_rate": 0.5})
    open_sweep(store, [one])
    finish(store, StepKind.TRAIN, one.key, OutcomeStatus.STOPPED)
    step = store.folder(StepKind.TRAIN, one.key)
    write_checkpoint(step, 10)
    write_checkpoint(step, 20, whole=False)
    printed = said(capsys, "pull", one.key, str(folder), store=store, code=2)
    assert "has not finished: it is stopped" in printed
    assert f"axosweep pull {one.key} checkpoints" in printed
    assert "is not complete" in said(capsys, "pull", one.key, "checkpoint-20", str(folder), store=store, code=2)
    said(capsys, "pull", one.key, "checkpoints", str(folder), store=store)
    assert {name.split("/")[0] for name in names(folder)} == {"checkpoint-10"}


def test_of_several_merged_models_the_runs_own_is_meant(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Others belong to foreign adapters, or to an older axosweep."""
    one = finished_run(store)
    config = store.folder(StepKind.TRAIN, one.key).config
    config.write_text(f"adapter: lora\n{config.read_text()}")
    (subject,) = subjects([store], one.key)
    own = merge_step(subject).step.key.rpartition("/")[2]
    for name in ("abc", own):
        merge(store, one, name)
    printed = json.loads(said(capsys, "pull", one.key, "merged", str(folder), "--json", store=store))
    assert names(folder) == {"model.safetensors"}
    journal = json.loads((folder / JOURNAL).read_text())["files"]
    (source,) = [entry for name, entry in journal.items() if name == "model.safetensors"]
    assert own in json.dumps(source), printed


def test_two_merged_models_are_distinguished(store: Store, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = finished_run(store)
    merge(store, one, "abc")
    merge(store, one, "def")
    assert "merged-abc, merged-def" in said(capsys, "pull", one.key, "merged", str(folder), store=store, code=2)
    said(capsys, "pull", one.key, "merged-def", str(folder), store=store)
    assert (folder / "model.safetensors").read_bytes() == content("def", 100_000)


def test_answers_mean_the_only_ones_there_are(store: Store, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = finished_run(store)
    for own in ("abc", "def"):
        finish(store, StepKind.INFER, f"{one.key}/{own}")
        store.folder(StepKind.INFER, f"{one.key}/{own}").answers.write_text("{}\n")
        code = 0 if own == "abc" else 2
        printed = said(capsys, "pull", one.key, "answers", str(folder), store=store, code=code)
    assert names(folder) == {"answers-abc/answers.jsonl", "answers-abc/result.json"}
    assert "has 2 sets of answers: answers-abc, answers-def. Name one;" in printed
