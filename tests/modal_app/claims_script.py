"""What processes do with the claims on the local Modal: `python claims_script.py CASE`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import modal

from modal_app.cloud import executions
from modal_app.cloud.claims import (
    Caller,
    claim,
    continue_in_new_call,
    end,
    enqueue_behind,
    is_at_work,
    is_live,
    is_starting,
    last_claim,
    start_waiting_jobs,
)  # fmt: skip
from modal_app.cloud.job import Job
from modal_app.cloud.searches import may_start

FIRST, SECOND = "fc-" + "a" * 22, "fc-" + "b" * 22


def job(name: str, **more: Any) -> Job:
    function = name.partition("/")[0]
    return Job(
        name=name, function=function, sweep="s", app="app", claims="claims", cache_volume="c", runs_volume="r", **more
    )


DATA, RUN = job("preprocess/data", awaited=True), job("train/run")
OTHER = job("train/other", options={"gpu": "H100:2"})


class Deployed:
    """An app with two functions that do nothing, and its claims."""

    def __init__(self) -> None:
        app = modal.App("app", include_source=False)
        for name in ("train", "preprocess"):
            app.function(name=name, serialized=True)(lambda text: None)
        app.deploy()
        self.claims = modal.Dict.from_name("claims", create_if_missing=True)
        self.caller = Caller(self.claims)

    def known(self) -> list[str]:
        """All entries except those about something that waits for a job."""
        return sorted(str(key) for key in self.claims.keys() if not key.startswith("awaited/"))  # noqa: SIM118

    def call(self, one: Job) -> str:
        return self.caller.call(one, last_claim(self.claims.get, one.name)[0])


def ask_of_an_unknown_call() -> None:
    try:
        print(is_live(FIRST))
    except modal.exception.Error as error:
        print(type(error).__name__)


def come_back() -> None:
    claims = modal.Dict.from_name("claims", create_if_missing=True)
    for key, call in ((RUN.name, FIRST), (f"{RUN.name}/after/{FIRST}", SECOND)):
        claims.put(key, {"call": call, "sweep": "s"})
    print(claim(claims, RUN, FIRST) == SECOND, last_claim(claims.get, RUN.name)[1] == SECOND)


def claim_of_a_waiting_call() -> None:
    app = Deployed()
    first = app.call(RUN)
    print(is_at_work(app.claims.get, RUN.name, first), claim(app.claims, RUN, "fc-second") == first)
    modal.FunctionCall.from_id(first).cancel()
    print(is_at_work(app.claims.get, RUN.name, first))
    print(claim(app.claims, RUN, "fc-second"), claim(app.claims, RUN, first))


def start_after_a_starter_that_has_ended() -> None:
    claims = modal.Dict.from_name("claims", create_if_missing=True)
    claims.put(RUN.name, {"call": FIRST, "sweep": "s"})
    claim_of_next, last = last_claim(claims.get, RUN.name)
    starter, other = "fc-" + "c" * 22, "fc-" + "d" * 22  # Modal knows neither, so neither is live
    print(*(may_start(claims, RUN.name, claim_of_next, last, me) for me in (starter, starter, other)))
    claims.put(claim_of_next, {"call": SECOND, "sweep": "s"})
    print(may_start(claims, RUN.name, claim_of_next, last, other))


def choose_twice() -> None:
    claims = modal.Dict.from_name("claims", create_if_missing=True)
    print(executions.chosen(claims, RUN, 2), executions.chosen(claims, RUN, 1), executions.chosen(claims, OTHER, 1))
    executions.choose_again(claims, RUN, 1)
    print(executions.chosen(claims, RUN, 2))


def follow_an_ended_job() -> None:
    app = Deployed()
    first = app.call(DATA)
    end(app.claims, DATA, first, "failed", "no rows")
    print(is_live(first), is_starting(app.claims.get, DATA.name), claim(app.claims, DATA, "fc-second"))
    behind_the_ended = enqueue_behind(app.claims, first, DATA.name, [RUN])
    assert behind_the_ended is not None
    print(behind_the_ended["status"], enqueue_behind(app.claims, "fc-second", DATA.name, [RUN]))


def start_what_waits() -> None:
    app = Deployed()
    first = app.call(DATA)
    enqueue_behind(app.claims, first, DATA.name, [RUN, OTHER])
    enqueue_behind(app.claims, first, DATA.name, [RUN])
    start_waiting_jobs(app.claims, DATA.name, [RUN], "succeeded")
    start_waiting_jobs(app.claims, DATA.name, [RUN], "succeeded")
    print(*app.known())


def start_for_three_sweeps() -> None:
    """A model is fetched for the first one. The others come meanwhile, with runs of their own of the same dataset, and
    the same run, after which something waits in one sweep alone."""
    app, fetch = Deployed(), job("fetch/model", awaited=True)
    call = "fc-" + "f" * 22
    for sweep in ("t", "u"):
        enqueue_behind(app.claims, call, fetch.name, [replace(DATA, sweep=sweep), replace(RUN, sweep=sweep)])
    app.claims.put(fetch.name, {"call": call, "sweep": "s"})
    start_waiting_jobs(app.claims, fetch.name, [DATA, replace(RUN, awaited=True)], "succeeded")
    print(*(key for key in app.claims.keys() if key.startswith("waiting/")))  # noqa: SIM118


def continue_and_start_what_waits() -> None:
    app = Deployed()
    first = app.call(RUN)
    enqueue_behind(app.claims, first, RUN.name, [OTHER])
    continue_in_new_call(app.claims, RUN, first)
    start_waiting_jobs(app.claims, RUN.name, [], "succeeded")
    print(*sorted(key for key in app.claims.keys() if key.startswith(("waiting", OTHER.name))))  # noqa: SIM118


def start_after_a_failure() -> None:
    app = Deployed()
    first = app.call(DATA)
    enqueue_behind(app.claims, first, DATA.name, [RUN])
    start_waiting_jobs(app.claims, DATA.name, [OTHER], "failed")
    app.claims.put("cancelled/train/run", 1.0)
    start_waiting_jobs(app.claims, DATA.name, [RUN, OTHER], "succeeded")
    print(*app.known())


def start_what_is_refused_in_part() -> None:
    """Modal refuses the second call of this process: the first of two jobs that wait."""
    app = Deployed()
    first = app.call(DATA)
    enqueue_behind(app.claims, first, DATA.name, [RUN, OTHER])
    for _ in range(2):
        try:
            start_waiting_jobs(app.claims, DATA.name, [], "succeeded")
        except modal.exception.ResourceExhaustedError:
            print("refused")
        entries = dict(app.claims.items())
        print(*sorted(entry.replace(first, "call") for entry in app.known()), entries.get(f"refused/{RUN.name}"))


def start_twice() -> None:
    app = Deployed()
    for _ in range(2):
        start_waiting_jobs(app.claims, "fetch/model", [DATA, RUN], "succeeded")


def continue_the_call() -> None:
    app = Deployed()
    first = app.call(RUN)
    second = continue_in_new_call(app.claims, RUN, first)
    print(last_claim(app.claims.get, RUN.name)[1] == second, claim(app.claims, RUN, first) == second)
    app.claims.pop(f"{RUN.name}/after/{first}")  # as if the first had been killed before it could record that
    print(claim(app.claims, replace(RUN, continues=first), second) == second)


def call_five() -> None:
    app = Deployed()
    for number in range(5):
        app.call(replace(OTHER, name=f"train/{number}"))


CASES: Mapping[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        ask_of_an_unknown_call, come_back, claim_of_a_waiting_call, follow_an_ended_job, start_what_waits,
        continue_and_start_what_waits, start_after_a_failure, start_what_is_refused_in_part, start_twice,
        continue_the_call, call_five, start_for_three_sweeps, choose_twice, start_after_a_starter_that_has_ended,
    )
}  # fmt: skip

if __name__ == "__main__":
    CASES[sys.argv[1]]()
