"""GraphQL: each operation that the SDK sends, by its name, answered from the stored records.

The answers contain more than was requested: the clients take what they know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import yaml

from tests.wandb_server import artifacts
from tests.wandb_server.filters import matches
from tests.wandb_server.records import ENTITY, EVENTS, HISTORY, TIME, Run, Sweep, World

OPERATION = re.compile(r"(?:query|mutation|subscription)\s+(\w+)")
Given = dict[str, Any]
NO_PAGE = {"endCursor": None, "hasNextPage": False}


def answer(world: World, url: str, body: Given) -> Given:
    """The operation's name is in the text only: the SDK leaves `operationName` empty."""
    text = re.sub(r"#[^\n]*", "", body["query"])
    found = OPERATION.search(text)
    name = found.group(1) if found else text.strip()[:60]
    given = body.get("variables") or {}
    with world.lock:
        world.asked[name] += 1
        if name in world.instead:
            return world.instead[name]
        operation = OPERATIONS.get(name)
        if operation is None:
            world.unknown.append(name)
            return {"errors": [{"message": f"the fake does not know {name}"}]}
        return {"data": operation(world, url, given)}


def _viewer(world: World, url: str, given: Given) -> Given:
    names = {"name": ENTITY, "username": ENTITY, "entity": ENTITY, "email": "local@example.com", "admin": False}
    teams = {"edges": [{"node": {"id": "team", "name": ENTITY}}]}
    keys: Given = {"edges": []}
    return {"viewer": {"id": "viewer", "flags": "{}", "deletedAt": None, "apiKeys": keys, "teams": teams, **names}}


def _features(world: World, url: str, given: Given) -> Given:
    return {"serverInfo": {"features": []}}


def _organization(world: World, url: str, given: Given) -> Given:
    return {"entity": {"organization": None}}


def _project(world: World, url: str, given: Given) -> Given:
    return {"project": {"id": "project", "internalId": "1", "name": given.get("project") or given.get("name")}}


def _resume(world: World, url: str, given: Given) -> Given:
    run = world.find(given["project"], given["name"])
    return {"model": _model(given["project"]) | {"bucket": run and _node(run)}}


def _upsert(world: World, url: str, given: Given) -> Given:
    run, inserted = world.upsert(given)
    return {"upsertBucket": {"bucket": _node(run), "inserted": inserted}}


def _sweep(world: World, url: str, given: Given) -> Given:
    """Always created, never changed: an id in the request would mean an update, which is never sent here."""
    assert given.get("id") is None
    sweep = Sweep(f"sweep{len(world.sweeps) + 1}", given["projectName"], yaml.safe_load(given["config"]))
    world.sweeps.append(sweep)
    return {"upsertSweep": {"sweep": {"name": sweep.id, "project": _model(sweep.project)},
                            "configValidationWarnings": []}}  # fmt: skip


def _view(world: World, url: str, given: Given) -> Given:
    world.views.append(given)
    return {"upsertView": {"view": {"id": f"view{len(world.views)}", "name": given["name"]}, "inserted": True}}


def _run_files(world: World, url: str, given: Given) -> Given:
    run = world.find(given["project"], given["run"])
    assert run is not None
    urls = [{"name": name, "uploadUrl": f"{url}/storage/{run.project}/{run.name}/{name}"} for name in given["files"]]
    return {"createRunFiles": {"runID": run.storage_id, "uploadHeaders": [], "files": urls}}


def _runs(world: World, url: str, given: Given) -> Given:
    wanted = json.loads(given.get("filters") or "{}")
    inside = [run for run in world.runs.values() if run.project == given["project"] and matches(run, wanted)]
    start, size = int(given.get("cursor") or 0), given.get("perPage") or 50
    page = inside[start : start + size]
    more = {"endCursor": str(start + len(page)), "hasNextPage": start + len(page) < len(inside)}
    edges = [{"node": _node(run), "cursor": str(start + index + 1)} for index, run in enumerate(page)]
    counted = {"internalId": "1", "runCount": len(inside), "readOnly": False}
    return {"project": counted | {"runs": {"edges": edges, "pageInfo": more}}}


def _run(world: World, url: str, given: Given) -> Given:
    run = world.find(given.get("project"), given.get("name") or given.get("run") or given.get("runName"))
    return {"project": {"internalId": "1", "run": run and _node(run) | _details(run, url, given)}}


def _details(run: Run, url: str, given: Given) -> Given:
    first, last = given.get("minStep", 0), given.get("maxStep", float("inf"))
    rows = [line for line in run.lines.get(HISTORY, ()) if first <= json.loads(line)["_step"] < last]
    samples = given.get("samples") or given.get("pageSize") or len(rows)
    specs = [json.loads(spec) for spec in given.get("specs") or ()]
    sampled = [[row for row in run.history if all(key in row for key in spec["keys"])] for spec in specs]
    files = [
        {"id": name, "name": name, "sizeBytes": len(content),
         "url": (link := f"{url}/storage/{run.project}/{run.name}/{name}"),
         "directUrl": link, "mimetype": "", "md5": "", "updatedAt": TIME}
        for name, content in sorted(run.files.items())
        if not given.get("fileNames") or name in given["fileNames"]
    ]  # fmt: skip
    return {
        "history": rows[:samples],
        "events": run.lines.get(EVENTS, []),
        "sampledHistory": sampled,
        "fileCount": len(files),
        "files": {"edges": [{"node": one, "cursor": ""} for one in files], "pageInfo": NO_PAGE},
        "parquetHistory": {"parquetUrls": [], "liveData": run.history},
    }


def _model(project: str) -> Given:
    return {"id": "project", "name": project, "entity": {"id": "entity", "name": ENTITY}}


def _node(run: Run) -> Given:
    history, events = run.lines.get(HISTORY, []), run.lines.get(EVENTS, [])
    keys: Given = {key: {} for row in run.history for key in row}
    return {
        "id": run.storage_id, "name": run.name, "displayName": run.display_name, "projectId": 1, "tags": run.tags,
        "state": run.state, "group": run.group, "jobType": run.job_type, "sweepName": run.sweep, "notes": run.notes,
        "description": None, "commit": None, "readOnly": False, "createdAt": TIME, "heartbeatAt": TIME,
        "user": {"name": ENTITY, "username": ENTITY}, "systemMetrics": "{}",
        "config": json.dumps(run.config), "summaryMetrics": json.dumps(run.summary),
        "historyLineCount": len(history), "eventsLineCount": len(events),
        "logLineCount": len(run.lines.get("output.log", [])),
        "historyTail": json.dumps(history[-1:]), "eventsTail": json.dumps(events[-1:]),
        "historyKeys": {"keys": keys, "lastStep": run.history[-1]["_step"] if history else 0},
        "wandbConfig": json.dumps({"t": run.settings.get("_wandb", {}).get("t", {})}),  # otherwise nothing is resumed
        "project": _model(run.project),
    }  # fmt: skip


OPERATIONS: dict[str, Callable[[World, str, Given], Given]] = {
    "Viewer": _viewer,
    "GetViewer": _viewer,
    "GetDefaultEntity": _viewer,
    "ServerFeaturesQuery": _features,
    "OrganizationCoreWeaveOrganizationID": _organization,
    "ProjectInternalId": _project,
    "RunResumeStatus": _resume,
    "UpsertBucket": _upsert,
    "UpsertSweep": _sweep,
    "UpsertView2": _view,
    "CreateRunFiles": _run_files,
    "Runs": _runs,
    **dict.fromkeys(
        ("Run", "RunState", "RunFullHistory", "RunSampledHistory", "HistoryPage", "RunHistoryKeys", "RunFiles",
         "RunParquetHistory", "QueryRunInfo"),
        _run,
    ),
    **artifacts.OPERATIONS,
}  # fmt: skip
