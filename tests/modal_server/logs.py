"""What containers printed, by app, function, call and container; read back in windows or followed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from modal_proto import api_pb2

from tests.modal_server.signals import Signal

STDOUT = api_pb2.FILE_DESCRIPTOR_STDOUT
STDERR = api_pb2.FILE_DESCRIPTOR_STDERR
SYSTEM = api_pb2.FILE_DESCRIPTOR_INFO


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line, with its newline."""

    text: str
    at: float
    descriptor: int
    app_id: str
    function_id: str
    task_id: str
    call_id: str
    input_id: str


@dataclass(slots=True)
class Logs:
    """In the order of arrival; a position in it is the entry id that a follower continues from."""

    lines: list[LogLine] = field(default_factory=list)
    done_apps: set[str] = field(default_factory=set)
    changed: Signal = field(default_factory=Signal)

    def add(
        self,
        text: str,
        descriptor: int,
        *,
        app_id: str,
        function_id: str,
        task_id: str = "",
        call_id: str = "",
        input_id: str = "",
    ) -> None:
        for line in text.splitlines(keepends=True):
            self.lines.append(LogLine(line, time.time(), descriptor, app_id, function_id, task_id, call_id, input_id))
        self.changed.set()

    def finish(self, app_id: str) -> None:
        """The followers of this app may stop."""
        self.done_apps.add(app_id)
        self.changed.set()

    def select(
        self,
        request: api_pb2.AppGetLogsRequest | api_pb2.AppFetchLogsRequest | api_pb2.AppCountLogsRequest,
        start: int = 0,
    ) -> Iterator[LogLine]:
        """The lines that the request's filters let through."""
        if isinstance(request, api_pb2.AppGetLogsRequest):
            source, since, until = request.file_descriptor, 0.0, float("inf")
        else:
            source = request.source
            since, until = request.since.ToNanoseconds() / 1e9, request.until.ToNanoseconds() / 1e9
        for line in self.lines[start:]:
            if (
                line.app_id == request.app_id
                and request.function_id in ("", line.function_id)
                and request.function_call_id in ("", line.call_id)
                and request.task_id in ("", line.task_id)
                and source in (0, line.descriptor)
                and request.search_text in line.text
                and since <= line.at <= until
            ):
                yield line


def batch(line: LogLine, entry_id: str = "") -> api_pb2.TaskLogsBatch:
    """One line as the client reads it."""
    return api_pb2.TaskLogsBatch(
        task_id=line.task_id,
        function_id=line.function_id,
        input_id=line.input_id,
        entry_id=entry_id,
        items=[
            api_pb2.TaskLogs(
                data=line.text,
                timestamp=line.at,
                timestamp_ns=int(line.at * 1e9),
                file_descriptor=line.descriptor,  # type: ignore[arg-type]
                function_call_id=line.call_id,
                input_id=line.input_id,
                container_id=line.task_id,
            )
        ],
    )
