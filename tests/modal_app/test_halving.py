import itertools
import json
import math
import multiprocessing
from collections.abc import Iterable, Mapping
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
import scipy

from modal_app.halving import halve
from modal_app.halving.choose import all_are_in, audited_of, is_audited, who_goes_on
from modal_app.halving.entries import TERMS, FileEntries, go_of, loss_of
from modal_app.halving.margin import seed_variance, standard_error, within_noise
from modal_app.halving.snapshot import Reading, Snapshot, Terms, Why
from tests.modal_app.halving_entries import MemoryEntries, of_terms, reading

AUDITED = [run for run in map("{:012x}".format, range(100)) if is_audited(run)]
OTHERS = [run for run in map("{:012x}".format, range(100)) if not is_audited(run)]
"""Run keys with which no run is audited."""
NAMES = [go_of(1, run) for run in OTHERS[:30]]


def _ask(entries: MemoryEntries, losses: Mapping[str, float | None], rung: int = 1) -> dict[str, Why | None]:
    return {run: halve.ask(entries, run, rung, reading(loss)).why for run, loss in losses.items()}


def _snapshot(entries: MemoryEntries) -> Snapshot:
    return Snapshot.of(entries.items())


def _runs(losses: Iterable[float | None]) -> dict[str, float | None]:
    return dict(zip(OTHERS, losses, strict=False))


def test_of_n_runs_at_a_rung_the_best_floor_of_n_over_eta_go_on() -> None:
    losses = _runs([0.5, 0.4, 0.3, 0.2, 0.1, 0.6, 0.7])
    entries = of_terms(losses)

    assert list(_ask(entries, losses).values()) == [None, None, Why.TOP, Why.TOP, Why.TOP, None, None]
    assert who_goes_on(_snapshot(entries), 1) == {OTHERS[3]: Why.TOP, OTHERS[4]: Why.TOP}


def test_a_stopped_run_goes_on_when_more_runs_have_come() -> None:
    losses = _runs([0.2, 0.3, 0.4, 0.1, 0.5, 0.6])
    entries = of_terms(losses)
    first, second = OTHERS[:2]

    assert _ask(entries, dict(list(losses.items())[:2])) == {first: None, second: None}
    for run in (first, second):
        halve.note_stop(entries, run, 1)
    assert halve.look(entries) == {}
    _ask(entries, losses)
    assert halve.look(entries) == {first: 1}
    assert entries.found[go_of(1, first)] == {"why": Why.TOP}


def test_a_run_that_may_go_on_gets_the_same_answer_when_better_runs_have_come() -> None:
    losses = _runs([0.3, 0.4, 0.5, 0.1, 0.1, 0.1])
    entries = of_terms(losses)
    _ask(entries, dict(list(losses.items())[:3]))  # the first is not yet among the best of three
    halve.note_stop(entries, OTHERS[0], 1)
    assert halve.look(entries) == {OTHERS[0]: 1}
    _ask(entries, losses)

    answer = halve.ask(entries, OTHERS[0], 1, reading(0.3))
    assert (answer.why, answer.goes_on, answer.place, answer.of) == (Why.TOP, True, 4, 6)
    assert OTHERS[0] not in who_goes_on(_snapshot(entries), 1)


def test_equal_losses_are_ordered_by_key_so_that_everybody_agrees() -> None:
    for order in itertools.permutations(OTHERS[:3]):
        entries = of_terms(dict.fromkeys(order))
        _ask(entries, dict.fromkeys(order, 0.5))
        assert who_goes_on(_snapshot(entries), 1) == {min(order): Why.TOP}


def test_fewer_runs_than_eta_wait_for_the_last_one_and_then_the_best_goes_on() -> None:
    losses = _runs([0.1, 0.2])
    entries = of_terms(losses)

    assert _ask(entries, losses) == {OTHERS[0]: None, OTHERS[1]: None}
    halve.note_stop(entries, OTHERS[0], 1)
    assert halve.look(entries) == {OTHERS[0]: 1}
    assert _ask(entries, {OTHERS[0]: 0.05}, rung=2) == {OTHERS[0]: Why.TOP}


@pytest.mark.parametrize("how", ["failed", "diverged"])
def test_a_run_that_ends_before_a_rung_is_not_waited_for(how: str) -> None:
    entries = of_terms(_runs([None, None]))
    first, second = OTHERS[:2]
    assert not halve.ask(entries, first, 1, reading(0.4)).goes_on
    halve.note_stop(entries, first, 1)
    assert not all_are_in(_snapshot(entries), 1)

    if how == "failed":
        halve.note_out(entries, second)
    else:
        halve.note_divergence(entries, second, 1, reading(None))

    assert all_are_in(_snapshot(entries), 1)
    assert halve.look(entries) == {first: 1}


@pytest.mark.parametrize("how", ["failed", "diverged"])
def test_a_run_that_ends_after_a_rung_gives_its_place_to_the_next(how: str) -> None:
    losses = _runs([0.1, 0.2, 0.3])
    entries = of_terms(losses)
    _ask(entries, losses)
    for run in losses:
        halve.note_stop(entries, run, 1)
    best, next_one = OTHERS[:2]
    assert halve.look(entries) == {best: 1}

    if how == "failed":
        halve.note_out(entries, best)
    else:
        halve.note_divergence(entries, best, 2, reading(None))

    assert halve.look(entries) == {next_one: 1}
    assert halve.ask(entries, next_one, 2, reading(0.2)).why is Why.TOP


def test_a_failed_run_that_is_tried_again_counts_again_when_it_has_come_further() -> None:
    losses = _runs([0.1, 0.2, 0.3])
    entries = of_terms(losses)
    _ask(entries, losses)
    halve.note_out(entries, OTHERS[0])
    assert OTHERS[0] not in who_goes_on(_snapshot(entries), 1)

    assert halve.ask(entries, OTHERS[0], 2, reading(0.05)).goes_on
    assert OTHERS[0] in who_goes_on(_snapshot(entries), 1)
    halve.note_out(entries, OTHERS[0])
    assert OTHERS[0] not in who_goes_on(_snapshot(entries), 1), "it has failed again"


@pytest.mark.parametrize("loss", [None, math.nan, math.inf])
def test_a_diverged_run_never_goes_on_but_counts_among_those_that_have_come(loss: float | None) -> None:
    losses = {**_runs([0.1, 0.2]), AUDITED[0]: loss, OTHERS[2]: loss}
    entries = of_terms(dict.fromkeys(losses, 0.1), audit=True, margin=True, keep_rate=True)

    _ask(entries, losses)
    assert who_goes_on(_snapshot(entries), 1) == {OTHERS[0]: Why.TOP}
    json.dumps(entries.found, allow_nan=False)


def test_all_runs_may_have_diverged() -> None:
    losses = _runs([None, None, None])
    entries = of_terms(losses, audit=True, margin=True, keep_rate=True)

    assert set(_ask(entries, losses).values()) == {None}
    assert halve.look(entries) == {}


def test_one_run_in_ten_is_audited_by_its_key() -> None:
    many = [f"{number:012x}" for number in range(5000)]
    assert sum(map(is_audited, many)) == pytest.approx(500, rel=0.1)
    assert [is_audited(run) for run in many[:3]] == [False, False, False]

    audited = AUDITED[0]
    losses = {**_runs([0.1, 0.2, 0.3]), audited: 0.9}
    for audit, why in ((True, Why.AUDIT), (False, None)):
        entries = of_terms(losses, audit=audit)
        assert _ask(entries, losses)[audited] is why


def test_a_search_of_ten_runs_or_more_has_an_audited_one_that_all_processes_agree_on() -> None:
    for number in (9, 10, 40):
        members = OTHERS[:number]
        assert len(audited_of(members)) == (number >= 10)
        assert audited_of(members) == audited_of(members[::-1])
    assert audited_of([*OTHERS[:40], *AUDITED]) == set(AUDITED)
    (audited,) = audited_of(OTHERS[:10])
    losses = {run: 0.9 if run == audited else number / 100 for number, run in enumerate(OTHERS[:10])}
    entries = of_terms(losses, audit=True)
    assert _ask(entries, losses)[audited] is Why.AUDIT


def test_an_audited_run_takes_no_other_runs_place_at_a_later_rung_and_goes_on_from_each() -> None:
    audited = AUDITED[0]
    losses = {**_runs([0.1, 0.2, 0.3]), audited: 0.9}
    entries = of_terms(losses, fractions=(0.2, 0.4, 0.6), audit=True)
    _ask(entries, losses)

    for rung in (2, 3):
        assert _ask(entries, {audited: 0.0}, rung) == {audited: Why.AUDIT}
        assert who_goes_on(_snapshot(entries), rung) == {audited: Why.AUDIT}
    _ask(entries, {OTHERS[0]: 0.5}, 2)
    assert who_goes_on(_snapshot(entries), 2) == {audited: Why.AUDIT, OTHERS[0]: Why.TOP}


def test_each_rung_is_decided_once_for_all_audited_runs() -> None:
    """With a thousand runs, each run at the last of three rungs once waited twelve seconds for its answer."""
    losses = {run: number / 10 for number, run in enumerate([*OTHERS[:3], *AUDITED])}
    entries = of_terms(losses, audit=True)
    for rung in (1, 2, 3):
        _ask(entries, losses, rung)
    snapshot = _snapshot(entries)
    who_goes_on(snapshot, 3)
    assert snapshot.goes.keys() >= {1, 3}
    assert who_goes_on(snapshot, 1) is snapshot.goes[1]


def test_an_audited_run_that_is_among_the_best_competes() -> None:
    audited = AUDITED[0]
    losses = {audited: 0.1, **_runs([0.2, 0.3])}
    entries = of_terms(losses, audit=True)
    assert _ask(entries, losses)[audited] is Why.AUDIT  # it came first, when nothing was known
    assert who_goes_on(_snapshot(entries), 1) == {audited: Why.TOP}

    assert _ask(entries, {audited: 0.1}, 2) == {audited: Why.TOP}


def test_a_run_with_other_rows_or_steps_than_most_goes_on_and_takes_no_other_runs_place() -> None:
    losses = _runs([0.3, 0.4, 0.5])
    entries = of_terms(dict.fromkeys(OTHERS[:5]))
    _ask(entries, losses)
    strange = [reading(0.0, eval_fingerprint="others"), reading(0.0, max_steps=50)]
    for run, one in zip(OTHERS[3:5], strange, strict=True):
        assert halve.ask(entries, run, 1, one).why is Why.OTHER_ROWS

    assert who_goes_on(_snapshot(entries), 1) == {
        OTHERS[0]: Why.TOP, OTHERS[3]: Why.OTHER_ROWS, OTHERS[4]: Why.OTHER_ROWS
    }  # fmt: skip


def test_the_best_run_with_the_largest_rate_that_has_not_diverged_goes_on_from_the_first_rung() -> None:
    rates = dict(zip(OTHERS, [1e-4, 1e-4, 1e-3, 1e-3, 1e-2], strict=False))
    losses = _runs([0.1, 0.2, 0.9, 0.8, None])
    entries = of_terms(rates, keep_rate=True)

    assert set(_ask(entries, dict(list(losses.items())[:4])).values()) <= {None, Why.TOP}  # 1e-2 has not come yet
    _ask(entries, losses)
    assert who_goes_on(_snapshot(entries), 1) == {OTHERS[0]: Why.TOP, OTHERS[3]: Why.RATE}
    halve.note_divergence(entries, OTHERS[3], 2, reading(None))
    assert who_goes_on(_snapshot(entries), 1) == {OTHERS[0]: Why.TOP, OTHERS[2]: Why.RATE}
    _ask(entries, {OTHERS[0]: 0.1, OTHERS[1]: 0.1, OTHERS[2]: 0.9}, 2)
    assert Why.RATE not in who_goes_on(_snapshot(entries), 2).values()


def test_no_run_goes_on_for_its_rate_if_all_rates_are_equal_or_unknown() -> None:
    for rate in (1e-3, None):
        losses = _runs([0.1, 0.2, 0.3])
        entries = of_terms(dict.fromkeys(losses, rate), keep_rate=True)
        _ask(entries, losses)
        assert set(who_goes_on(_snapshot(entries), 1).values()) == {Why.TOP}


def _of_documents(losses: np.ndarray, tokens: np.ndarray, **others: str) -> Reading:
    """`losses`: the mean loss of each group."""
    nll = losses * tokens
    return reading(float(nll.sum() / tokens.sum()), tokens=tuple(tokens.tolist()), nll=tuple(nll.tolist()), **others)


@pytest.mark.medium
def test_the_standard_error_is_that_of_a_ratio_over_groups_of_documents() -> None:
    random = np.random.default_rng(5)
    tokens = random.integers(0, 80, 64)
    one, other = (_of_documents(random.normal(2.0, 0.3, 64), tokens) for _ in range(2))

    found = standard_error(one, other)

    difference, counted = np.array(one.nll) - np.array(other.nll), tokens > 0
    values = difference[counted] - difference.sum() / tokens.sum() * tokens[counted]
    assert found == pytest.approx(scipy.stats.sem(values) * counted.sum() / tokens.sum(), rel=1e-9)
    drawn = random.integers(0, 64, (4000, 64))
    bootstrapped = (difference[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)).std()
    assert found == pytest.approx(bootstrapped, rel=0.1)


def test_a_run_within_one_standard_error_of_the_cut_goes_on() -> None:
    random = np.random.default_rng(6)
    tokens, losses, noise = np.full(64, 20), random.normal(2.0, 0.3, 64), random.normal(0.0, 0.1, 64)
    noise -= noise.mean()
    error = float(scipy.stats.sem(noise))
    best = _of_documents(losses - 1, tokens)
    entries = of_terms(dict.fromkeys(OTHERS[:4]), margin=True)
    asked = [best, *(_of_documents(losses - 1 + noise + far * error, tokens) for far in (0.9, 1.1, 0.99))]
    found = [halve.ask(entries, run, 1, one).why for run, one in zip(OTHERS, asked, strict=False)]

    assert found == [None, None, None, Why.MARGIN]
    assert who_goes_on(_snapshot(entries), 1) == {
        OTHERS[0]: Why.TOP, OTHERS[1]: Why.MARGIN, OTHERS[3]: Why.MARGIN
    }  # fmt: skip


def test_nothing_is_within_the_noise_that_is_unknown() -> None:
    tokens = np.full(64, 20)
    one = _of_documents(np.full(64, 2.0), tokens)
    for other in (
        reading(one.loss),
        replace(one, tokens=(1, *one.tokens[1:])),
        reading(one.loss, tokens=(5, 0), nll=(1.0, 0.0)),
    ):
        assert within_noise({"one": one, "other": other}, ["one"], ["other"]) == []


def test_the_noise_of_seeds_is_pooled_over_the_settings_of_the_best_and_widens_the_margin() -> None:
    random = np.random.default_rng(7)
    sampled = {name: random.normal(1.0, 0.05, seeds) for name, seeds in (("a", 2), ("b", 4), ("c", 1))}
    readings = [reading(float(loss), setting=name) for name, losses in sampled.items() for loss in losses]

    expected = (sampled["a"].var(ddof=1) + 3 * sampled["b"].var(ddof=1)) / 4
    assert seed_variance([*readings, reading(None, setting="a"), reading(9.0)]) == pytest.approx(expected, rel=1e-9)

    losses, tokens = np.full(64, 2.0), np.full(64, 20)
    there = {
        "cut": _of_documents(losses, tokens, setting="a"),
        "twin": _of_documents(losses + 0.01, tokens, setting="a"),
        "near": _of_documents(losses + 0.009, tokens, setting="b"),
        "far": _of_documents(losses + 0.011, tokens, setting="c"),
        "wild": reading(5.0, setting="c"),
    }
    assert within_noise(there, ["near", "far"], ["cut"]) == ["near"]
    alone = {run: replace(one, setting="") for run, one in there.items()}
    assert within_noise(alone, ["near", "far"], ["cut"]) == []


def test_a_reading_and_terms_are_the_same_after_they_have_been_written(tmp_path: Path) -> None:
    entries = FileEntries(tmp_path)
    terms = Terms({"a": 1e-3, "b": None}, (0.2, 0.6), 3, audit=False)
    one = reading(0.5, tokens=(1, 2), nll=(0.1, 0.2), setting="s")
    entries.put(TERMS, terms.to_json())
    halve.ask(entries, "a", 1, one)
    halve.note_stop(entries, "a", 1)
    halve.note_out(entries, "b")

    found = Snapshot.of(entries.items())
    assert (found.terms, found.at(1)) == (terms, {"a": one})
    assert (dict(found.stopped), dict(found.out)) == ({1: frozenset("a")}, {"b": 0})


def _put_all(folder: Path, number: int, start: Barrier) -> None:
    start.wait()
    won = [name for name in NAMES if FileEntries(folder).put(name, {"who": number})]
    (folder / f"won-by-{number}.txt").write_text("\n".join(won))


def test_of_many_processes_that_put_an_entry_one_succeeds(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    processes = [context.Process(target=_put_all, args=(tmp_path, number, start)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    won = {name: n for n in range(4) for name in (tmp_path / f"won-by-{n}.txt").read_text().split()}
    assert FileEntries(tmp_path).items() == {name: {"who": won[name]} for name in NAMES}
    assert sum(len((tmp_path / f"won-by-{number}.txt").read_text().split()) for number in range(4)) == len(NAMES)
    assert not list(tmp_path.rglob(".*"))


def test_an_entry_is_never_changed(tmp_path: Path) -> None:
    entries = FileEntries(tmp_path)
    assert entries.put("go/1/a", {"why": "top"})
    assert not entries.put("go/1/a", {"why": "rate"})
    assert entries.get("go/1/a") == {"why": "top"}
    assert entries.get("go/1/b") is None


@pytest.mark.parametrize("damage", ["", '{"loss": 0.', "[]", "\0" * 40])
def test_a_damaged_entry_counts_as_none_and_is_put_again(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = FileEntries(tmp_path)
    entries.put(TERMS, Terms({"a": None, "b": None}, (0.2,), 3).to_json())
    halve.ask(entries, "a", 1, reading(0.5))
    path = tmp_path / f"{loss_of(1, 'a')}.json"
    path.write_text(damage)

    assert Snapshot.of(entries.items()).at(1) == {}
    assert halve.ask(entries, "a", 1, reading(0.5)).of == 1
    assert Snapshot.of(FileEntries(tmp_path).items()).at(1) == {"a": reading(0.5)}
    assert str(path) in capsys.readouterr().err
