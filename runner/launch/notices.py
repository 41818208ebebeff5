"""Notices of a launch (`notify=`, `--notify-command`): what failed and that it is over, sent in a thread of its own.

The ledger has a record when a notice is about to be sent and one when it was. If the second record is missing, the next
launch of the sweep sends the notice again, with the same id.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modal_app.store import notice as notices
from modal_app.store import webhook
from modal_app.store.layout import Store
from modal_app.store.notice import Notice
from modal_app.store.state import Phase, StepState, observe
from modal_app.store.webhook import NotSent
from runner.compare.ranking import Row
from runner.console import terminal
from runner.errors import SweepError
from runner.launch.types import Launch
from runner.request import Request
from runner.store.ledger import Event, Ledger, Record
from runner.types import ExecutorChoice, Plan, StepId

COMMAND_S = 30.0
"""How long a command may take."""
PATIENCE_S = webhook.TIMEOUT_S + 1.0
"""How long the end of a launch waits for notices that are being sent. The table is printed before."""
UNSENT = "A notice was not sent"
PAUSE_S = 2.0
"""Between two looks at the steps."""

Send = Callable[[Notice], None]
"""Raises NotSent."""


def check_notify(choice: ExecutorChoice, request: Request) -> None:
    """Raises SweepError for settings with which no notice could be sent. Modal's secret is checked with Modal."""
    if request.notify is None:
        return
    if problem := notices.name_problem(request.notify):
        raise SweepError(problem)
    if choice.type == "local" and (problem := notices.address_problem(request.notify)):
        raise SweepError(
            f"notify={request.notify}: {problem}. Set it to the webhook's address before the launch: "
            f"export {request.notify}=..."
        )


@dataclass(slots=True)
class Notifier:
    """Looks at a launch's steps and sends the notices that are due. Only `finish` waits, and only errors of writing to
    the ledger are raised."""

    plan: Plan
    store: Store
    senders: Mapping[str, Send]
    """Name -> how it sends."""
    settle: Callable[[], Sequence[str]] = lambda: ()
    """Looks after what others send, at the end, and returns why something was not sent."""
    _before: Mapping[StepId, StepState] = field(default_factory=dict)
    """The state of each step when the launch began."""
    _claimed: set[tuple[str, str]] = field(default_factory=set)
    """Sender and notice."""
    _unsent: dict[str, str] = field(default_factory=dict)
    """Sender -> why its newest unsent notice was not sent."""
    _queue: queue.Queue[tuple[str, Notice]] = field(default_factory=queue.Queue)
    _next: float = 0.0

    @property
    def _ledger(self) -> Ledger:
        return Ledger(self.store, self.plan.sweep)

    def begin(self) -> None:
        """Begin with what an earlier launch could not send."""
        self._before = dict(self._states())
        threading.Thread(target=self._work, daemon=True).start()
        sent, claimed = _sent(self._ledger), _claimed(self._ledger)
        for (sender, id), notice in claimed.items():
            if sender in self.senders and (sender, id) not in sent:
                self._enqueue(sender, notice)
        self._claimed |= claimed.keys()

    def look(self, *, at_once: bool = False) -> None:
        """Send a notice of each step that has failed since the launch began. At most every few seconds, unless it is
        to be done at once."""
        if not self.senders or (time.monotonic() < self._next and not at_once):
            return
        self._next = time.monotonic() + PAUSE_S
        for (kind, key), state in self._states():
            if self._has_failed((kind, key), state):
                why = state.outcome.message if state.outcome else "its process ended without a message"
                self._claim(notices.failed(self.plan.sweep, f"{kind}/{key}", str(state.attempt), why))

    def _has_failed(self, step: StepId, state: StepState) -> bool:
        """Whether it has failed since the launch began. If the worker of a step dies that was running then, the launch
        takes the step over."""
        before = self._before.get(step)
        if before is None or state.attempt > before.attempt:
            return state.phase in (Phase.FAILED, Phase.LOST)
        return state.phase is Phase.FAILED and before.phase is Phase.RUNNING

    def finish(self, rows: Sequence[Row], patience_s: float = PATIENCE_S) -> None:
        """Send a notice that the sweep is done, and say what was not sent."""
        for why in self.settle():
            terminal.message(f"{UNSENT}: {why}. `axosweep attach {self.plan.sweep}` tries again.", style="yellow")
        if not self.senders:
            return
        self._next = 0.0
        self.look()
        self._claim(notices.done(self.plan.sweep, _fingerprint(rows), Counter(str(row.status) for row in rows)))
        deadline = time.monotonic() + patience_s
        while self._queue.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.02)
        late = [f"it took longer than {patience_s:g} s"] if self._queue.unfinished_tasks else []
        for why in list(self._unsent.values()) or late:
            terminal.message(f"{UNSENT}: {why}. The next launch of this sweep sends it.", style="yellow")

    def _states(self) -> Iterator[tuple[StepId, StepState]]:
        steps = [one.step for one in self.plan.datasets if not one.done]
        steps += [one.step for one in self.plan.pending if one.trains]
        steps += [one.step for one in self.plan.after if not one.done]
        for step in steps:
            yield (step.kind, step.key), observe(self.store, step.kind, step.key)

    def _claim(self, notice: Notice) -> None:
        for sender in self.senders:
            if (sender, notice.id) not in self._claimed:
                self._claimed.add((sender, notice.id))
                facts = {"to": sender, "notice": json.loads(notice.to_json())}
                self._ledger.append(Record(Event.NOTICE, facts=facts))
                self._enqueue(sender, notice)

    def _enqueue(self, sender: str, notice: Notice) -> None:
        self._queue.put((sender, notice))

    def _work(self) -> None:
        while True:
            sender, notice = self._queue.get()
            try:
                self.senders[sender](notice)
                self._ledger.append(Record(Event.NOTIFIED, facts={"to": sender, "id": notice.id}))
            except NotSent as error:
                self._unsent[sender] = str(error)
            except OSError as error:  # of the ledger
                self._unsent[sender] = str(error.strerror or error)
            finally:
                self._queue.task_done()


def notifier_of(launch: Launch) -> Notifier:
    """For Modal without the webhook: there, the containers call it."""
    request, senders = launch.request, dict[str, Send]()
    if (name := request.notify) is not None and launch.on_this_machine:
        senders["webhook"] = lambda notice: webhook.send(notice, name)
    if (command := request.notify_command) is not None:
        senders["command"] = lambda notice: run_command(command, notice)
    notifier = Notifier(launch.plan, launch.store, senders)
    if request.notify is not None and not launch.on_this_machine:
        from runner.executors.modal_notices import settle  # imported late: it imports Modal

        finished = {one.run.key for one in launch.plan.runs if one.done} if request.round else None
        notifier.settle = lambda: settle(launch.store, launch.plan.sweep, finished)
    if senders:
        notifier.begin()
    return notifier


def run_command(command: str, notice: Notice, timeout_s: float = COMMAND_S) -> None:
    """Run a command of the user's with the notice on its stdin. Raises NotSent."""
    process = subprocess.Popen(
        command,
        shell=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    try:
        process.communicate(notice.body(), timeout_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise NotSent(f"the command did not end within {timeout_s:g} s") from None
    if process.returncode != 0:
        raise NotSent(f"the command ended with exit code {process.returncode}")


def _claimed(ledger: Ledger) -> dict[tuple[str, str], Notice]:
    records = [record.facts for record in ledger.records() if record.event is Event.NOTICE]
    found = [(str(facts["to"]), Notice.from_json(json.dumps(facts["notice"]))) for facts in records]
    return {(sender, notice.id): notice for sender, notice in found}


def _sent(ledger: Ledger) -> set[tuple[str, str]]:
    return {
        (str(record.facts["to"]), str(record.facts["id"]))
        for record in ledger.records()
        if record.event is Event.NOTIFIED
    }


def _fingerprint(rows: Sequence[Row]) -> str:
    """A hash of how each run has ended. It is the same if nothing was tried again."""
    ended = sorted((row.key, str(row.status), row.attempts) for row in rows)
    return hashlib.sha256(json.dumps(ended).encode()).hexdigest()[:12]
