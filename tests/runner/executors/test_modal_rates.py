"""Modal's prices are requested with its unmodified client; without an answer in time, a launch goes on."""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from grpclib import Status
from modal_proto import api_pb2

from runner.cost.prices import Rates, rates_from
from runner.executors.modal_rates import ANSWER_WITHIN_S, stale_warning
from tests.fork_server import ForkServer, fork_server
from tests.modal_server import ModalServer, Settings
from tests.runner.executors.rates_script import TABLE

SCRIPT = Path(__file__).with_name("rates_script.py")


Ask = Callable[[ModalServer], Rates]


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServer]:
    with fork_server("modal", "tests.runner.executors.rates_script") as forks:
        yield forks


@pytest.fixture
def ask(forks: ForkServer) -> Ask:
    """Request them in a process of its own, like every client."""

    def of(server: ModalServer) -> Rates:
        done = forks.run(SCRIPT, environment=os.environ | server.environment())
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return Rates.from_json(said)

    return of


@pytest.fixture
def server() -> Any:
    settings = Settings(billing_rates={"gpu_hour_cost_h100": "3.95", "cpu_hour_cost": "0.0473", "egress": "0.04"})
    with ModalServer(settings) as server:
        yield server


def test_what_modal_answers_is_taken_and_the_rest_is_the_tables(ask: Ask, server: ModalServer) -> None:
    rates = ask(server)
    assert rates.of("h100") == pytest.approx(3.95 / 3600)
    assert rates.sources({"h100", "cpu"}) == f"Modal's of {datetime.datetime.now(datetime.UTC).date()}"
    assert rates.sources({"h200", "memory"}).startswith("table of 2026-09-20")


def test_names_that_modal_is_about_to_drop_are_not_looked_up(ask: Ask, server: ModalServer) -> None:
    reply = api_pb2.WorkspaceBillingRatesResponse(
        rates={"gpu_hour_cost_h100": "3.95", "gpu_hour_cost_h200": "4.54", "cpu_hour_cost": "0.0473"},
        deprecation_warnings={"gpu_hour_cost_h200": "renamed"},
        deprecation_errors={"cpu_hour_cost": "gone"},
    )
    server.answer("WorkspaceBillingRates", reply)
    rates = ask(server)
    assert rates.sources({"h100"}).startswith("Modal's")
    assert rates.sources({"h200", "cpu"}).startswith("table")


def test_an_answer_that_is_not_a_number_is_ignored(ask: Ask, server: ModalServer) -> None:
    server.answer("WorkspaceBillingRates", api_pb2.WorkspaceBillingRatesResponse(rates={"cpu_hour_cost": "a lot"}))
    assert ask(server).sources({"cpu"}).startswith("table")


@pytest.mark.parametrize("status", [Status.UNIMPLEMENTED, Status.PERMISSION_DENIED, Status.UNAUTHENTICATED])
def test_a_refusal_leaves_the_table(ask: Ask, server: ModalServer, status: Status) -> None:
    server.fail("WorkspaceBillingRates", status=status)
    assert ask(server).sources({"h100"}).startswith("table of 2026-09-20")


@pytest.mark.parametrize("name", ["WorkspaceNameLookup", "WorkspaceBillingRates"])
def test_a_connection_that_is_lost_within_the_request_leaves_the_table(
    ask: Ask, server: ModalServer, name: str
) -> None:
    for nth in range(1, 8):  # the client repeats some requests
        server.lose_connection(name, nth=nth)
    assert ask(server).sources({"h100"}).startswith("table of 2026-09-20")


def test_a_workspace_that_does_not_say_leaves_the_table(ask: Ask) -> None:
    with ModalServer(Settings()) as server:
        assert ask(server).sources({"h100"}).startswith("table of 2026-09-20")
        assert not server.unknown_calls()


@pytest.mark.slow
def test_an_answer_that_does_not_come_is_not_waited_for(ask: Ask, server: ModalServer) -> None:
    release = server.hold("WorkspaceBillingRates")
    began = time.monotonic()
    assert ask(server).sources({"h100"}).startswith("table of 2026-09-20")
    assert time.monotonic() - began < ANSWER_WITHIN_S + 5
    release()


def test_an_old_table_is_warned_of_only_where_it_is_used() -> None:
    later = datetime.date(2027, 1, 1)
    assert "2026-09-20" in stale_warning(TABLE, rates_from(TABLE, {}, later))
    assert stale_warning(TABLE, rates_from(TABLE, {}, datetime.date(2026, 10, 1))) == ""
    names = ["gpu_hour_cost_h100", "gpu_hour_cost_h200", "cpu_hour_cost", "mem_gib_hour_cost"]
    assert stale_warning(TABLE, rates_from(TABLE, dict.fromkeys(names, 1.0), later)) == ""
