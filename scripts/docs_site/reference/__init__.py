"""The pages of the reference, each written from the code that it describes. None of them is in the repository."""

from __future__ import annotations

from collections.abc import Mapping

from scripts.docs_site.reference import exit_codes, groups, json_output, keys, python_api, verbs


def pages() -> Mapping[str, str]:
    """The pages by their places in the site."""
    return {
        "reference/verbs.md": verbs.page(),
        "reference/groups.md": groups.overview(),
        **groups.pages(),
        "reference/keys.md": keys.page(),
        "reference/executors.md": keys.executors(),
        **json_output.pages(),
        "reference/python.md": python_api.page(),
        "reference/exit-codes.md": exit_codes.page(),
    }
