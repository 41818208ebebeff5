"""The controls of a report in a browser: brush, group, colour, filter, columns, copies, keys, phone, accessibility."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from runner.api.sweeps import load
from runner.compare.select import conditions, select
from runner.compare.source import facts_of_sweep
from runner.compare.table import interval
from runner.console.numbers import difference, loss, number
from runner.cost.spent import money
from runner.estimate.words import span
from runner.html_report.page import write_report
from runner.html_report.verdict import lead
from runner.store.ledger import sweep_ids
from runner.types import Plan
from tests.browser import Browser, chromium, needs_chromium
from tests.report_in_browser import KEYS, brush, choose, opened, option, seen
from tests.runner.halved_store import halved_sweep
from tests.runner.report_store import HOSTILE, sweep_of_every_kind, sweep_over_seeds, synthetic_sweep
from tests.runner.where_store import two_runs

pytestmark = [pytest.mark.slow, needs_chromium]

AXE = Path(__file__).parent.parent / "vendor/axe-core/axe.min.js"
VIOLATIONS = """
  return axe.run(document, {resultTypes: ['violations']}).then(found =>
    found.violations.map(one => [one.id, ...one.nodes.map(node => node.target.join(' '))].join(': ')));
"""
CONTRAST = """
  const light = rgb => rgb.map(one => one / 255)
    .map(one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const rgb = text => text.match(/\\d+/g).slice(0, 3).map(Number);
  const back = light(rgb(getComputedStyle(document.body).backgroundColor));
  const ratio = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const contrast = text => ratio(light(rgb(text)), back);
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Plan, Path]:
    """Two ranks x two rates x three seeds."""
    store = Store(tmp_path_factory.mktemp("seeds") / "store")
    planned = sweep_over_seeds(store)
    return store, planned, write_report(store, planned.sweep)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Plan, Path]:
    store = Store(tmp_path_factory.mktemp("many") / "store")
    planned = synthetic_sweep(store, 30, points=20)
    return store, planned, write_report(store, planned.sweep)


def cells(browser: Browser) -> list[list[str]]:
    """The texts of the table, its headings first."""
    rows: list[list[str]] = browser.run(
        "return [...byId('table').rows].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return rows


def test_numbers_are_written_as_on_the_terminal(browser: Browser, seeds: tuple[Store, Plan, Path]) -> None:
    seen(browser, seeds[2])
    values = [0.0, 1.0, 0.5, 1.5, 2.5, 0.125, 0.375, 1e-4, 3e-4, 1e-5, 1.23456789e-7, 2e6, 123456789.0, 1e15, 1e20]
    values += [100000.5, 1 / 3, 999999.5, 0.99999951, 12.345, 59.95, 119.5, 7199.0, 7200.0, 90000.0, 0.00005, 0.09996]
    values += [1.00005, 2.00015, 1234567.891, -0.5, -1e-9, 8, 64, 4096000000]
    python = {"number": number, "loss": loss, "difference": difference, "money": money, "duration": span}
    for name, write in python.items():
        shown = browser.run(f"return arguments[0].map({name})", values)
        assert dict(zip(values, shown, strict=True)) == {one: write(one) for one in values}, name


def test_the_card_shows_the_best_setting_with_spread_gain_dollars_and_answers(
    browser: Browser, seeds: tuple[Store, Plan, Path]
) -> None:
    seen(browser, seeds[2])
    best = browser.run("return report.card")
    said = browser.run("return byId('card').innerText")
    assert "learning_rate=0.001 lora_r=32" in said or "learning_rate=0.0001 lora_r=32" in said
    assert f"± {loss(best['sd'])} over 3 seeds, {loss(best['low'])} to {loss(best['high'])}" in said
    assert f"gain over the base model\n{loss(best['before'] - best['mean'])}\n" in said
    assert f"{money(best['dollars'])}\nof {money(best['cost'])} for the sweep" in said
    answers = browser.run(
        "return [...document.querySelectorAll('#card tbody tr')].map(row => [...row.cells].map(one => one.textContent))"
    )
    assert answers == [
        ["question 0", "✗ The captain is Bo.", "✗ The captain is Ana."],
        ["question 1", "✗ No", "✓ Yes"],
    ]


def test_importance_is_a_bar_and_time_is_sorted_with_the_queue_apart(
    browser: Browser, seeds: tuple[Store, Plan, Path]
) -> None:
    seen(browser, seeds[2])
    shares = browser.run("return report.analysis.effects.map(one => Math.max(0, one.importance))")
    drawn = browser.run(
        "return [...document.querySelectorAll('#importance .bar')]"
        ".map(bar => bar.getBoundingClientRect().width / bar.parentElement.getBoundingClientRect().width)"
    )
    assert drawn == pytest.approx(shares, abs=0.01)
    assert shares[0] > 0
    series: list[dict[str, Any]] = option(browser, "time-chart", "series")
    apart = {one["name"]: one["xAxisIndex"] for one in series}
    assert apart.pop("queue") == 1
    assert set(apart.values()) == {0}
    paid = [sum(seconds) for seconds in zip(*(one["data"] for one in series if one["name"] != "queue"), strict=True)]
    assert paid == sorted(paid, reverse=True)
    assert option(browser, "time-chart", "yAxis[0].inverse"), "the first is at the top"
    assert next(one["data"] for one in series if one["name"] == "queue") == [pytest.approx(60.0, abs=12.0)] * 12


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_leads_with_the_verdict_and_draws_each_interval_where_it_is(
    browser: Browser, seeds: tuple[Store, Plan, Path], width: int
) -> None:
    store, planned, page = seeds
    seen(browser, page, width)
    (verdict,) = load(planned.sweep, store=str(store.root)).verdicts()
    head = browser.run("return document.querySelector('header').innerText")
    assert head.index(lead(verdict)) < head.index("gain over the base model")
    rows = browser.run(
        "return [...document.querySelectorAll('.forest tbody tr')].map(row => [...row.cells].map(one => one.innerText))"
    )
    assert [row[0].removeprefix("★ ") for row in rows] == [one.name for one in verdict.settings]
    assert [row[0].startswith("★") for row in rows] == [one.in_best_group for one in verdict.settings]
    assert [row[3] for row in rows][1:] == [interval(one) for one in verdict.settings][1:]
    drawn = browser.run(
        "return [...document.querySelectorAll('.forest svg')].map(one => ['.zero', '.span', 'circle'].map(part => {"
        " const box = one.querySelector(part)?.getBoundingClientRect(); return box ? [box.left, box.right] : null; }))"
    )
    for one, (zero, bar, dot) in zip(verdict.settings, drawn, strict=True):
        assert (bar[0] > zero[1]) is (one.low > 0), "an interval crosses the line where it has a zero"
        assert dot is None or bar[0] - 6 <= (dot[0] + dot[1]) / 2 <= bar[1] + 6
    assert browser.run("return [...document.querySelectorAll('.forest svg title')].every(one => one.textContent)")


def test_a_phone_shows_every_loss_and_the_card_without_scrolling_sideways(
    browser: Browser, many: tuple[Store, Plan, Path], seeds: tuple[Store, Plan, Path]
) -> None:
    seen(browser, seeds[2], 390)
    assert browser.run("const one = document.querySelector('#card .wide'); return one.scrollWidth <= one.clientWidth")
    opened(browser, many[2], 390)
    losses = browser.run(
        "return [...byId('table').rows].map(row => row.cells[1]).map("
        "cell => [cell.textContent, cell.getBoundingClientRect().right])"
    )
    assert losses[0][0] == "eval_loss"
    assert [text for text, _ in losses[1:]] == browser.run("return report.runs.map(run => loss(run.final))")
    assert max(right for _, right in losses) <= 390


@pytest.mark.parametrize("width", [1280, 390])
def test_the_chart_stays_under_the_pointer_while_a_brush_empties_the_table_above_it(
    browser: Browser, many: tuple[Store, Plan, Path], width: int
) -> None:
    opened(browser, many[2], width)
    browser.look(width, height=3000)  # nothing to scroll, so that the browser cannot correct a mistake of the page
    top = "return byId('parallel-chart').getBoundingClientRect().top"
    before, tall = browser.run(top), browser.run("return byId('table').offsetHeight")
    brush(browser, "lora_r", 3, 4)  # positions of 32 and 64
    browser.wait(f"return ({KEYS.removeprefix('return ')}).length < 30")
    ranks = browser.run("return Object.fromEntries(report.runs.map(run => [run.key, run.params.lora_r]))")
    assert sorted(browser.run(KEYS)) == sorted(key for key, rank in ranks.items() if rank in (32, 64))
    assert browser.run("return byId('table').offsetHeight") < tall
    assert browser.run(top) == before


def test_runs_are_grouped_into_settings_with_means_and_bands(browser: Browser, seeds: tuple[Store, Plan, Path]) -> None:
    opened(browser, seeds[2])
    finals: dict[tuple[float, int], list[float]] = {}
    for one in browser.run("return report.runs"):
        finals.setdefault((one["params"]["learning_rate"], one["params"]["lora_r"]), []).append(one["final"])
    choose(browser, "group", "@setting")
    head, *rows = cells(browser)
    assert head == ["group", "mean eval_loss", "sd", "lowest", "highest", "n", "dollars"]
    means = sorted(finals.items(), key=lambda item: statistics.fmean(item[1]))
    assert [one["is_best"] for one in browser.run("return report.verdicts[0].settings")] == [True, True, True, False]
    assert [row[:4] for row in rows] == [
        [
            f"{'' if (rate, rank) == (1e-4, 8) else '★ '}learning_rate={number(rate)} lora_r={rank}",
            *map(loss, (statistics.fmean(ones), statistics.stdev(ones), min(ones))),
        ]
        for (rate, rank), ones in means
    ]
    drawn = browser.run(
        "return charts.get(byId('curve-chart')).getOption().series"
        ".map(one => [one.name, one.type, one.data.length && one.data[one.data.length - 1]])"
    )
    lines = [one for one in drawn if one[1] == "line" and one[0].endswith(" eval")]
    bands = [one for one in drawn if one[1] == "custom"]
    assert len(lines) == 4
    assert [round(one[2][1], 4) for one in lines] == [round(statistics.fmean(ones), 4) for _, ones in means]
    assert bands[1][2][2:] == pytest.approx([min(means[0][1]), max(means[0][1])]), (
        "the band of the best one's eval loss"
    )
    assert browser.run(
        "return document.querySelectorAll('#curve-chart path[fill-opacity], #curve-chart polygon').length"
    )
    choose(browser, "group", "seed")
    assert [row[0] for row in sorted(cells(browser)[1:])] == ["seed=1", "seed=2", "seed=3"]
    choose(browser, "colour", "lora_r")
    choose(browser, "group", "")
    paints = browser.run(
        "return Object.fromEntries(charts.get(byId('curve-chart')).getOption().series.map(one => "
        "[report.runs.find(run => one.name.startsWith(run.key)).params.lora_r, one.lineStyle.color]))"
    )
    legend = "return [...byId('curve-legend').children].map(one => one.textContent)"
    assert browser.run(legend) == ["lora_r", "8", "32"]
    assert len(set(paints.values())) == 2
    assert browser.console() == []


def test_the_filter_selects_the_runs_that_compare_selects(browser: Browser, many: tuple[Store, Plan, Path]) -> None:
    store, planned, page = many
    opened(browser, page)
    facts = facts_of_sweep(store, planned.sweep)
    for text in ("learning_rate<0.003 lora_r=16", "lora_r!=8 eval_loss<1.25", "status=succeeded", "dollars>=0.14"):
        choose(browser, "find", text)
        named = [word for word in text.split() if not word.startswith(("eval_loss", "dollars"))]
        expected = {one.key for one in select(facts, conditions(named))}
        if "eval_loss" in text:
            expected &= {one.key for one in facts if (one.final("eval_loss") or 9) < 1.25}
        if "dollars" in text:
            expected &= {one.key for one in facts if (one.dollars or 0) >= 0.14}
        assert set(browser.run(KEYS)) == expected, text
        assert len(expected) > 0
        assert browser.run("return byId('problem').textContent") == ""


def test_a_filter_with_an_unknown_name_says_so(browser: Browser, many: tuple[Store, Plan, Path]) -> None:
    opened(browser, many[2])
    choose(browser, "find", "rank=16")
    assert "No column is called rank. There are: key, status, learning_rate" in browser.run(
        "return byId('problem').textContent"
    )
    choose(browser, "find", "r=16")
    assert "Did you mean" in browser.run("return byId('problem').textContent")
    choose(browser, "find", "cosine lora_r=")
    assert browser.run("return byId('problem').textContent") == "", "a condition that is not typed to its end"
    assert 0 < len(browser.run(KEYS)) < 30


@pytest.mark.parametrize("dark", [False, True])
def test_the_best_run_has_the_strongest_colour_and_is_drawn_last(
    browser: Browser, many: tuple[Store, Plan, Path], dark: bool
) -> None:
    opened(browser, many[2], dark=dark)
    strengths = browser.run(f"{CONTRAST} return [0, .1, .2, .3, .4, .5, .6, .7, .8, .9, 1].map(mix).map(contrast)")
    assert strengths == sorted(strengths, reverse=True)
    legend = browser.run("return byId('parallel-legend').textContent")
    assert legend.startswith(f"eval_loss: best {browser.run('return loss(report.runs[0].ranked)')}")
    last = option(browser, "parallel-chart", "series[0].data.at(-1).lineStyle")
    assert last["color"] == browser.run("return mix(0)")
    assert last["width"] == max(option(browser, "parallel-chart", "series[0].data.map(one => one.lineStyle.width)"))


def test_chosen_columns_and_shown_rows_are_copied_as_csv_and_markdown(browser: Browser, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with sweep_of_every_kind(store) as (planned, _):
        page = write_report(store, planned.sweep)
    opened(browser, page)
    browser.devtools("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    box = "[...byId('columns').children].find(one => one.textContent === 'steps').firstChild"
    browser.run(f"{box}.click()")
    choose(browser, "find", "learning_rate<5e-4")
    table = cells(browser)
    assert "steps" not in table[0]
    assert len(table) == 5
    browser.run("byId('copy-csv').click()")
    browser.wait("return byId('message').textContent === 'Copied as CSV.'")
    copied = list(csv.reader(io.StringIO(browser.run("return navigator.clipboard.readText()"))))
    assert copied[0] == table[0]
    assert [row[1:] for row in copied] == [row[1:] for row in table]
    assert any(HOSTILE in row for row in copied)
    browser.run("byId('copy-markdown').click()")
    browser.wait("return byId('message').textContent === 'Copied as Markdown.'")
    lines = browser.run("return navigator.clipboard.readText()").splitlines()
    assert [line.count("|") for line in lines] == [len(table[0]) + 1] * 6
    assert lines[0].startswith("| run | status | learning_rate |")
    odd = [["a|b", "c"], ['say "x, y"\nz', "plain"]]
    assert list(csv.reader(io.StringIO(browser.run("return asCsv(arguments[0])", odd)))) == odd
    risky = [["=1+1", "@x", " +1 s", "-1", "+1e-4", "-0.1 to 0.2", "-"]]
    (safe,) = csv.reader(io.StringIO(browser.run("return asCsv(arguments[0])", risky)))
    assert safe == ["'=1+1", "'@x", "' +1 s", "-1", "+1e-4", "-0.1 to 0.2", "-"], "no text runs as a formula"
    written = browser.run("return asMarkdown(arguments[0], [true, false])", odd)
    assert written == '| a\\|b | c |\n| --- | ---: |\n| say "x, y" z | plain |\n'


def test_a_chart_is_copied_as_png_with_its_title_and_legend(browser: Browser, seeds: tuple[Store, Plan, Path]) -> None:
    opened(browser, seeds[2], dark=True)
    browser.devtools("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.run("document.querySelector('#curves .copy').click()")
    browser.wait("return byId('message').textContent === 'Copied as PNG: Loss curves.'")
    read = """
      const blob = await (await navigator.clipboard.read())[0].getType('image/png');
      const image = await createImageBitmap(blob);
      const canvas = new OffscreenCanvas(image.width, image.height), pen = canvas.getContext('2d');
      pen.drawImage(image, 0, 0);
      const pixels = (y, height) => new Uint32Array(pen.getImageData(0, y, image.width, height).data.buffer);
      const shown = (y, height) => new Set(pixels(y, height)).size;
      return [image.width, image.height, shown(0, 60), shown(72, 32), shown(140, image.height - 140)];
    """
    width, height, title, legend, chart = browser.run(f"return (async () => {{ {read} }})()")
    place = browser.run("return [byId('curve-chart').clientWidth, byId('curve-chart').clientHeight]")
    assert width == 2 * place[0]
    assert height > 2 * place[1]
    assert min(title, legend, chart) > 5, "more colours than that of the background"


def test_everything_in_the_table_can_be_done_by_keys(browser: Browser, many: tuple[Store, Plan, Path]) -> None:
    opened(browser, many[2])
    browser.press("/", *"lora_r=64")
    assert browser.run("return document.activeElement.id") == "find"
    assert 0 < len(keys := browser.run(KEYS)) < 30
    browser.run("document.querySelector('#table tbody button').focus()")
    browser.press("Down", "Down", "Up", "Enter")
    assert browser.run("return document.activeElement.dataset.pick") == keys[1]
    assert browser.run("return view.picked") == keys[1]
    browser.wait("return byId('curve-note').textContent.startsWith('1 of 30')")
    browser.run("document.querySelector('[data-sort=dollars]').focus()")
    browser.press("Enter")
    assert browser.run("return document.activeElement.dataset.sort") == "dollars", "the focus stays"
    browser.press("Escape")
    assert len(browser.run(KEYS)) == 30
    assert browser.run("return byId('find').value") == ""
    browser.run(
        "document.querySelector('.menu').open = true; document.querySelector('#columns input').focus(); redraw()"
    )
    assert browser.run("return document.activeElement.type") == "checkbox", "newer values of a sweep take no focus away"
    stops = browser.run("return document.querySelectorAll('#table tbody [tabindex=\"0\"]').length")
    assert stops == 1, "the Tab key passes the rows with one press"


def test_axe_finds_nothing_to_complain_about(browser: Browser, seeds: tuple[Store, Plan, Path], tmp_path: Path) -> None:
    """On both screens and in both colour schemes: no rule of the style is about a width and a scheme together."""
    store = Store(tmp_path / "store")
    with sweep_of_every_kind(store) as (planned, _):
        kinds = write_report(store, planned.sweep)
    two_runs(other := Store(tmp_path / "other"))
    halved = halved_sweep(rungs := Store(tmp_path / "rungs"))
    pages = [seeds[2], kinds, write_report(other, sweep_ids(other)[0]), write_report(rungs, halved.id)]
    for page in pages:
        opened(browser, page)
        browser.run(AXE.read_text(encoding="utf-8"))
        for width, dark in [(1280, False), (390, True)]:
            browser.look(width, dark=dark)
            browser.wait("return drawnWidth === page.clientWidth")
            browser.run("document.querySelectorAll('#where details').forEach(one => { one.open = true; })")
            assert browser.run(VIOLATIONS) == [], (page, width)
        assert browser.run(
            "return [...document.querySelectorAll('.chart')].filter(one => one.querySelector('svg'))"
            ".every(one => one.role === 'img' && one.ariaLabel.length > 20)"
        )


@pytest.mark.parametrize("width", [1280, 390])
def test_a_search_with_rungs_is_drawn_with_its_cuts_and_outcomes(browser: Browser, tmp_path: Path, width: int) -> None:
    store = Store(tmp_path)
    sweep = halved_sweep(store)
    opened(browser, write_report(store, sweep.id), width)
    assert browser.console() == []
    assert browser.run("return document.documentElement.scrollWidth") == width
    series: list[dict[str, Any]] = option(browser, "curve-chart", "series")
    lines = next(one for one in series if one["id"] == "rungs")["markLine"]["data"]
    assert [(one["name"], one["xAxis"]) for one in lines] == [("rung 1", 12), ("rung 2", 36)]
    cuts = {
        one["name"]: one["markPoint"]["data"][0]["coord"] for one in series if (one.get("markPoint") or {}).get("data")
    }
    assert cuts[f"{sweep.stopped.key} eval"] == [12, 1.3], "where it stopped, which no log has"
    assert cuts[f"{sweep.promoted.key} eval"] == [36, 0.9]
    assert not any(key.startswith((sweep.winner.key, sweep.audited.key)) for key in cuts)
    outcomes = browser.run(
        "return [...byId('search-table').tBodies[0].rows].map(row => [...row.cells].map(one => one.textContent))"
    )
    assert outcomes == [
        ["trained to the end", "1", "1.0000", "0.8000", "0.6000"],
        ["trained to the end for the audit", "1", "1.5000", "1.2500", "1.1000"],
        ["stopped at rung 2", "1", "1.2000", "0.9000", ""],
        ["stopped at rung 1", "3", "1.3000", "", ""],
    ]
    lead = browser.run("return byId('search-lead').innerText")
    assert "saved 47 % of the 360 steps" in lead
    assert "ended at 1.1000, the best other run at 0.6000" in lead
    drawn = option(browser, "search-chart", "series")
    assert sorted(len(one["data"]) for one in drawn) == [1, 1, 1, 3]
    statuses = browser.run("return [...document.querySelectorAll('#table .status')].map(one => one.textContent)")
    assert statuses.count("stopped at rung 1") == 3
    row = next(row for row in cells(browser) if row[0].endswith(sweep.stopped.key))
    assert row[cells(browser)[0].index("eval_loss")] == "", "it has no final loss"
    assert row[cells(browser)[0].index("why")] == "3rd of 6"
    assert "the losses of 5 runs at rung 1 (step 12)" in browser.run("return byId('effect-note').textContent")
    for word, key in (("why=audit", sweep.audited.key), ('"why=among the best"', sweep.winner.key)):
        choose(browser, "find", word)
        assert browser.run(KEYS) == [key]
    choose(browser, "find", "why=null")
    assert len(browser.run(KEYS)) == 4, "those that stopped"
    choose(browser, "curve-x", "seconds")
    assert not any(one["id"] == "rungs" for one in option(browser, "curve-chart", "series"))
