"""Artifacts: they are begun, get a manifest and files with their bytes, are committed, and are listed by the run that
created them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.wandb_server.records import Artifact, World

Given = dict[str, Any]


def artifact(world: World, key: str) -> Artifact:
    """Find an artifact by its id, or by that of its manifest."""
    return next(one for one in world.artifacts if one.id == key.removeprefix("manifest-"))


def _type(world: World, url: str, given: Given) -> Given:
    name = given["name"].partition(":")[0]
    found = next((one for one in reversed(world.artifacts) if one.collection == name), None)
    return {"project": {"artifact": found and {"artifactType": {"name": found.type}}}}


def _create(world: World, url: str, given: Given) -> Given:
    asked = given["input"]
    (collection,) = asked.get("artifactCollectionNames") or [asked.get("artifactCollectionName")]
    same = [one for one in world.artifacts if (one.collection, one.digest) == (collection, asked["digest"])]
    if same:
        made = same[0]
    else:
        made = Artifact(
            len(world.artifacts) + 1, asked["runName"], asked["artifactTypeName"], collection, asked["digest"]
        )
        world.artifacts.append(made)
    latest = {"latestArtifact": {"id": made.id, "versionIndex": 0}}
    return {"createArtifact": {"artifact": {"id": made.id, "state": made.state, "artifactSequence": latest}}}


def _manifest(world: World, url: str, given: Given) -> Given:
    key = given.get("artifactID") or given["artifactManifestID"]
    made = artifact(world, key)
    upload = {"uploadUrl": f"{url}/artifact-manifest/{made.id}", "uploadHeaders": []} if given["includeUpload"] else {}
    answered = {"artifactManifest": {"id": f"manifest-{made.id}", "file": {"id": f"file-{made.id}", **upload}}}
    return {"createArtifactManifest": answered, "updateArtifactManifest": answered}


def _files(world: World, url: str, given: Given) -> Given:
    edges = []
    for asked in given["input"]["artifactFiles"]:
        made, name = artifact(world, asked["artifactID"]), asked["name"]
        node: Given = {
            "storagePath": f"wandb_artifact/{made.id}/{name}", "uploadHeaders": [], "uploadMultipartUrls": None,
            "uploadUrl": f"{url}/artifact-file/{made.id}/{name}", "artifact": {"id": made.id},
        }  # fmt: skip
        edges.append({"node": node})
    return {"createArtifactFiles": {"files": {"edges": edges}}}


def _commit(world: World, url: str, given: Given) -> Given:
    made = artifact(world, given["artifactID"])
    made.state = "COMMITTED"
    return {"commitArtifact": {"artifact": {"id": made.id, "digest": made.digest}}}


OPERATIONS: dict[str, Callable[[World, str, Given], Given]] = {
    "ArtifactType": _type,
    "CreateArtifact": _create,
    "CreateArtifactManifest": _manifest,
    "UpdateArtifactManifest": _manifest,
    "CreateArtifactFiles": _files,
    "CommitArtifact": _commit,
}
