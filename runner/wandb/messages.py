"""The messages to and from the process that talks to W&B: one request as JSON on its stdin, one response on its stdout.

The sender encodes plain dataclasses. The receiver checks what it decodes, since much of it comes from W&B, and raises
pydantic's ValidationError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter


@dataclass(frozen=True, slots=True)
class LocalRun:
    """A run of this store, as it should be in W&B."""

    key: str
    folder: str
    """Its folder: metrics.jsonl, wandb/."""
    id: str
    project: str
    entity: str
    """Empty: the default entity of the key."""
    group: str
    name: str
    tags: tuple[str, ...]
    """Its own tags, for a run that is not in W&B yet."""
    sweeps: tuple[str, ...]
    """The tags of the later sweeps that have it."""
    config: Mapping[str, Any]
    """Axolotl's keys, the swept parameters, ...: added to its config in W&B, if they are missing there."""
    summary: Mapping[str, Any]
    """Added to its summary."""
    finished: bool
    """Whether W&B is to have it as finished: it has succeeded, or stopped at a rung."""
    notes: tuple[str, ...] = ()
    """Of its sweeps: added to its notes in W&B, if they are missing there."""
    unjudged_in: str = ""
    """The sweep whose verdict is removed from its summary, since the run is not judged there any more; may be empty."""

    @property
    def path(self) -> str:
        return "/".join(part for part in (self.entity, self.project, self.id) if part)


@dataclass(frozen=True, slots=True)
class UploadRequest:
    runs: tuple[LocalRun, ...]
    kind: Literal["upload"] = "upload"


@dataclass(frozen=True, slots=True)
class AmendRequest:
    """To add what is known only now to runs that are in W&B; nothing of them is uploaded."""

    runs: tuple[LocalRun, ...]
    kind: Literal["amend"] = "amend"


@dataclass(frozen=True, slots=True)
class UploadResult:
    """What was done for one run."""

    key: str
    text: str
    """One line for the user."""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class UploadResponse:
    results: tuple[UploadResult, ...]
    """In the order of the request."""
    kind: Literal["upload"] = "upload"


@dataclass(frozen=True, slots=True)
class SweepLocation:
    """Where W&B has the runs of a sweep: in a project, in the sweep's group or with its tag."""

    sweep: str
    tag: str
    project: str
    entity: str
    """Empty: the default entity of the key."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    locations: tuple[SweepLocation, ...]
    kind: Literal["read"] = "read"


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run in W&B."""

    id: str
    state: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    """All logged rows, also those that a resumed run has logged again."""
    composed: Mapping[str, Any] | None = None
    """Its composed config, one of its files."""


@dataclass(frozen=True, slots=True)
class ReadResponse:
    runs: tuple[tuple[TrackedRun, ...], ...]
    """The runs of each location, in the order of the request; the oldest first."""
    kind: Literal["read"] = "read"


@dataclass(frozen=True, slots=True)
class SweepObjectRequest:
    """A sweep object to create."""

    name: str
    """The sweep's id."""
    project: str
    entity: str
    """Empty: the default entity of the key."""
    parameters: Mapping[str, Sequence[Any]]
    """The swept keys with their values, without secrets."""
    kind: Literal["sweep_object"] = "sweep_object"


@dataclass(frozen=True, slots=True)
class SweepObjectResponse:
    id: str
    """The id in W&B."""
    kind: Literal["sweep_object"] = "sweep_object"


@dataclass(frozen=True, slots=True)
class SweepView:
    """The data for a workspace view of a sweep."""

    sweep: str
    project: str
    entity: str
    """Empty: the default entity of the key."""
    params: Mapping[str, Sequence[Any]]
    """The swept parameters, each with its values."""


@dataclass(frozen=True, slots=True)
class ViewRequest:
    view: SweepView
    dry_run: bool
    """Only build the view, which needs no key."""
    kind: Literal["view"] = "view"


@dataclass(frozen=True, slots=True)
class ViewResponse:
    """For a dry run, the model; otherwise, the address or the error."""

    model: Mapping[str, Any] | None = None
    """The view as W&B would get it."""
    url: str = ""
    error: str = ""
    """Why W&B did not accept it."""
    kind: Literal["view"] = "view"


class FailureReason(StrEnum):
    REFUSED = "refused"
    """W&B does not accept the key."""
    SILENT = "silent"
    """W&B accepted the key, but then did not answer, or answered with an error."""
    HERE = "here"
    """A disk of this machine is full, or a file cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The response to a request that could not be carried out."""

    reason: FailureReason
    message: str
    """The SDK's message, or a sentence about what is wrong on this machine."""
    kind: Literal["failure"] = "failure"


Request = UploadRequest | AmendRequest | ReadRequest | SweepObjectRequest | ViewRequest
Response = UploadResponse | ReadResponse | SweepObjectResponse | ViewResponse | Failure


def encode(message: Request | Response) -> str:
    """JSON. Values that JSON does not have (a date in a composed config) become text."""
    return json.dumps(asdict(message), default=str)


def decode_request(text: str) -> Request:
    adapter: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="kind")])
    return adapter.validate_json(text)


def decode_response(text: str) -> Response:
    adapter: TypeAdapter[Response] = TypeAdapter(Annotated[Response, Field(discriminator="kind")])
    return adapter.validate_json(text)
