"""Dollars by which runs are ranked: they do not depend on the place of a run in its container."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from modal_app.store.layout import Store
from runner.compare.even_dollars import even_dollars
from runner.compare.ranking import compare_sweep
from runner.compare.verdict_types import JudgedSetting, Verdict
from runner.compare.verdict_words import headline
from runner.compare.verdicts import verdicts_on
from runner.cost.receipt import Receipt
from tests.runner.judged_store import judged_sweep

CLOSE = {1e-4: 1.5, 2e-4: 1.501, 3e-4: 1.502, 1e-3: 1.8}


def rented(key: str, place: int, train_s: float, rate: float = 0.001) -> Any:
    """A run in a container: the first one pays for the boot and for cold imports."""
    parts = {"boot": 20.0, "import": 12.0} if place == 0 else {"idle": 1.0, "import": 3.0}
    seconds = sum(parts.values()) + train_s
    paid = {"dollars": seconds * rate, "receipt": Receipt(seconds, {**parts, "train": train_s, "queue": 99.0})}
    return SimpleNamespace(key=key, **paid)


def test_equal_work_costs_the_same_wherever_in_a_container_it_was_done() -> None:
    rows = [rented(str(place), place, 10.0) for place in range(3)]
    even = even_dollars(rows)
    assert [round(one.dollars, 4) for one in rows] == [0.042, 0.014, 0.014], "what was paid"
    assert [even[row.key] for row in rows] == pytest.approx([0.07 / 3] * 3), "the sum is what was paid"


def test_a_shorter_run_is_cheaper_though_it_has_paid_for_the_boot_and_a_dearer_card_stays_dearer() -> None:
    short, long, dear = rented("short", 0, 8.0), rented("long", 1, 10.0), rented("dear", 2, 8.0, rate=0.004)
    even = even_dollars([short, long, dear])
    assert short.dollars > long.dollars
    assert even["short"] == pytest.approx((even["long"] or 0.0) - 2 * 0.001)
    assert even["dear"] == pytest.approx(4 * (even["short"] or 0.0))


def test_the_cheapest_of_the_best_does_not_depend_on_the_place_in_a_container(store: Store) -> None:
    sweep, _ = judged_sweep(store, CLOSE)
    places = dict(zip(sorted(CLOSE), (0, 1, 2, 3), strict=True))
    seconds = {1e-4: 8.0, 2e-4: 10.0, 3e-4: 11.0, 1e-3: 12.0}
    rows = []
    for row in compare_sweep(store, sweep):
        rate = row.params["learning_rate"]
        paid = rented(row.key, places[rate], seconds[rate])
        rows.append(replace(row, dollars=paid.dollars, receipt=paid.receipt))
    (verdict,) = verdicts_on(rows)
    assert verdict.cheapest.params == {"learning_rate": 1e-4}, "it trains for the fewest seconds, and paid for the boot"
    assert verdict.cheapest.paid_dollars == pytest.approx(0.04)
    assert "($0.0190 per run with an even share of the containers' starts; paid $0.0400)" in verdict.sentences[0]


def test_without_a_receipt_a_run_counts_with_what_was_paid() -> None:
    rows: list[Any] = [SimpleNamespace(key="a", dollars=2.0, receipt=None), SimpleNamespace(key="b", dollars=None)]
    assert even_dollars([*rows, rented("c", 0, 1.0)]) == {"a": 2.0, "b": None, "c": pytest.approx(0.033)}


def test_dollars_name_the_cheapest_if_all_of_the_group_have_a_price_and_otherwise_seconds() -> None:
    def sentence(*costs: tuple[float | None, float]) -> str:
        settings = [
            JudgedSetting(
                (str(at),), {"lora_r": at}, f"lora_r={at}", 1.0, 0.0, -1.0, 1.0, True, False, at == 0, dollars, seconds
            )
            for at, (dollars, seconds) in enumerate(costs)
        ]
        return headline(Verdict("rows", tuple(settings), 9, 9, True, None, 0, True, ()))

    assert sentence((1.2, 61.0), (2.0, 60.0)) == (
        "lora_r=0 and lora_r=1 cannot be told apart (95 %). The cheaper is lora_r=0 ($1.20 per run)."
    )
    assert sentence((1.2, 61.0), (None, 62.0), (1.0, 63.0)).endswith(
        "The cheapest is lora_r=0 (61 s of training per run)."
    )
    assert sentence(*[(1.0, 1.0)] * 6).startswith(
        "These 6 settings cannot be told apart (95 %): lora_r=0; lora_r=1; lora_r=2; and 3 more. The cheapest is"
    )
