from pathlib import Path
from typing import Any

import pytest

from runner.errors import SweepError
from runner.preflight.jsonl import check_rows, rows_of

GOOD = '{"messages": [{"role": "user", "content": "a"}]}'


def dataset(path: Path, *lines: str, **more: Any) -> dict[str, Any]:
    path.write_text("".join(f"{line}\n" for line in lines))
    return {"path": str(path), "type": "chat_template", **more}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{broken", "not JSON"),
        ("[1, 2]", "found a list"),
        ('{"conversations": []}', "this row has conversations"),
        ('{"messages": []}', "under `messages`"),
        pytest.param("[" * 200_000, "not JSON", id="nested too deeply"),
    ],
)
def test_the_first_row_that_cannot_be_one_is_named_with_its_line(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(SweepError, match=says) as printed:
        check_rows(dataset(tmp_path / "my.jsonl", GOOD, "", line))
    assert "my.jsonl line 3" in str(printed.value)


def test_an_empty_file_is_not_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="has no rows"):
        check_rows(dataset(tmp_path / "my.jsonl", "", ""))


def test_what_axolotl_reads_is_let_through(tmp_path: Path) -> None:
    check_rows(dataset(tmp_path / "a.jsonl", GOOD, GOOD))
    check_rows(dataset(tmp_path / "b.jsonl", '{"talk": [1]}', field_messages="talk"))
    check_rows(dataset(tmp_path / "c.jsonl", '{"text": "a"}', type="completion"))
    check_rows({"path": "owner/name", "type": "chat_template"})


@pytest.mark.parametrize(
    ("line", "kind", "says"),
    [
        ('{"prompt": "a", "output": "b"}', "alpaca", "reads instruction"),
        ('{"body": "a"}', "completion", "reads text"),
    ],
)
def test_columns_that_no_row_has_are_named(tmp_path: Path, line: str, kind: str, says: str) -> None:
    with pytest.raises(SweepError, match=says):
        check_rows(dataset(tmp_path / "my.jsonl", line, type=kind))


@pytest.mark.parametrize(
    ("line", "kind", "option"),
    [
        ('{"instruction": "a", "output": "b"}', "chat_template", r"dataset=local_alpaca \(type: alpaca\)"),
        ('{"conversations": [{"from": "human", "value": "a"}]}', "chat_template", "dataset=local_sharegpt."),
        ('{"talk": [{"from": "human", "value": "a"}]}', "alpaca", "local_sharegpt datasets.0.field_messages=talk"),
        ('{"talk": [{"role": "user", "content": "a"}]}', "chat_template", "local datasets.0.field_messages=talk"),
        (GOOD, "completion", "dataset=local."),
        ('{"text": "a"}', "chat_template", "dataset=local_text"),
        ('{"prompt": "a", "completion": "b"}', "chat_template", "field_instruction: prompt, field_output: completion"),
        ('{"body": "a"}', "chat_template", "Set another name with datasets.0.field_messages=NAME"),
        ('{"text": "a", "messages": []}', "chat_template", "Fix or remove the row"),
    ],
)
def test_rows_of_another_format_get_the_option_that_reads_them(
    tmp_path: Path, line: str, kind: str, option: str
) -> None:
    with pytest.raises(SweepError, match=option):
        check_rows(dataset(tmp_path / "my.jsonl", line, type=kind))


@pytest.mark.parametrize(
    ("good", "bad", "kind", "says"),
    [
        ('{"instruction": "a", "output": ""}', '{"prompt": "a", "completion": "b"}', "alpaca", "prompt, completion"),
        ('{"instruction": "a", "output": "b"}', '{"instruction": "a", "output": null}', "alpaca", r"output \(null\)"),
        ('{"text": "a"}', '{"text": null}', "completion", r"reads text, and this row has text \(null\)"),
        (GOOD, '{"messages": null}', "chat_template", "in this row it is null. Fix or"),
        (GOOD, '{"messages": []}', "chat_template", "under `messages`, and in this row it is an empty list. Fix or"),
    ],
)
def test_a_row_among_good_ones_that_lacks_what_its_type_reads_is_named(
    tmp_path: Path, good: str, bad: str, kind: str, says: str
) -> None:
    with pytest.raises(SweepError, match=rf"my\.jsonl line 2: .*{says}"):
        check_rows(dataset(tmp_path / "my.jsonl", good, bad, good, type=kind))
    assert check_rows(dataset(tmp_path / "good.jsonl", good, good, type=kind)) == 2


def test_all_rows_that_cannot_be_read_are_named_at_once_if_others_can(tmp_path: Path) -> None:
    shared = '{"conversations": [{"from": "human", "value": "a"}]}'
    with pytest.raises(SweepError) as printed:
        check_rows(dataset(tmp_path / "my.jsonl", GOOD, shared, "{broken", GOOD, *('{"messages": []}',) * 6))
    assert "line 2: type chat_template reads" in str(printed.value)
    assert "has conversations. Fix or remove the row. 7 more cannot be read: line 3, line 5, " in str(printed.value)
    assert str(printed.value).endswith("line 8, ...")
    with pytest.raises(SweepError, match=r"my.jsonl line 1: .* write dataset=local_sharegpt\.$"):
        check_rows(dataset(tmp_path / "my.jsonl", *(shared,) * 200))


def test_rows_are_counted_and_counted_again_when_the_file_has_changed(tmp_path: Path) -> None:
    assert check_rows(dataset(tmp_path / "my.jsonl", GOOD, "", GOOD)) == 2
    assert check_rows(dataset(tmp_path / "my.jsonl", GOOD, GOOD, GOOD)) == 3
    assert check_rows({"path": "owner/name", "type": "chat_template"}) is None


def test_a_json_file_is_a_list_of_rows_or_has_one_on_each_line_and_anything_else_is_left_to_axolotl(
    tmp_path: Path,
) -> None:
    path = tmp_path / "my.json"
    assert check_rows(dataset(path, f"[{GOOD},", f" {GOOD}]")) == 2
    assert check_rows(dataset(path, GOOD, GOOD, GOOD)) == 3
    assert check_rows(dataset(path, "{", '"data": []', "}")) is None
    with pytest.raises(SweepError, match=r"my\.json row 2: type chat_template reads"):
        check_rows(dataset(path, f'[{GOOD}, {{"text": "a"}}]'))


def test_what_rows_have_is_counted(tmp_path: Path) -> None:
    own = '{"talk": [{"from": "gpt", "value": "b", "weight": null}], "id": null, "note": ""}'
    mapped = {"message_property_mappings": {"role": "from", "content": "value"}, "field_messages": "talk"}
    rows = rows_of(dataset(tmp_path / "my.jsonl", own, own, '{"talk": [{"from": "human", "value": []}]}', **mapped))
    assert rows is not None
    assert (rows.count, rows.messages, rows.parts, len(rows.digests)) == (3, 3, True, 2)
    assert (rows.columns, rows.empty) == ({"talk": 3, "note": 2}, {"note": 2})
    assert (rows.roles, rows.properties) == ({"gpt": 2, "human": 1}, {"from": 3, "value": 3})
