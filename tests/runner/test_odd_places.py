"""A terminal without UTF-8, a store that cannot be written to or that disappears, a launcher that does not exist."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modal_app.store.layout import SAMPLES, Store
from modal_app.store.step import StepKind
from runner.cli import main
from runner.environment.verdicts import Verdicts
from runner.errors import SweepError
from runner.keys.content import ALWAYS_READ_BELOW_BYTES, ContentHashes
from runner.store.ledger import Event, Ledger, Record
from runner.store.stores import check_writable, while_it_exists
from tests.conftest import RecordingLaunch
from tests.runner.removing_store import trained

C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
TEXT = "Grüße, 日本"


def in_the_c_locale(*words: str) -> bytes:
    command = [sys.executable, "-m", "runner", *words]
    ended = subprocess.run(command, env={**os.environ, **C_LOCALE}, capture_output=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_text_can_be_printed_in_the_c_locale(tmp_path: Path) -> None:
    store = Store(tmp_path / "störe")
    sweep, (one,) = trained(store, 0.1)
    store.folder(StepKind.TRAIN, one.key).attempt(1).log.write_text(f"{TEXT}\n", encoding="utf-8")
    sample = {"split": "train", "row": 0, "segments": [{"text": TEXT, "trained": False}]}
    (store.prepared_dataset(one.data_key) / SAMPLES).write_text(json.dumps([sample]))
    escaped = TEXT.encode("ascii", "backslashreplace")
    assert TEXT.encode() in in_the_c_locale("logs", one.key, "--store", str(store.root)), "a log in a pipe is as it is"
    assert escaped in in_the_c_locale("data", one.data_key, "--store", str(store.root))
    page = store.sweeps / sweep / "report.html"
    assert os.fsencode(page) in in_the_c_locale("report", sweep, "--store", str(store.root)), "a path as it is"
    assert str(store.root) in page.read_text(encoding="utf-8")


def test_a_step_writes_any_text_to_its_log_in_the_c_locale(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    program = f"from pathlib import Path; from modal_app.process.attempt import redirect; redirect(Path({str(log)!r}))"
    subprocess.run(
        [sys.executable, "-c", f"{program}; print({TEXT!a}, flush=True)"],
        env={**os.environ, **C_LOCALE},
        check=True,
    )
    assert log.read_text(encoding="utf-8") == f"{TEXT}\n"


@pytest.mark.parametrize("place", ["/proc/nope", "/sys"])
def test_a_store_that_cannot_be_written_to_is_refused_before_axolotl_is_imported(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"store={place}", "lora=r8"]) == 2
    assert capsys.readouterr().err.startswith(f"axosweep: The store {place} cannot be ")


def test_the_home_folder_of_a_user_that_does_not_exist_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--store", "~no-such-user/out"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("axosweep: The home folder of a path that begins with ~ is unknown: there is no such user")


def test_what_can_be_found_again_is_not_stored_where_it_cannot_be_written(tmp_path: Path) -> None:
    """This allows a plan for such a store."""
    big = tmp_path / "rows.jsonl"
    with big.open("wb") as file:
        file.truncate(ALWAYS_READ_BELOW_BYTES + 1)
    hashes = ContentHashes(Path("/proc/nope/cache/hashes.json"))
    assert hashes.of(big)
    hashes.save()
    Verdicts(Path("/proc/nope/cache/verdicts.json"), "lock").save()


def test_looking_whether_a_store_can_be_written_to_leaves_nothing(tmp_path: Path) -> None:
    check_writable(Store(tmp_path / "new" / "store"))
    assert not list(tmp_path.iterdir())


def test_a_store_that_was_moved_away_is_one_message(store: Store) -> None:
    sweep, _ = trained(store, 0.1)
    shutil.move(store.root, store.root.with_name("elsewhere"))
    with pytest.raises(SweepError, match="was moved or removed while it was in use"), while_it_exists(store):
        Ledger(store, sweep).append(Record(Event.LAUNCHED))
    store.root.mkdir()
    with pytest.raises(FileNotFoundError), while_it_exists(store):
        Ledger(store, sweep).append(Record(Event.LAUNCHED))


@pytest.mark.parametrize("override", ["hydra.launcher._target_=foo", "hydra.sweeper._target_=hydra_plugins.nope.X"])
def test_a_launcher_that_hydra_does_not_find_is_one_message(override: str, ask: Callable[..., RecordingLaunch]) -> None:
    with pytest.raises(SweepError, match=r"Hydra cannot use this sweeper or launcher: .* hydra/launcher=NAME"):
        ask(override)
