"""python -m runner.wandb.process: one request on stdin, one response on stdout; output of the SDK goes to stderr."""

from __future__ import annotations

import os
import sys

import wandb.errors

from runner.wandb.messages import (
    AmendRequest,
    Failure,
    FailureReason,
    ReadRequest,
    Request,
    Response,
    SweepObjectRequest,
    UploadRequest,
    ViewRequest,
    decode_request,
    encode,
)
from runner.wandb.process import read, sdk, sweep_object, upload, view
from runner.wandb.process.here import problem_here


def main() -> None:
    os.environ["WANDB_SILENT"] = "true"
    responses, sys.stdout = sys.stdout, sys.stderr  # the SDK prints
    responses.write(encode(respond(decode_request(sys.stdin.read()))))


def respond(request: Request) -> Response:
    """The response to a request; a Failure when W&B does not accept the key or does not answer, and for a file or a
    disk of this machine."""
    if isinstance(request, ViewRequest) and request.dry_run:
        return view.preview(request)
    try:
        api = sdk.sign_in()
        match request:
            case UploadRequest():
                return upload.upload(api, request)
            case AmendRequest():
                return upload.amend(api, request)
            case ReadRequest():
                return read.read(api, request)
            case SweepObjectRequest():
                return sweep_object.create(request)
            case ViewRequest():
                return view.save(api, request)
    except wandb.errors.AuthenticationError as error:
        return Failure(FailureReason.REFUSED, str(error))
    except Exception as error:  # the process boundary: the SDK reads whatever a server answers
        if problem := problem_here(error):
            return Failure(FailureReason.HERE, problem)
        if isinstance(error, sdk.ERRORS):
            return Failure(FailureReason.SILENT, str(error))
        return Failure(FailureReason.SILENT, f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
