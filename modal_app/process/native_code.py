"""Native code that a library would fetch from the hub while it is imported, and that no lock pins. Standard library."""

from __future__ import annotations

from collections.abc import Mapping

FETCHED_AT_IMPORT = ("kernels-community/quantization-bitsandbytes",)
"""bitsandbytes 0.50 fetches this on a processor with bfloat16 instructions: the newest commit of a branch, so that the
same lock would run other code tomorrow. Without it, bitsandbytes uses the code in its own package."""
NOWHERE = "/nonexistent"
VARIABLE = "LOCAL_KERNELS"
"""`name=folder:name=folder`: the `kernels` library takes these from folders and does not ask the hub."""


def without_fetched_code(variables: Mapping[str, str]) -> dict[str, str]:
    """The variable that blocks it, next to the kernels that the variable names already.

    >>> without_fetched_code({"LOCAL_KERNELS": "owner/name=/kernels/owner/name"})["LOCAL_KERNELS"]
    'owner/name=/kernels/owner/name:kernels-community/quantization-bitsandbytes=/nonexistent'
    """
    entries = [entry for entry in variables.get(VARIABLE, "").split(":") if entry]
    named = {entry.partition("=")[0] for entry in entries}
    return {VARIABLE: ":".join([*entries, *(f"{one}={NOWHERE}" for one in FETCHED_AT_IMPORT if one not in named)])}
