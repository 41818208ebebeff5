"""Every call that arrived, its caller, and the faults that a test requested for it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.message import Message
from grpclib import GRPCError, Status

CLIENT = "client"
_HEARTBEATS = frozenset({"AppHeartbeat", "ContainerHeartbeat", "DictHeartbeat", "VolumeHeartbeat"})


@dataclass(frozen=True, slots=True)
class Call:
    """One request: `caller` is "client", or the id of the container that sent it."""

    name: str
    caller: str
    request: Message
    at: float


@dataclass(slots=True)
class Fault:
    """What happens to one call: the `nth` of those that match, counted from the request of the fault."""

    name: str
    nth: int
    matches: Callable[[Message, str], bool]
    action: Callable[[], None] | None = None
    error: GRPCError | None = None
    gate: asyncio.Event | None = None
    after: bool = False
    seen: int = 0


@dataclass(slots=True)
class Record:
    """Stored in the order of arrival. Heartbeats are counted, but not stored."""

    calls: list[Call] = field(default_factory=list)
    heartbeats: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    unavailable: bool = False
    """Every call is answered UNAVAILABLE."""

    def add(self, name: str, caller: str, request: Message) -> Fault | None:
        """Remember the call; returns the fault that is due for it, if any."""
        if name in _HEARTBEATS:
            self.heartbeats[name] += 1
        else:
            self.calls.append(Call(name, caller, request, time.time()))
        due = None
        for fault in list(self.faults):
            if fault.name == name and fault.matches(request, caller):
                fault.seen += 1
                if fault.seen == fault.nth and due is None:
                    self.faults.remove(fault)
                    due = fault
        return due

    def fail(
        self,
        name: str,
        *,
        nth: int = 1,
        status: Status = Status.FAILED_PRECONDITION,
        message: str = "the test ordered this failure",
        after: bool = False,
        matches: Callable[[Message, str], bool] = lambda request, caller: True,
    ) -> None:
        """Answer the nth call with an error; with `after`, the call has its effect, and only its answer is lost."""
        self.faults.append(Fault(name, nth, matches, error=GRPCError(status, message), after=after))

    def hold(
        self, name: str, gate: asyncio.Event, *, nth: int = 1, after: bool = False, container: int | None = None
    ) -> None:
        """Let the nth call wait at the gate, before its effect or before its answer. `container`: of the calls that the
        first (1), second (2), ... container makes."""
        callers: list[str] = []

        def matches(request: Message, caller: str) -> bool:
            if container is None:
                return True
            if caller != CLIENT and caller not in callers:
                callers.append(caller)
            return caller in callers[container - 1 : container]

        self.faults.append(Fault(name, nth, matches, gate=gate, after=after))

    def act(
        self,
        name: str,
        action: Callable[[], None],
        *,
        nth: int = 1,
        after: bool = False,
        matches: Callable[[Message, str], bool] = lambda request, caller: True,
    ) -> None:
        """Run `action` when the nth call arrives, or when it has been carried out but not answered yet."""
        self.faults.append(Fault(name, nth, matches, action=action, after=after))
