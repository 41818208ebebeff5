"""Logs as clients read them: followed, in a window of time, or counted in intervals of time."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from modal_proto import api_pb2

from tests.modal_server.logs import STDERR, STDOUT, batch
from tests.modal_server.world import World


class LogResponder:
    """Entry ids are positions in the list of all lines."""

    def __init__(self, world: World) -> None:
        self._logs = world.logs

    async def AppGetLogs(self, request: api_pb2.AppGetLogsRequest) -> AsyncIterator[api_pb2.TaskLogsBatch]:
        position = int(request.last_entry_id or 0)
        deadline = time.monotonic() + (request.timeout or 55.0)
        while True:
            end = len(self._logs.lines)
            for line in self._logs.select(request, position):
                yield batch(line, str(end))
            position = end
            if request.app_id in self._logs.done_apps:
                yield api_pb2.TaskLogsBatch(app_done=True, entry_id=str(position))
                return
            if position == len(self._logs.lines) and not await self._logs.changed.wait(deadline - time.monotonic()):
                return

    async def AppFetchLogs(self, request: api_pb2.AppFetchLogsRequest) -> api_pb2.AppFetchLogsResponse:
        """The newest ones when there are more than the limit."""
        lines = list(self._logs.select(request))
        return api_pb2.AppFetchLogsResponse(batches=[batch(line) for line in lines[-(request.limit or len(lines)) :]])

    async def AppCountLogs(self, request: api_pb2.AppCountLogsRequest) -> api_pb2.AppCountLogsResponse:
        buckets: dict[int, api_pb2.AppCountLogsResponse.LogBucket] = {}
        for line in self._logs.select(request):
            start = int(line.at) // request.bucket_secs * request.bucket_secs
            bucket = buckets.setdefault(start, api_pb2.AppCountLogsResponse.LogBucket())
            bucket.bucket_start_at.FromSeconds(start)
            bucket.stdout_logs += line.descriptor == STDOUT
            bucket.stderr_logs += line.descriptor == STDERR
            bucket.system_logs += line.descriptor not in (STDOUT, STDERR)
        return api_pb2.AppCountLogsResponse(app_id=request.app_id, buckets=[buckets[key] for key in sorted(buckets)])
