"""A client that puts five entries into a modal.Dict, one call each."""

from __future__ import annotations

import modal

names = modal.Dict.from_name("names", create_if_missing=True)
for number in range(5):
    names.put(number, number)
