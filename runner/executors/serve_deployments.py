"""What is served on Modal, as types for code that only shows it and does not import Modal's client."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServeDeployment:
    """What is served, as it is stored on the runs Volume."""

    app: str
    url: str
    models: tuple[tuple[tuple[str, ...], str], ...]
    """Of each model, its names and a description."""
    gpu: str
    idle_s: int
    at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class ServeDeployments:
    """What `serve list --json` prints."""

    deployments: tuple[ServeDeployment, ...]


@dataclass(frozen=True, slots=True)
class EndedDeployments:
    """What `serve stop --json` prints."""

    ended: tuple[str, ...]
    """The names of their apps."""
