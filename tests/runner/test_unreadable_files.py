"""A small file of a store that cannot be read: it is skipped and named once, and every verb goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app.serving.spec import SERVED
from modal_app.store.layout import SEEN, STEPS, SUBMISSION, Store, after_key
from modal_app.store.read_json import read_json
from modal_app.store.state import Phase, is_done, observe, record_exit
from modal_app.store.step import Step, StepKind, write_atomically
from runner.cli import main
from runner.launch.plan import make_plan
from runner.store.ledger import Ledger, sweep_ids
from runner.types import Run
from tests.runner.builders import begin_attempt, finish
from tests.runner.removing_store import Command, asked_after, kept_input, keys, trained
from tests.runner.run_files_store import merge

GARBAGE = (b"\x00\xff{cut", b"{}", b'{"other": [1]}', b"[1]")
VERBS = (
    ("status",),
    ("compare", "--all"),
    ("compare", "bad"),
    ("best", "bad"),
    ("ls", "RUN"),
    ("logs", "RUN"),
    ("data",),
    ("report", "bad", "--out", "OUT"),
    ("rm", "RUN", "--dry-run"),
    ("gc", "--dry-run"),
    ("cancel", "RUN"),
    ("pull", "RUN", "OUT-pulled"),
)


def small_files(store: Store, sweep: str, one: Run) -> Iterator[Path]:
    """Every kind of small file of a sweep and its run that commands read."""
    folder, attempt = store.folder(StepKind.TRAIN, one.key), store.folder(StepKind.TRAIN, one.key).attempt(1)
    yield from (store.sweeps / sweep / name for name in ("plan.json", SUBMISSION, SEEN, f"after-0a1b2c/{STEPS}"))
    yield from (folder.identity, folder.done, folder.metrics, folder.config, folder.tracking, folder.manifest)
    yield from (attempt.started, attempt.result, attempt.exit, attempt.train_state, attempt.container, attempt.step)
    yield from (folder.model / "adapter_config.json", folder.containers / "ta-1.json")
    yield folder.model / "checkpoint-10" / "complete.json"
    yield from (store.manifest(one.data_key), store.prepared_dataset(one.data_key) / "samples.json")
    yield from (folder.path / "evaluate" / "own" / "result.json", folder.path / "infer" / "own" / "result.json")
    yield folder.path / "infer" / "own" / "answers.jsonl"
    yield store.root / SERVED / "1-a.json"
    yield store.sweeps / sweep / "rungs" / "0a1b2c" / "terms.json"


def prepare(store: Store) -> tuple[str, Run, Run]:
    _, (good,) = trained(store, 0.1, name="good")
    sweep, (bad,) = trained(store, 0.2, name="bad")
    merge(store, bad, "abc")
    for kind in (StepKind.INFER, StepKind.EVALUATE):
        finish(store, kind, after_key(bad.key, "own"))
    asked_after(store, sweep, Step(StepKind.MERGE, after_key(bad.key, "abc"), {}, bad.data_key, run=bad.key))
    return sweep, good, bad


@pytest.mark.medium
def test_one_unreadable_file_ends_no_verb_and_is_named_once(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, good, bad = prepare(store)
    for path in small_files(store, sweep, bad):
        before = path.read_bytes() if path.exists() else None
        path.parent.mkdir(parents=True, exist_ok=True)
        for content in GARBAGE:
            path.write_bytes(content)
            assert main(["compare", "--all", "--store", str(store.root)]) == 0, path
            shown = capsys.readouterr()
            assert good.key in shown.out, "the other sweep is shown"
            assert shown.err.count(f"{path} cannot be read") <= 1, "named once"
        assert main(["gc", "--dry-run", "--store", str(store.root)]) == 0, path
        path.write_bytes(before) if before is not None else path.unlink()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"axolotl": []}, "its axolotl is not an object"),
        ({"gpu": "h100"}, "its gpu is not an object"),
        ({"inputs": ["rows.jsonl"]}, "an entry of its inputs is not an object"),
        ({"from": {"run": "0a1b2c"}}, "it lacks 'step'"),
        ({"runs": 5}, "'int' object is not iterable"),
        ({"created_at": math.inf}, "its created_at is not a date"),
        ({"created_at": math.nan}, "its created_at is not a date"),
        ({"created_at": 1e300}, "its created_at is not a date"),
        ({"runs": [{"key": "0a1b2c", "data_key": "0a1b2c", "overrides": [1]}]}, "a key or an override of a run is not"),
    ],
)
def test_a_part_of_another_type_makes_a_file_unreadable(
    store: Store, changed: dict[str, object], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, good, bad = prepare(store)
    path = (
        store.sweeps / sweep / "plan.json"
        if changed.keys() & {"runs", "created_at"}
        else store.folder(StepKind.TRAIN, bad.key).identity
    )
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    for words in (["compare", "--all"], ["report", "good", "--out", f"{tmp_path}/out"], ["rm", good.key, "--dry-run"]):
        assert main([*words, "--store", str(store.root)]) == 0, words
    shown = capsys.readouterr()
    assert good.key in shown.out
    assert shown.err.count(f"{path} cannot be read ({why}") == 1, "named once"
    assert main(["gc", "--dry-run", "--store", str(store.root)]) == 0
    assert "cannot be read" in capsys.readouterr().out, "what it may refer to is kept"
    for words in (["status"], ["best", "bad"], ["report", "bad", "--out", f"{tmp_path}/out"], ["ls", bad.key]):
        assert main([*words, "--store", str(store.root)]) in (0, 2), words


@pytest.mark.parametrize(
    "steps",
    [
        "{", '{"steps": []}', '{"steps": {"a": 1}}', '{"steps": {"a": "x"}}', '{"steps": {"a": "[]"}}',
        json.dumps({"steps": {"a": '{"kind": "merge", "key": 5}'}}),
    ],
)  # fmt: skip
def test_gc_removes_no_input_that_submitted_steps_which_cannot_be_read_may_need(
    store: Store, steps: str, command: Command
) -> None:
    sweep, (one,) = trained(store, 0.1)
    kept_input(store, "0123456789abcdef-rows.jsonl")
    asked_after(store, sweep, Step(StepKind.MERGE, after_key(one.key, "abc"), {}, one.data_key, run=one.key))
    assert keys(command("gc", "--dry-run", "--json")) == {"0123456789abcdef-rows.jsonl"}
    (path,) = (store.sweeps / sweep).glob(f"after-*/{STEPS}")
    path.write_text(steps)
    found = command("gc", "--dry-run", "--json")
    assert not keys(found)
    assert [one["key"] for one in found["kept"]] == [path.relative_to(store.root).as_posix()]


@pytest.mark.parametrize("content", GARBAGE)
def test_a_store_full_of_unreadable_files_ends_no_verb(
    store: Store, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, _, bad = prepare(store)
    paths = [path for path in small_files(store, sweep, bad) if path.name != "plan.json"]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for words in VERBS:
        filled = [word.replace("RUN", bad.key).replace("OUT", str(tmp_path / "out")) for word in words]
        assert main([*filled, "--store", str(store.root)]) in (0, 2), words
    capsys.readouterr()


def test_a_report_is_written_of_answers_and_a_config_that_are_none(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, bad = prepare(store)
    store.folder(StepKind.TRAIN, bad.key).config.write_bytes(GARBAGE[0])
    answers = store.folder(StepKind.INFER, after_key(bad.key, "own")).answers
    answers.write_bytes(b'{"other": [1]}')
    assert main(["report", "bad", "--out", str(tmp_path / "out.html"), "--store", str(store.root)]) == 0
    assert f"{answers} cannot be read (a line is not an answer)" in capsys.readouterr().err


def test_a_run_whose_result_cannot_be_read_has_not_succeeded(store: Store, command: Command) -> None:
    _, (one,) = trained(store, 0.1, name="swept")
    folder = store.folder(StepKind.TRAIN, one.key)
    for content in (*GARBAGE, b""):
        folder.done.write_bytes(content)
        state = observe(store, StepKind.TRAIN, one.key)
        assert (state.phase, is_done(folder)) == (Phase.LOST, False)
        assert state.outcome is not None
        assert "result.json cannot be read" in state.outcome.message
    plan = make_plan([one], "again", lambda kind, key: is_done(store.folder(kind, key)))
    assert [planned.run.key for planned in plan.pending] == [one.key], "it is trained again"
    (row,) = command("compare", "--json")["runs"]
    assert (row["status"], row["reason"]) == ("lost", "lost")
    assert not keys(command("rm", "--checkpoints", "--dry-run", "--json")), "it resumes from its checkpoints"
    assert "has not finished" in command("merge", one.key, code=2)


def test_an_attempt_whose_files_cannot_be_read_is_lost(store: Store) -> None:
    _, (one,) = trained(store, 0.1)
    folder = store.folder(StepKind.TRAIN, one.key)
    folder.done.unlink()
    attempt = begin_attempt(store, StepKind.TRAIN, one.key)
    for path in (attempt.result, attempt.exit, attempt.started):
        path.write_bytes(b'{"code": "none", "at": "noon", "pid": []}')
    state = observe(store, StepKind.TRAIN, one.key)
    assert state.phase is Phase.LOST
    assert state.outcome is not None
    assert "cannot be read" in state.outcome.message
    record_exit(store, StepKind.TRAIN, one.key, 1, -9)


def test_a_plan_that_cannot_be_read_is_written_again_by_a_launch(store: Store, command: Command) -> None:
    sweep, (one,) = trained(store, 0.1)
    path = store.sweeps / sweep / "plan.json"
    before = json.loads(path.read_text())
    path.write_bytes(b"")
    assert f"{path} cannot be read" in command("compare", sweep, code=2)
    assert sweep_ids(store) == []
    plan = make_plan([one], "swept", lambda *_: True)
    assert plan.sweep == sweep
    Ledger(store, sweep).open(plan, "axosweep -m")
    assert json.loads(path.read_text())["runs"] == before["runs"]


def test_nothing_is_collected_while_a_file_cannot_be_read_that_may_refer_to_it(store: Store, command: Command) -> None:
    sweep, (one,) = trained(store, 0.1)
    kept_input(store, "0123456789abcdef-rows.jsonl")
    spare = store.prepared_dataset("unused")
    spare.mkdir()
    (spare / "rows").write_text("rows")
    for path in (store.sweeps / sweep / "plan.json", store.folder(StepKind.TRAIN, one.key).identity):
        before = path.read_text()
        path.write_text("{")
        found = command("gc", "--yes", "--json")
        assert not keys(found)
        assert [kept["key"] for kept in found["kept"]] == [path.relative_to(store.root).as_posix()]
        path.write_text(before)
    assert keys(command("gc", "--yes", "--json")) == {"unused", "0123456789abcdef-rows.jsonl"}


def test_a_note_of_a_server_that_cannot_be_read_does_not_stop_rm(store: Store, command: Command) -> None:
    _, (one,) = trained(store, 0.1)
    (store.root / SERVED).mkdir()
    write_atomically(store.root / SERVED / "1-a.json", "served")
    assert keys(command("rm", one.key, "--yes", "--json")) == {one.key}


def test_a_file_is_named_once_and_a_lenient_reader_names_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "facts.json"
    assert read_json(path) == {}, "no file is no problem"
    path.write_text("[1]")
    assert read_json(path, lenient=True) == {}
    assert capsys.readouterr().err == ""
    assert [read_json(path), read_json(path)] == [{}, {}]
    assert capsys.readouterr().err == f"{path} cannot be read (it is not a JSON object); it is skipped.\n"
    path = tmp_path / "folder.json"
    path.mkdir()
    assert read_json(path) == {}
    assert "Is a directory" in capsys.readouterr().err
