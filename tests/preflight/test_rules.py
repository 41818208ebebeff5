"""Each rule reports the configs that it is for, is silent about similar ones, and names its source."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.facts import DataManifest
from runner.config.known_names import facts_in
from runner.config.shipped import shipped_root
from runner.preflight.rules import RULES, Rule
from runner.preflight.rules.partners import AXOLOTL, PARTNERS, Partner
from runner.preflight.rules.run_facts import RunFacts
from runner.types import Gpu, ModelFacts
from tests.preflight.sound_base import SOUND
from tests.read_yaml import read_yaml
from tests.runner.builders import experiment

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "rules.md"
BY_NAME: Mapping[str, Rule] = {rule.__name__: rule for rule in RULES}
CASES: Mapping[str, Mapping[str, list[Mapping[str, Any]]]] = {
    rule: cases for file in sorted((HERE / "rules").glob("*.yaml")) for rule, cases in read_yaml(file).items()
}


def _cases(kind: str) -> list[Any]:
    return [
        pytest.param(rule, case, id=f"{rule}: {json.dumps({key: one for key, one in case.items() if key != 'says'})}")
        for rule, cases in CASES.items()
        for case in cases[kind]
    ]


def _asked(case: Mapping[str, Any], place: Path) -> RunFacts:
    """`change`: of SOUND. `gpu`: name and number, such as [h100, 8]. `model`: a file of conf/model. `files`: name ->
    rows, lines, or one `row` and how many `times`. `prepared`: facts of its prepared dataset.
    `for_another_model`: the keys that the default's model file has set.
    """
    for name, given in case.get("files", {}).items():
        rows = [given["row"]] * given["times"] if isinstance(given, Mapping) else given
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("\n".join(lines) + "\n")
    axolotl = {key: value for key, value in {**SOUND, **case.get("change", {})}.items() if value is not None}
    facts = _shipped(case["model"]) if "model" in case else None
    if facts is not None:
        axolotl["base_model"] = facts.base_model
    made = experiment(axolotl, gpu=Gpu(*case.get("gpu", ("h100", 1))))
    kept = tuple(case.get("for_another_model", ()))
    return RunFacts(replace(made, model=facts, for_another_model=kept), DataManifest.of(case.get("prepared", {})))


def _shipped(name: str) -> ModelFacts:
    return facts_in(read_yaml(shipped_root() / "conf" / "model" / f"{name}.yaml")["model"])


def _sources(rule: str, place: Path) -> list[str]:
    found = [one for case in CASES[rule]["speaks"] for one in BY_NAME[rule](_asked(case, place))]
    return list(dict.fromkeys(source for one in found for source in one.source.split()))


def _severities(rule: str) -> str:
    return " or ".join(sorted({case.get("severity", "warning") for case in CASES[rule]["speaks"]}))


def _table(place: Path) -> str:
    """A line for each rule: its severity and name, the first paragraph of its docstring, and the sources it names."""
    lines = ["| rule | what it reports | documented by |", "|---|---|---|"]
    for rule in RULES:
        name = rule.__name__
        sentence = " ".join((rule.__doc__ or "").split("\n\n")[0].split()).replace("|", "\\|")
        sources = _sources(name, place) if name != "key_without_its_partner" else []
        links = ", ".join(f"[{_site(source)}]({source})" for source in sources) or "the second table"
        lines.append(f"| {_severities(name)} `{name}` | {sentence} | {links} |")
    return "\n".join([*lines, "", *_partner_lines()])


def _partner_lines() -> list[str]:
    keys: dict[Partner, list[str]] = {}
    for key, partner in PARTNERS.items():
        keys.setdefault(partner, []).append(f"`{key}`")
    lines = ["| keys | Axolotl does not read them | its source |", "|---|---|---|"]
    for partner, names in keys.items():
        path = partner.path.removesuffix("/__init__.py")
        lines.append(f"| {', '.join(names)} | {partner.words} | [{path}]({AXOLOTL}{partner.path}) |")
    return lines


def _site(source: str) -> str:
    parts = source.removeprefix("https://").split("/")
    host = parts[0].removeprefix("www.").removeprefix("docs.")
    named = {"github.com": min(2, len(parts) - 1), "arxiv.org": -1, "huggingface.co": 2}.get(host)
    return host.split(".")[0] if named is None else parts[named].partition("#")[0]


def test_the_page_lists_every_rule_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AXOSWEEP_RENEW_RULES=1 renews the table."""
    monkeypatch.chdir(tmp_path)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition("| rule |")
    table = _table(tmp_path)
    if os.environ.get("AXOSWEEP_RENEW_RULES") == "1":
        PAGE.write_text(f"{before}{table}\n", encoding="utf-8")
        return
    assert f"| rule |{rest}" == f"{table}\n"


def test_every_rule_has_cases_of_both_kinds_and_no_case_is_of_a_rule_that_is_gone() -> None:
    assert sorted(CASES) == sorted(BY_NAME)
    assert all(cases["speaks"] and cases["quiet"] for cases in CASES.values())


@pytest.mark.parametrize(("rule", "case"), _cases("speaks"))
def test_a_rule_says_what_is_wrong_and_where_that_is_documented(
    rule: str, case: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(BY_NAME[rule](_asked(case, tmp_path)))
    text = "\n".join(one.text for one in found)
    assert [piece for piece in case["says"] if piece not in text] == [], text
    assert all(one.source.startswith("https://") for one in found), text
    assert {one.severity.value for one in found} == {case.get("severity", "warning")}, text


@pytest.mark.parametrize(("rule", "case"), _cases("quiet"))
def test_a_rule_is_quiet_about_a_sound_config(
    rule: str, case: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [one.text for one in BY_NAME[rule](_asked(case, tmp_path))] == []
