"""Documents are valid: links lead somewhere, and no committed file names the place where it was written."""

import re
import subprocess
from pathlib import Path

import pytest

from scripts.check_links import external_links

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)

# Written in pieces, so that this file does not contain what it looks for.
REGISTRIES = ("pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "index" + "-url", "find" + "-links")
MACHINES = ("/ho" + "me/", "/ro" + "ot/", "/wo" + "rk/", "/Us" + "ers/", "/tmp" + "/")
FOREIGN = re.compile("|".join(re.escape(text) for text in REGISTRIES) + "|(?<![\\w.~}])(" + "|".join(MACHINES) + ")")


def committed(*patterns: str) -> list[str]:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(name for name in files.split("\0") if name and (ROOT / name).is_file())


@pytest.mark.parametrize("name", committed("*.md"))
def test_every_relative_link_leads_to_a_file_and_a_heading(name: str) -> None:
    document = ROOT / name
    for target in LINK.findall(CODE.sub("", document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in _anchors(there), f"{name} links to {target}, which has no such heading"


def test_links_to_other_hosts_are_found_once_without_their_anchors(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    text = "[a](https://a.example/x#y), [b](b.md)\n```\n[c](https://c.example)\n```\n"
    for name in ("README.md", "docs/b.md"):
        (tmp_path / name).write_text(text)
    assert external_links(tmp_path) == {"https://a.example/x": ["README.md", "docs/b.md"]}


def test_pictures_are_small_enough_for_every_clone() -> None:
    sizes = {file.name: file.stat().st_size for file in (ROOT / "docs" / "images").iterdir()}
    assert sizes
    assert max(sizes.values()) < 150_000, sizes


def test_every_promise_about_a_fault_has_its_test() -> None:
    rows = [line for line in (ROOT / "docs/faults.md").read_text().splitlines() if line.startswith("| ")]
    promises = [line for line in rows if not line.startswith("| Fault ")]
    named = [re.search(r"`(tests/\S+\.py)::(\w+)`", line) for line in promises]
    assert len(named) > 25
    for line, test in zip(promises, named, strict=True):
        assert test, f"no test: {line}"
        source = (ROOT / test[1]).read_text(encoding="utf-8") if (ROOT / test[1]).exists() else ""
        assert f"def {test[2]}(" in source, f"{test[0]} is not there"


def test_no_committed_file_names_a_package_registry_or_a_machine() -> None:
    found = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name in committed()
        for number, line in enumerate(_lines(ROOT / name), start=1)
        if FOREIGN.search(line)
    ]
    assert not found, "\n".join(found)


def _anchors(document: Path) -> set[str]:
    """The anchors of headings as forges name them: lower case, spaces to hyphens, the rest of the punctuation
    dropped."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


def _lines(path: Path) -> list[str]:
    content = path.read_bytes()
    return [] if b"\0" in content else content.decode("utf-8").splitlines()
