"""The lines of the live view, for every width, and the time left above them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len

from modal_app.store.step import FailureReason, StepKind
from runner.show.fit import shortened, texts_of
from runner.show.headway import ExpectedSeconds, Headway, Timing, headway_of, run_left, seconds_left
from runner.show.line import Line
from runner.show.screen import Size, screen
from runner.store.run_state import RunStatus

NOW = 200.0
SWEEPS: dict[str, list[dict[str, Any]]] = {
    "numbers": [{"learning_rate": rate, "lora_r": rank} for rate in (1e-3, 3e-4) for rank in (8, 16)],
    "rates that are short alike": [{"learning_rate": 0.00012345671}, {"learning_rate": 0.00012345672}],
    "paths with one end": [{"base_model": f"/data/{team}/base-7b"} for team in ("here", "there", "nowhere")],
    "paths with one beginning": [{"datasets.0.path": f"/a/long/way/to/some/rows-{part}.jsonl"} for part in range(4)],
    "names with one end": [{"base_model": f"{who}/a-model-with-a-long-name-7b"} for who in ("us", "them", "others")],
    "many": [{f"parameter_{bit}": bool(number >> bit & 1) for bit in range(11)} for number in range(12)],
    "texts": [{"system_prompt": f"{'be brief ' * 30}{number}\n\x1b[2J", "seed": number} for number in range(3)],
    "wide letters": [{"dataset": f"数据集的名字很长很长很长很长-{number}"} for number in range(3)],
    "templates": [
        {"chat_template_jinja": f"{start}{'{{ m }} ' * 500}{part}{'{{ m }} ' * 500}", "seed": 1}
        for start, part in (("", "a"), ("", "b"), ("{% if m %}", "a"))
    ],
    "a wide name": [{"数据集的名字": number, "base_model": f"a-model-with-a-long-name-{number}b"} for number in (1, 7)],
    "what some lack": [{"warmup": 3}, {"warmup": None}],
}


def line(number: int, params: Mapping[str, Any], status: RunStatus = RunStatus.RUNNING, **rest: Any) -> Line:
    key = f"{number:012x}"
    timing = Timing(key, status, 0.4, started_at=100.0, logged_at=180.0)
    return Line(
        StepKind.TRAIN,
        key,
        key,
        status,
        None,
        step="82/206",
        loss=1.25,
        eval_loss=1.5,
        params=params,
        timing=timing,
        **rest,
    )


def headway(lines: list[Line]) -> Headway:
    return headway_of([one.timing for one in lines if one.timing], [], None, since=0.0, now=NOW)


@pytest.mark.parametrize("name", SWEEPS)
def test_at_every_width_each_run_has_one_line_and_no_two_look_the_same(name: str) -> None:
    lines = [line(number, params) for number, params in enumerate(SWEEPS[name])]
    for width in range(24, 140):
        drawn = [one.plain for one in screen(lines, headway(lines), Size(width, 24), now=NOW)]
        assert all(cell_len(one) <= width for one in drawn), width
        rows = [one for one in drawn if one.startswith("▸")]
        assert len(rows) == len(lines), width
        assert len({one.partition("82/206")[0] for one in rows}) == len(lines), (width, rows)
        assert "\x1b" not in "".join(drawn)


def test_what_differs_wins_over_the_status_and_the_message_takes_what_is_left() -> None:
    params = {"base_model": "/models/of/the/team/base-7b-instruct", "learning_rate": 0.001}
    failed = line(1, params, RunStatus.FAILED, message="CUDA out of memory")
    lines = [replace(failed, reason=FailureReason.OOM), line(2, {**params, "learning_rate": 0.002})]
    (going_on, ended), (brief, cut) = (
        [one.plain for one in screen(lines, headway(lines), Size(width, 24), now=NOW) if one.plain[:1] in "▸✗"]
        for width in (120, 44)
    )
    assert going_on.endswith("  running")
    assert ended.endswith("0.001  failed (oom): CUDA out of memory")
    assert "0.002" in brief
    assert "running" not in brief
    assert cut.endswith(" 0.001  failed (oom): CU…")


def test_values_are_cut_only_while_they_tell_runs_apart() -> None:
    assert shortened(["rows-a.jsonl", "rows-b.jsonl"], 2, "…") is None
    assert shortened(["rows-a.jsonl", "rows-b.jsonl"], 8, "…") == ("…a.jsonl", "…b.jsonl")
    assert texts_of([0.1234567, 0.1234568]) == ("0.1234567", "0.1234568"), "as `compare` shows them, they are one"


def runs(*statuses: RunStatus, **rest: Any) -> list[Timing]:
    return [Timing(f"k{number}", status, **rest) for number, status in enumerate(statuses)]


def test_waiting_runs_start_as_soon_as_a_place_is_free() -> None:
    waiting = runs(*[RunStatus.PENDING] * 5)
    expected = ExpectedSeconds({one.key: 100.0 for one in waiting}, boot_s=10.0, at_a_time=2)
    assert seconds_left(waiting, expected, NOW) == 330.0, "three after each other, each in a container of its own"
    assert seconds_left(waiting, None, NOW) is None
    assert seconds_left([], expected, NOW) == 0.0


def test_a_run_is_believed_more_than_the_plan_the_further_it_is() -> None:
    expected = ExpectedSeconds({"k0": 100.0})
    begun = Timing("k0", RunStatus.RUNNING, 0.0, started_at=150.0)
    assert run_left(begun, [begun], expected, NOW) == 50.0
    far = replace(begun, part=0.5, logged_at=190.0, startup_s=20.0)
    assert run_left(far, [far], expected, NOW) == 20.0 + 20 / 0.5 - 50, (
        "its 20 s of start, and half of its steps in 20 s"
    )
    late = replace(begun, started_at=50.0)
    assert run_left(late, [late], expected, NOW) is None, "it takes longer than the plan said"


def test_a_resumed_run_is_measured_by_the_steps_of_its_own_attempt() -> None:
    resumed = Timing("k0", RunStatus.RUNNING, 0.75, started_at=100.0, logged_at=NOW, resumed_part=0.5)
    assert run_left(resumed, [resumed], None, NOW) == pytest.approx(100.0), "a quarter took 100 s, a quarter is left"


def test_runs_of_an_earlier_launch_say_nothing_about_the_present_speed() -> None:
    done = Timing("k0", RunStatus.SUCCEEDED, 1.0, started_at=0.0, ended_at=100.0)
    waiting = Timing("k1", RunStatus.PENDING)
    assert seconds_left([done, waiting], None, NOW) == 100.0
    assert seconds_left([replace(done, before=True), waiting], None, NOW) is None
