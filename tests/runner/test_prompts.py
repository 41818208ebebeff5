"""Prompts: read from a command line, a file or a pipe, and refused with the number of the wrong line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from runner.errors import SweepError
from runner.follow_up.prompts import Prompt, keep_prompts, prompts_of, refuse_too_long


def user(text: str, answer: str | None = None) -> Prompt:
    return Prompt(({"role": "user", "content": text},), answer)


def written(tmp_path: Path, name: str, text: str | bytes) -> str:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def test_the_words_of_the_command_line_come_before_those_of_a_file(tmp_path: Path) -> None:
    file = written(tmp_path, "asked.txt", "\n third \n\nfourth\r\n")
    assert prompts_of(["first", "second\nline"], file, b"", None) == [
        *map(user, ("first", "second\nline", "third", "fourth"))
    ]


def test_the_right_answer_is_given_or_is_the_last_message(tmp_path: Path) -> None:
    rows = [
        {"prompt": "plain"},
        {"prompt": "2+2?", "answer": "4"},
        {"messages": [{"role": "user", "content": "3+3?"}, {"role": "assistant", "content": "6"}], "id": 7},
        {"messages": [{"role": "user", "content": "4+4?"}]},
        {"messages": [{"role": "user", "content": "5+5?"}], "answer": "10"},
    ]
    file = written(tmp_path, "asked.jsonl", "".join(json.dumps(row) + "\n\n" for row in rows))
    assert prompts_of([], file, b"", None) == [
        user("plain"), user("2+2?", "4"), user("3+3?", "6"), user("4+4?"), user("5+5?", "10"),
    ]  # fmt: skip


def test_a_pipe_is_json_lines_when_it_begins_so(tmp_path: Path) -> None:
    assert prompts_of([], "-", b'\n{"prompt": "one"}\n', None) == [user("one")]
    assert prompts_of([], "-", "\ufeffwas heißt {}?\n".encode(), None) == [user("was heißt {}?")]


def test_a_line_separator_within_a_text_ends_no_line(tmp_path: Path) -> None:
    file = written(tmp_path, "asked.jsonl", json.dumps({"prompt": "one\u2028line"}, ensure_ascii=False))
    assert prompts_of([], file, b"", None) == [user("one\u2028line")]


def test_a_system_message_goes_ahead_of_prompts_without_one(tmp_path: Path) -> None:
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "b"}]
    file = written(tmp_path, "asked.jsonl", json.dumps({"messages": own}))
    first, second = prompts_of(["a"], file, b"", "given")
    assert [message["content"] for message in first.messages] == ["given", "a"]
    assert [message["content"] for message in second.messages] == ["own", "b"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"prompt": "cut', "line 2 is not JSON"),
        ('{"question": "x"}', "line 2: expected .*Seen: {\"question\""),
        ('{"prompt": 7}', "line 2: expected"),
        ('["x"]', "line 2: expected"),
        ('{"messages": []}', "line 2: expected"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "line 2: expected"),
        ('{"messages": [{"role": "user", "content": [1]}]}', "line 2: expected"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "line 2: expected"),
        ('{"messages": [{"role": "system", "content": "x"}]}', "line 2: expected"),
        ('{"prompt": "x", "answer": 4}', "line 2: expected"),
        ('{"prompt": "  "}', "Prompt 2 is empty"),
        ('{"prompt": "half \\ud800"}', "Prompt 2 is not valid text"),
        ('{"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": " "}]}', "Prompt 2 is empty"),
    ],
)  # fmt: skip
def test_a_bad_line_is_reported_by_its_number(tmp_path: Path, line: str, why: str) -> None:
    file = written(tmp_path, "asked.jsonl", f'{{"prompt": "good"}}\n{line}\n')
    with pytest.raises(SweepError, match=why):
        prompts_of([], file, b"", None)


@pytest.mark.parametrize("content", ["", "\n \n\t\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    for name in ("asked.txt", "asked.jsonl"):
        with pytest.raises(SweepError, match=f"no prompt in .*{name}"):
            prompts_of([], written(tmp_path, name, content), b"", None)
    with pytest.raises(SweepError, match="no prompt in standard input"):
        prompts_of([], "-", content.encode(), None)


def test_prompts_that_are_not_text_or_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"not UTF-8 text.*byte 2"):
        prompts_of([], written(tmp_path, "asked.txt", b"ab\xff"), b"", None)
    with pytest.raises(SweepError, match="cannot be read: No such file"):
        prompts_of([], str(tmp_path / "missing.txt"), b"", None)
    with pytest.raises(SweepError, match="cannot be read: Is a directory"):
        prompts_of([], str(tmp_path), b"", None)
    with pytest.raises(SweepError, match=r"There is no prompt\. Give --prompt"):
        prompts_of([], None, b"", None)


def test_a_megabyte_is_refused_where_the_context_is_known() -> None:
    prompts = [user("short"), user("x" * 1_000_000)]
    with pytest.raises(
        SweepError, match="Prompt 2 has 1,000,000 characters, but the tiny model reads at most 256 tokens"
    ):
        refuse_too_long(prompts, 256, "the tiny model")
    refuse_too_long(prompts, None, "an unknown model")
    refuse_too_long(prompts, 131_072, "a large model")


def test_the_same_prompts_are_stored_once_and_read_back_as_they_were(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    prompts = [user("ä?\u2028", "1"), user("b")]
    name = keep_prompts(store, prompts)
    assert keep_prompts(store, prompts) == name != keep_prompts(store, prompts[:1])
    rows = [json.loads(line) for line in (store.root / name).read_text(encoding="utf-8").splitlines()]
    assert rows == [prompt.row() for prompt in prompts]
    assert sorted(path.name for path in store.inputs.iterdir() if path.name.startswith(".")) == []


def test_json_lines_in_a_text_file_are_not_taken_as_prompts(tmp_path: Path) -> None:
    file = written(tmp_path, "asked.txt", '\n{"prompt": "where?"}\n')
    with pytest.raises(SweepError, match=r"looks like JSON Lines.*Rename it to \.jsonl"):
        prompts_of([], file, b"", None)
    assert prompts_of([], written(tmp_path, "set.txt", "{x} is a set\n"), b"", None)[0].text == "{x} is a set"
