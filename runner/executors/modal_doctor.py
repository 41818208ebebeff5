"""Whether Modal accepts the token and has the secret: `python -m runner.executors.modal_doctor SECRET` prints JSON.

It is a separate process, since Modal's client takes about a minute to give up on a server that does not answer; the
caller kills it sooner.
"""

from __future__ import annotations

import json
import sys

import modal
import modal.exception

from modal_app.cloud.connection import lost_connections


def main(secret: str) -> dict[str, object]:
    """`token`: ok, refused or unreachable; `secret`: whether it exists, null if unknown. Secret values are not read."""
    try:
        with lost_connections():
            client = modal.Client.from_env()
            client.hello()
    except modal.exception.AuthError:
        return {"token": "refused", "secret": None}
    except modal.exception.Error as error:
        return {"token": "unreachable", "secret": None, "why": type(error).__name__}
    try:
        with lost_connections():
            modal.Secret.from_name(secret).hydrate(client)
    except modal.exception.NotFoundError:
        return {"token": "ok", "secret": False}
    except modal.exception.Error as error:
        return {"token": "ok", "secret": None, "why": type(error).__name__}
    return {"token": "ok", "secret": True}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
