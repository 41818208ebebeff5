"""Put over modal_app/oneshot/fetch.py in a test's containers: there is nothing to fetch."""

from __future__ import annotations


def main() -> int:
    print("fetched nothing")
    return 0
