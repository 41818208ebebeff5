"""The dollars of a container: its seconds, what it had, and rates with their sources."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from typing import Any

import pytest

from modal_app.cloud.meter import Card, ContainerRecord
from runner.config.gpus import GPUS, kind_of_card
from runner.cost.prices import Origin, Rates, bill, rates_from
from runner.errors import SweepError
from runner.keys.identity import identify_run
from runner.types import Gpu, PriceTable
from tests.conftest import refuse

DAY = datetime.date(2026, 11, 24)
TABLE = PriceTable(
    "2026-09-20", "somewhere", {"h100": 0.001, "h200": 0.0012, "a100_80gb": 0.0007}, 0.00001, 0.000002, 0.09
)
RATES = rates_from(TABLE, {}, DAY)


def container(*cards: str, seconds: float = 100.0, **rest: Any) -> ContainerRecord:
    facts: dict[str, Any] = {
        "task": "ta-1", "call": "fc-1", "step": "train/key", "booted_at": 1.0, "began_at": 2.0, "seen_at": 101.0,
        "ended": True, "attempts": (1,), "cores_reserved": 0.125, "cores_used": None,
        "memory_gib_reserved": 0.125, "memory_gib_used": None,
    }  # fmt: skip
    shown = tuple(Card(name, 81559, 40000, 90.0) for name in cards)
    return ContainerRecord(seconds=seconds, cards=shown, **(facts | rest))


def test_a_container_costs_its_seconds_times_all_that_it_had() -> None:
    record = container("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3", cores_reserved=8.0, memory_gib_reserved=64.0)
    cost = bill([record], RATES, Gpu("h100", 2))
    assert cost.dollars == pytest.approx(100 * (2 * 0.001 + 8 * 0.00001 + 64 * 0.000002))
    assert cost.items == {"h100", "cpu", "memory"}


def test_what_was_allocated_is_paid_and_not_what_was_requested() -> None:
    """Modal may give an H200 for a request of an H100."""
    cost = bill([container("NVIDIA H200")], RATES, Gpu("h100", 1))
    assert cost.dollars == pytest.approx(100 * (0.0012 + 0.125 * (0.00001 + 0.000002)))
    assert not cost.as_asked


def test_use_beyond_the_reservation_is_paid_and_less_use_saves_nothing() -> None:
    busy = container(cores_reserved=4.0, cores_used=6.0, memory_gib_reserved=16.0, memory_gib_used=2.0)
    assert bill([busy], RATES).dollars == pytest.approx(100 * (6 * 0.00001 + 16 * 0.000002))


def test_every_container_of_a_step_counts() -> None:
    both = bill([container(seconds=30), container(seconds=12)], RATES)
    assert both.seconds == 42
    assert both.dollars == pytest.approx(bill([container(seconds=42)], RATES).dollars)


def test_an_unknown_card_is_charged_as_the_requested_one_and_named() -> None:
    cost = bill([container("NVIDIA X900", "NVIDIA H100 80GB HBM3")], RATES, Gpu("a100_80gb", 2))
    assert cost.dollars == pytest.approx(100 * (0.0007 + 0.001 + 0.125 * (0.00001 + 0.000002)))
    assert cost.as_asked == {"NVIDIA X900"}


def test_cards_that_the_driver_did_not_show_are_charged_as_requested() -> None:
    cost = bill([container()], RATES, Gpu("h100", 4))
    assert cost.dollars == pytest.approx(100 * (4 * 0.001 + 0.125 * (0.00001 + 0.000002)))
    assert cost.as_asked


def test_a_card_without_a_rate_is_named_and_not_paid_in_silence() -> None:
    cost = bill([container("NVIDIA B200")], RATES, Gpu("b200", 1))
    assert cost.unpriced == {"b200"}
    assert cost.items == {"cpu", "memory"}


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Tesla T4", "t4"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA A10G", "a10"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A100-SXM4-40GB", "a100_40gb"),
        ("NVIDIA A100-PCIE-40GB", "a100_40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100_80gb"),
        ("NVIDIA A100 80GB PCIe", "a100_80gb"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx_pro_6000"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA B200", "b200"),
    ],
)
def test_a_card_is_known_by_the_name_of_the_driver(said: str, name: str) -> None:
    kind = kind_of_card(said)
    assert kind is not None
    assert kind.name == name


@pytest.mark.parametrize("said", ["NVIDIA A30", "NVIDIA GH200 480GB", "NVIDIA L40", "NVIDIA RTX 6000 Ada Generation"])
def test_a_card_that_modal_does_not_rent_is_not_replaced_by_another(said: str) -> None:
    assert kind_of_card(said) is None


def test_modals_answer_wins_item_by_item_and_what_it_lacks_is_the_tables() -> None:
    answer = {"gpu_hour_cost_h100": 3.95, "cpu_hour_cost": 0.0473, "cpu_hour_cost_sandbox": 0.1419, "new_thing": 1.0}
    rates = rates_from(TABLE, answer, DAY)
    assert rates.of("h100") == pytest.approx(3.95 / 3600)
    assert rates.of("cpu") == pytest.approx(0.0473 / 3600)
    assert (rates.of("h200"), rates.of("memory")) == (0.0012, 0.000002)
    assert rates.sources({"h100", "cpu"}) == "Modal's of 2026-11-24"
    assert rates.sources({"h200"}) == "table of 2026-09-20"
    assert rates.sources({"h100", "h200", "memory"}) == "h100: Modal's of 2026-11-24; h200, memory: table of 2026-09-20"


@pytest.mark.parametrize("hourly", [0.0, -1.0, math.nan, math.inf])
def test_an_answer_that_is_not_a_price_is_ignored(hourly: float) -> None:
    assert rates_from(TABLE, {"gpu_hour_cost_h100": hourly}, DAY).of("h100") == 0.001


def test_every_gpu_and_the_whole_machine_have_a_rate_at_modal() -> None:
    names = ["cpu_hour_cost", "mem_gib_hour_cost", *(f"gpu_hour_cost_{kind.rate}" for kind in GPUS.values())]
    rates = rates_from(TABLE, dict.fromkeys(names, 3.6), DAY)
    assert {rates.rates[item].origin for item in (*GPUS, "cpu", "memory")} == {Origin.MODAL}


def test_a_price_that_was_given_wins_over_modals_and_is_said(ask: Callable[..., Any]) -> None:
    (experiment,) = ask("prices.gpu.h100=0.5").experiments
    rates = rates_from(experiment.prices, {"gpu_hour_cost_h100": 3.95, "cpu_hour_cost": 0.0473}, DAY)
    assert rates.of("h100") == 0.5
    assert rates.sources({"h100"}) == "as given"
    assert rates.sources({"cpu"}) == "Modal's of 2026-11-24"


def test_a_table_of_over_90_days_is_said_to_be_old() -> None:
    assert not rates_from(TABLE, {}, datetime.date(2026, 12, 19)).is_stale
    old = rates_from(TABLE, {}, datetime.date(2026, 12, 20))
    assert old.is_stale
    assert "90 days" in old.sources({"h100"})


def test_rates_read_back_as_they_were_written() -> None:
    rates = rates_from(TABLE, {"gpu_hour_cost_h100": 3.95}, DAY)
    assert Rates.from_json(rates.as_json()) == rates


def test_the_shipped_table_has_every_gpu(ask: Callable[..., Any]) -> None:
    (experiment,) = ask().experiments
    assert set(experiment.prices.gpu) == set(GPUS)
    assert experiment.prices.given == ()


def test_prices_are_in_no_key(ask: Callable[..., Any]) -> None:
    plain, dear = (ask(*words).experiments[-1] for words in ((), ("prices.cpu=1",)))
    assert dear.prices.cpu == 1
    keys = {identify_run(one, (), trainer_lock="lock").key for one in (plain, dear)}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("prices.cpu=free", r"prices\.cpu=free"),
        ("prices.gpu.h100=-1", r"prices\.gpu\.h100=-1"),
        ("prices.date=yesterday", r"prices\.date=yesterday"),
        ("prices.gpu.h1000=1", r"h100"),
    ],
)
def test_a_price_that_is_none_is_refused(ask: Callable[..., Any], word: str, said: str) -> None:
    with pytest.raises(SweepError, match=said):
        refuse(ask(word).experiments)
