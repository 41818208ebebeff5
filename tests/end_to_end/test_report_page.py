"""The report in a browser: what a person sees, sorts and brushes, for a real sweep and for a large synthetic one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app.store.layout import Store, after_key
from runner.html_report.page import write_report
from runner.html_report.place import report_path
from runner.store.ledger import sweep_ids
from runner.types import Plan
from tests.browser import Browser, chromium, needs_chromium
from tests.end_to_end.axosweep import UNPADDED, Axosweep
from tests.end_to_end.own_code import UNFORESEEN, write_failing_plugin
from tests.report_in_browser import KEYS, brush, opened
from tests.runner.report_store import HOSTILE, RunsByStatus, answered, sweep_of_every_kind, synthetic_sweep
from tests.runner.where_store import SECRET, two_runs

pytestmark = [pytest.mark.slow, needs_chromium]

FEW = ("data.limit=200", "micro_batch_size=4", UNPADDED, "tracking=disabled")
SCREENS = [(1280, False), (390, True)]
"""Both widths and both colour schemes: no rule of the style is about a width and a scheme together."""
OPENS_IN_CPU_S = 2.0

HEADWAY = "return byId('headway').innerText.trim()"
CUT_OFF = """
  const bad = [];
  for (const svg of document.querySelectorAll('.chart svg')) {
    const frame = svg.getBoundingClientRect();
    for (const text of svg.querySelectorAll('text')) {
      const box = text.getBoundingClientRect();
      if (!text.textContent || !box.width) continue;
      const out = [frame.left - box.left, box.right - frame.right, frame.top - box.top, box.bottom - frame.bottom];
      if (Math.max(...out) > 1) bad.push(`${svg.closest('section').id}: ${text.textContent}`);
    }
  }
  return bad;
"""
OVERLAPPING = """
  const bad = [];
  const isLevel = text => text.textContent && !/rotate|matrix/.test(text.getAttribute('transform') || '');
  for (const svg of document.querySelectorAll('.chart svg')) {
    const all = [...svg.querySelectorAll('text')].filter(isLevel).map(text => [text, text.getBoundingClientRect()]);
    all.forEach(([text, box], at) => all.slice(at + 1).forEach(([other, its]) => {
      const across = Math.min(box.right, its.right) - Math.max(box.left, its.left);
      const down = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
      if (across > 1 && down > 3) bad.push(`${svg.closest('section').id}: ${text.textContent} / ${other.textContent}`);
    }));
  }
  return bad;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a synthetic sweep of 200 runs of 1,000 steps."""
    store = Store(tmp_path_factory.mktemp("large") / "store")
    return write_report(store, synthetic_sweep(store, 200, points=1000).sweep)


@pytest.fixture(scope="module")
def of_30(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a sweep of 30 runs of 100 steps, for questions that are not about its size."""
    store = Store(tmp_path_factory.mktemp("of-30") / "store")
    return write_report(store, synthetic_sweep(store, 30, points=100).sweep)


@pytest.fixture
def every_kind(tmp_path: Path) -> Iterator[tuple[Store, Plan, RunsByStatus]]:
    store = Store(tmp_path / "kinds")
    with sweep_of_every_kind(store) as (planned, by_status):
        yield store, planned, by_status


def is_whole(browser: Browser, page: Path, width: int) -> None:
    assert browser.console() == []
    assert [one for one in browser.requests() if not one.startswith("data:")] == [page.as_uri()]
    assert browser.run("return document.documentElement.scrollWidth") == width, "nothing is wider than the screen"
    assert browser.run(CUT_OFF) == []
    assert browser.run(OVERLAPPING) == []


def opening_s(browser: Browser, page: Path, width: int, *, dark: bool) -> float:
    """The processor time of opening and drawing it."""
    browser.open("about:blank")
    before = browser.cpu_seconds()
    opened(browser, page, width, dark=dark)
    return browser.cpu_seconds() - before


@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_a_large_report_opens_at_once_complete_and_without_errors(
    browser: Browser, large: Path, width: int, dark: bool
) -> None:
    assert any(opening_s(browser, large, width, dark=dark) < OPENS_IN_CPU_S for _ in range(3))
    is_whole(browser, large, width)
    assert browser.run("return report.runs.length") == len(browser.run(KEYS)) == 200
    drawn = browser.run(
        "return [...document.querySelectorAll('.chart')].filter(one => one.querySelector('svg')).length"
    )
    assert drawn >= 9


def test_a_click_on_a_heading_sorts_and_another_turns_it_round(browser: Browser, of_30: Path) -> None:
    opened(browser, of_30)
    by_loss = browser.run(KEYS)
    click = "[...document.querySelectorAll('#table th button')].find(one => one.textContent === 'dollars').click()"
    browser.run(click)
    cheapest_first = browser.run(KEYS)
    dollars = browser.run("return Object.fromEntries(report.runs.map(run => [run.key, run.dollars]))")
    assert cheapest_first == sorted(by_loss, key=lambda key: dollars[key]) != by_loss
    browser.run(click)
    spent = [dollars[key] for key in browser.run(KEYS)]
    assert spent == sorted(spent, reverse=True)
    assert browser.run("return document.querySelector('th[aria-sort]').ariaSort") == "descending"


def test_a_container_tells_why_it_took_no_further_run_as_text_without_secrets(browser: Browser, of_30: Path) -> None:
    opened(browser, of_30)
    rows = browser.run(
        "return [...byId('time-containers').rows].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("container", "runs", "ended because"),
        ("ta-0", "1", f"{HOSTILE} ***"),
    ]
    assert browser.run("return document.images.length") == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_a_drag_along_an_axis_keeps_only_the_runs_that_pass_there(browser: Browser, of_30: Path, width: int) -> None:
    opened(browser, of_30, width)
    browser.run("byId('parallel-chart').scrollIntoView({block: 'center'})")
    brush(browser, "lora_r", 3, 4)  # positions of 32 and 64
    browser.wait(f"return ({KEYS.removeprefix('return ')}).length < 30")
    ranks = browser.run("return Object.fromEntries(report.runs.map(run => [run.key, run.params.lora_r]))")
    assert sorted(browser.run(KEYS)) == sorted(key for key, rank in ranks.items() if rank in (32, 64))
    assert "of 30 runs" in browser.run("return byId('shown').textContent")
    browser.wait(f"return byId('curve-note').textContent.startsWith('{len(browser.run(KEYS))} of 30 runs')")
    browser.look(width - 40)
    browser.wait("return drawnWidth === page.clientWidth && charts.get(byId('curve-chart')).getWidth() <= drawnWidth")
    assert sorted(browser.run(KEYS)) == sorted(key for key, rank in ranks.items() if rank in (32, 64))
    assert browser.run("return openIntervals(charts.get(byId('parallel-chart'))).filter(one => one.length).length") == 1
    browser.run("byId('clear').click()")
    assert len(browser.run(KEYS)) == 30
    assert browser.console() == []


def test_curves_are_drawn_against_the_requested_axis(browser: Browser, of_30: Path) -> None:
    opened(browser, of_30)
    change = "const one = byId(arguments[0]); one.value = arguments[1]; one.dispatchEvent(new Event('input'))"
    extent = "return charts.get(byId('curve-chart')).getModel().getComponent('xAxis').axis.scale.getExtent()[1]"
    ends = {}
    for axis in ("step", "tokens", "seconds", "dollars"):
        browser.run(change, "curve-x", axis)
        ends[axis] = browser.run(extent)
    assert ends["step"] == 100
    assert ends["tokens"] == 100 * 4096
    assert 100 < ends["seconds"] < 200
    assert 0.1 < ends["dollars"] < 0.3
    shown = "charts.get(byId('curve-chart')).getOption().tooltip[0].formatter({seriesIndex: 3, value: [7, 0.5]})"
    tip = browser.run(f"return {shown}.textContent")
    assert tip.startswith(browser.run("return report.runs[1].name"))
    assert "eval loss" in tip
    rough = browser.run("return charts.get(byId('curve-chart')).getOption().series[0].data.map(one => one[1])")
    browser.run(change, "curve-smooth", "0.98")
    smooth = browser.run("return charts.get(byId('curve-chart')).getOption().series[0].data.map(one => one[1])")
    assert roughness(smooth) < roughness(rough) / 2
    browser.run("byId('curve-logy').click(); byId('curve-logx').click()")
    assert browser.run("return charts.get(byId('curve-chart')).getOption().yAxis[0].type") == "log"
    assert browser.console() == []


def roughness(values: list[float]) -> float:
    return sum(abs(one - 2 * two + three) for one, two, three in zip(values, values[1:], values[2:], strict=False))


@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_answers_stand_side_by_side_and_are_text_whatever_they_say(
    browser: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    store = Store(tmp_path / "store")
    plan = synthetic_sweep(store, 6, points=10)
    options = {"prompts": "inputs/a.jsonl", "greedy": True, "max_tokens": 9, "base": "b"}
    said = [HOSTILE, "two\nlines", "one_long_word" * 40]
    for planned in plan.runs:
        answered(store, after_key(planned.run.key, "1"), options, said, "two\nlines")
    answered(store, after_key("", "2"), options, ["", "", ""], "two\nlines")
    page = write_report(store, plan.sweep)
    opened(browser, page, width, dark=dark)
    is_whole(browser, page, width)
    rows = browser.run(
        "return [...document.querySelectorAll('#answer-sets tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )
    assert [len(row) for row in rows] == [2 + 1 + 6] * 3
    assert rows[0][:4] == ["question 0", "two\nlines", "✗ ", f"✗ {HOSTILE}"]
    assert rows[1][3] == "✓ two\nlines"
    first = browser.run("return document.querySelector('#answer-sets thead').rows[0].cells[2].textContent")
    assert first == "basethe base model0 of 3 right"


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_rows_that_moved_most_are_text_whatever_they_say(
    browser: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    store = Store(tmp_path / "store")
    second, best = two_runs(store, text=f"{HOSTILE} {SECRET} {'one_long_word' * 40}")
    page = write_report(store, sweep_ids(store)[0])
    opened(browser, page, width, dark=dark)
    browser.run("document.querySelectorAll('#where details').forEach(one => { one.open = true; })")
    is_whole(browser, page, width)
    assert SECRET not in page.read_text()
    tables = browser.run(
        "return [...document.querySelectorAll('#where table')]"
        ".map(table => [...table.rows].map(row => [...row.cells].map(cell => cell.textContent)))"
    )
    parts, better, worse = tables
    assert [row[:3] for row in parts[1:3]] == [["all", "all rows", "30"], ["by dataset", "my/rows.jsonl", "15"]]
    assert parts[1][5] == "+0.0792", "above 0, since the second setting is worse"
    assert [len(rows) - 1 for rows in (better, worse)] == [10, 5]
    assert HOSTILE in better[1][0]
    assert better[2][2:4] == [f"8 by {best.key}", f"8 by {second.key}"]
    assert browser.run("return document.images.length") == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_every_kind_of_run_is_shown_as_what_it_is_and_no_markup_gets_in(
    browser: Browser, every_kind: tuple[Store, Plan, RunsByStatus], width: int
) -> None:
    store, planned, by_status = every_kind
    page = write_report(store, planned.sweep)
    opened(browser, page, width)
    is_whole(browser, page, width)
    shown = browser.run(
        "return Object.fromEntries([...document.querySelectorAll('#table tbody tr')]"
        ".map(row => [row.dataset.key, row.querySelector('.status').textContent]))"
    )
    expected = {
        by_status.failed.key: "failed (oom)",
        by_status.diverged.key: "diverged (NaN)",
        by_status.running.key: "running",
        by_status.blocked.key: "blocked",
        by_status.pending.key: "pending",
    }
    assert {key: shown[key] for key in expected} == expected
    assert HOSTILE in browser.run("return document.querySelector('#failure-list').textContent")
    assert browser.run("return document.images.length") == 0
    cross = browser.run(
        "return charts.get(byId('curve-chart')).getOption().series"
        ".filter(one => one.markPoint?.data?.length).map(one => one.name)"
    )
    assert cross == [f"{by_status.diverged.key} train"]


def test_a_report_on_paper_is_light_and_has_every_row(browser: Browser, of_30: Path, tmp_path: Path) -> None:
    opened(browser, of_30, dark=True)
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("return byId('parallel-chart').clientWidth") <= 700
    assert browser.run("return [...document.querySelectorAll('main details:not(.menu)')].every(one => one.open)")
    browser.run("window.dispatchEvent(new Event('afterprint'))")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    browser.print(tmp_path / "report.pdf")
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes())) > 3


def test_watch_serves_only_this_machine_refreshes_and_ends_with_the_sweep(browser: Browser, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with sweep_of_every_kind(store) as (planned, by_status):
        command = Axosweep(store, tmp_path)
        watching = command.start("watch", planned.sweep)
        try:
            assert watching.stdout is not None
            address = re.search(r"http://127\.0\.0\.1:\d+/", watching.stdout.readline())
            assert address is not None
            assert refused(address[0], "evil.example")
            browser.look(1280)
            browser.open(address[0])
            browser.wait("return document.documentElement.dataset.drawn")
            word = f"return document.querySelector('tr[data-key=\"{by_status.running.key}\"] .status').textContent"
            assert browser.run(word) == "running"
            assert re.search(r"^\d of \d done.*, 1 running; \d+:\d\d(:\d\d)? elapsed", browser.run(HEADWAY))
            assert 0 < browser.run("return byId('headway-bar').value") < 1
            browser.wait("return performance.getEntriesByType('resource').length > 0")  # it has asked once already
        except BaseException:
            os.kill(watching.pid, signal.SIGKILL)
            raise
    # The claim is released without a result: the run is lost, and only this process still looks at the sweep.
    forget_launcher(store, planned.sweep)
    browser.wait(f"return ({word.removeprefix('return ')}) === 'lost'", timeout_s=20)
    assert browser.run("return byId('headway').hidden"), "it is over"
    said = watching.communicate(timeout=20)[0]
    assert watching.returncode == 0, said
    assert str(report_path(store, planned.sweep)) in said
    assert report_path(store, planned.sweep).exists()


def refused(address: str, name: str) -> bool:
    """Whether a foreign page, under a name that resolves to this machine, is refused."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, headers={"Host": name}), timeout=10)
    except urllib.error.HTTPError as error:
        return error.code == 403
    return False


def forget_launcher(store: Store, sweep: str) -> None:
    """As if the launcher, which is this process, had ended."""
    path = store.sweeps / sweep / "records.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"facts": {}}) + "\n" for row in rows))


def test_a_real_sweep_leaves_its_report_and_is_complete_in_it(browser: Browser, axosweep: Axosweep) -> None:
    plugin = write_failing_plugin(axosweep.folder)
    words = ("-m", "learning_rate=1e-3,1e-2", f"plugins=[],[{plugin}]", *FEW, "max_steps=8")
    done = axosweep.run(*words)
    assert done.returncode == 1, done.stderr
    (sweep,) = [path.name for path in axosweep.store.sweeps.iterdir()]
    page = report_path(axosweep.store, sweep)
    assert f"Report: {page}" in done.stdout, done.stderr
    rows = axosweep.json("compare", sweep)["runs"]
    for width, dark in SCREENS:
        opened(browser, page, width, dark=dark)
        is_whole(browser, page, width)
    assert browser.run(KEYS) == [row["key"] for row in rows]
    losses = browser.run("return Object.fromEntries(report.runs.map(run => [run.key, run.curves.eval?.y ?? []]))")
    for row in rows:
        if row["status"] == "succeeded":
            assert losses[row["key"]][0] == pytest.approx(row["first"], rel=1e-5)
            assert losses[row["key"]][-1] == pytest.approx(row["final"], rel=1e-5)
    failed = [row["key"] for row in rows if row["status"] == "failed"]
    assert len(failed) == 2
    told = browser.run("return Object.fromEntries(report.failures.map(one => [one.key, one.message + one.tail]))")
    assert set(told) == set(failed)
    assert all(UNFORESEEN in said for said in told.values())
    receipt = browser.run("return report.receipt")
    assert 0 < receipt["training_share"] < 1
    assert {"prepare", "load", "first step", "train", "evaluate", "save"} <= set(receipt["parts"])
    again = axosweep.run(*words)
    assert f"Report: {page}" in again.stdout


def test_a_report_that_cannot_be_written_does_not_fail_its_sweep(axosweep: Axosweep) -> None:
    words = ("lora=r4", "max_steps=2", *FEW)
    planned = json.loads(axosweep.run("plan", *words, "--json").stdout)
    report_path(axosweep.store, planned["sweep"]).mkdir(parents=True)
    done: subprocess.CompletedProcess[str] = axosweep.run(*words)
    assert done.returncode == 0, done.stderr
    assert "No report was written" in done.stdout
