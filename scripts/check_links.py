"""Check the links of the documents that lead to other hosts.

    make links

Prints those that do not lead anywhere; exit code 1 if there are any. A host that refuses programs, or answers too late,
is listed as unknown. Without a network, nothing is checked, and the exit code is 0.
"""

from __future__ import annotations

import re
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from http.client import HTTPException
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\((https?://[^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
TIMEOUT_S, AT_ONCE = 15.0, 8
GONE = (404, 410)


class Answer(StrEnum):
    GOOD = "good"
    DEAD = "dead"
    UNKNOWN = "unknown"
    OFFLINE = "offline"


def main() -> int:
    links = external_links(ROOT)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = dict(zip(links, pool.map(ask, links), strict=True))
    if answers and all(answer is Answer.OFFLINE for answer in answers.values()):
        print(f"There is no network here, so none of the {len(links)} links to other hosts was checked.")
        return 0
    for link, answer in answers.items():
        if answer is not Answer.GOOD:
            print(f"{answer:<8} {link}  ({', '.join(links[link])})")
    counts = ", ".join(f"{[*answers.values()].count(kind)} {kind}" for kind in Answer)
    print(f"{len(links)} links: {counts}")
    return int(Answer.DEAD in answers.values())


def external_links(root: Path) -> dict[str, list[str]]:
    """Each link without its anchor, and the documents that have it."""
    found: dict[str, list[str]] = {}
    for file in sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")]):
        text = FENCED.sub("", file.read_text(encoding="utf-8"))
        for link in dict.fromkeys(urllib.parse.urldefrag(one).url for one in LINK.findall(text)):
            found.setdefault(link, []).append(file.relative_to(root).as_posix())
    return found


def ask(link: str) -> Answer:
    request = urllib.request.Request(link, headers={"User-Agent": "axosweep-links"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return Answer.GOOD
    except urllib.error.HTTPError as error:
        return Answer.DEAD if error.code in GONE else Answer.UNKNOWN
    except urllib.error.URLError as error:
        return Answer.OFFLINE if isinstance(error.reason, socket.gaierror) else Answer.UNKNOWN
    except (OSError, ValueError, HTTPException):
        return Answer.UNKNOWN


if __name__ == "__main__":
    sys.exit(main())
